-- files of tables, their TOAST and their indexes
SELECT n.nspname AS schema, c.relname AS name, pg_relation_filepath(c.oid) AS heap, pg_relation_filepath(t.oid) AS toast,
    ARRAY(SELECT pg_relation_filepath(x.indexrelid) FROM pg_index x WHERE x.indrelid IN (c.oid, t.oid)
        ORDER BY x.indexrelid) AS indexes,
    pg_total_relation_size(c.oid) AS bytes
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
