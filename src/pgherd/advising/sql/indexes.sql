-- pgvector's indexes on a table, those of a partitioned table's leaves together where they are built alike.
SELECT min(i.relname) AS name, m.amname AS method, o.opcname AS opclass, i.reloptions AS options,
    CASE WHEN x.indkey[0] > 0 THEN a.attname END AS attribute,
    format_type(e.atttypid, e.atttypmod) AS type,
    (SELECT array_agg(DISTINCT u.attname::text) FROM pg_depend d
     JOIN pg_attribute u ON u.attrelid = d.refobjid AND u.attnum = d.refobjsubid
     WHERE d.objid = i.oid AND d.refobjid = x.indrelid AND d.refobjsubid > 0) AS uses,
    x.indpred IS NOT NULL AS partial, x.indisvalid AND x.indisready AS valid,
    count(*)::int AS parts, sum(pg_relation_size(i.oid))::bigint AS bytes,
    coalesce(sum(s.idx_scan), 0)::bigint AS scans,
    coalesce(sum(b.idx_blks_hit), 0)::bigint AS hit, coalesce(sum(b.idx_blks_read), 0)::bigint AS read,
    array_agg(i.relname::text) AS names
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am m ON m.oid = i.relam
JOIN pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_attribute e ON e.attrelid = i.oid AND e.attnum = 1
LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] AND a.attnum > 0
LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = i.oid
LEFT JOIN pg_statio_all_indexes b ON b.indexrelid = i.oid
WHERE x.indrelid = ANY (%(leaves)s) AND i.relkind = 'i' AND m.amname IN ('hnsw', 'ivfflat')
GROUP BY m.amname, o.opcname, i.reloptions, attribute, e.atttypid, e.atttypmod, uses, partial, valid
ORDER BY name
