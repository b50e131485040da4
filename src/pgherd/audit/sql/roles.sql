-- roles
SELECT r.rolname AS name, r.rolcanlogin AS login, r.rolreplication AS replication, ARRAY(
    SELECT g FROM unnest(ARRAY['pg_read_all_data', 'pg_read_server_files', 'pg_write_server_files',
        'pg_execute_server_program', 'pg_create_subscription']) g
    WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = g) AND pg_has_role(r.oid, g, 'MEMBER')) AS member_of
FROM pg_roles r
WHERE NOT r.rolsuper AND r.rolname !~ '^pg_'
