-- foreign tables
SELECT n.nspname AS schema, c.relname AS name, s.srvname AS server, coalesce(o.options ->> 'schema_name', n.nspname) AS far_schema,
    coalesce(o.options ->> 'table_name', c.relname) AS far_name
FROM pg_foreign_table f
JOIN pg_class c ON c.oid = f.ftrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_foreign_server s ON s.oid = f.ftserver
CROSS JOIN LATERAL (SELECT jsonb_object_agg(option_name, option_value) AS options FROM pg_options_to_table(f.ftoptions)) o
