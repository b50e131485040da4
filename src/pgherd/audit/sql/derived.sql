-- what views and materialized views are made of
SELECT DISTINCT vn.nspname AS schema, v.relname AS name, v.relkind::text AS kind, v.relispopulated AS populated,
    sn.nspname AS source_schema, s.relname AS source
FROM pg_rewrite r
JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_namespace vn ON vn.oid = v.relnamespace
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class s ON s.oid = d.refobjid AND s.oid <> v.oid
JOIN pg_namespace sn ON sn.oid = s.relnamespace
WHERE v.relkind IN ('v', 'm') AND vn.nspname NOT IN ('pg_catalog', 'information_schema')
