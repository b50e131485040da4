-- roles
SELECT r.rolname AS name, r.rolcanlogin AS login, array_remove(ARRAY[CASE WHEN r.rolreplication THEN 'REPLICATION' END,
    CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END], NULL) AS attributes, ARRAY(
    SELECT g FROM unnest(ARRAY['pg_read_all_data', 'pg_read_server_files', 'pg_write_server_files',
        'pg_execute_server_program', 'pg_create_subscription']) g
    WHERE NOT r.rolsuper AND EXISTS (SELECT FROM pg_roles WHERE rolname = g) AND pg_has_role(r.oid, g, 'MEMBER')) AS member_of
FROM pg_roles r
WHERE r.rolname !~ '^pg_' AND r.oid <> 10  -- whom initdb made
