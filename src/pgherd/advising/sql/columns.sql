-- Columns that hold vectors (bit columns: those with one of pgvector's indexes), of tables that are no partitions.
SELECT c.oid, n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,
    has_schema_privilege(n.oid, 'USAGE') AND (has_table_privilege(c.oid, 'SELECT')
        OR has_column_privilege(c.oid, a.attnum, 'SELECT')) AS readable,
    row_security_active(c.oid) AS filtered,
    ARRAY(SELECT relid::oid FROM pg_partition_tree(c.oid) WHERE isleaf UNION SELECT c.oid) AS leaves
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd', 'pgherd_aside') AND c.relpersistence <> 't'
    AND (
        t.typname IN ('vector', 'halfvec', 'sparsevec') AND EXISTS (
            SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
            WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' AND e.extname = 'vector')
        OR t.typname = 'bit' AND EXISTS (
            SELECT FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
            WHERE x.indrelid = c.oid AND m.amname IN ('hnsw', 'ivfflat') AND a.attnum = ANY (x.indkey)))
ORDER BY n.nspname, c.relname, a.attnum
