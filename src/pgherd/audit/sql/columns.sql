-- columns that hold values long enough to be told apart
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
    c.relpersistence::text AS persistence, a.attname AS column, pg_table_size(c.oid) AS bytes, pg_relation_size(c.oid) AS heap,
    greatest(c.reltuples, 0)::bigint AS rows, format('%I.%I', sn.nspname, s.proname) AS send,
    CASE WHEN t.typname IN ('vector', 'halfvec', 'sparsevec') THEN 'vector'
        WHEN t.typname = 'bytea' THEN 'bytes'
        WHEN t.typname IN ('json', 'jsonb') THEN 'json'
        WHEN t.typcategory = 'A' AND e.typcategory = 'S' THEN 'texts'
        WHEN t.typname IN ('hstore', '_hstore') OR t.typtype = 'c' OR e.typtype = 'c' THEN 'said'
        ELSE 'text' END AS form
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type d ON d.oid = a.atttypid
JOIN pg_type t ON t.oid = coalesce(nullif(d.typbasetype, 0), d.oid)
LEFT JOIN pg_type e ON e.oid = t.typelem
LEFT JOIN pg_proc s ON s.oid = t.typsend
LEFT JOIN pg_namespace sn ON sn.oid = s.pronamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    AND (t.typcategory = 'S' OR t.typname IN ('vector', 'halfvec', 'sparsevec', 'bytea', 'json', 'jsonb', 'uuid', 'xml')
        OR t.typname IN ('hstore', '_hstore') OR t.typtype = 'c' OR (t.typcategory = 'A' AND (e.typcategory = 'S' OR e.typtype = 'c')))
ORDER BY c.oid, a.attnum
