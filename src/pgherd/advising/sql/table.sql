-- A table, or the leaves of a partitioned one together: bytes, rows, and what was counted since the statistics began.
SELECT count(*) FILTER (WHERE c.relkind <> 'p')::int AS parts,
    count(*) FILTER (WHERE c.relkind = 'f')::int AS foreign_parts,
    coalesce(sum(pg_relation_size(c.oid)) FILTER (WHERE c.relkind IN ('r', 'm')), 0)::bigint AS heap_bytes,
    coalesce(sum(pg_total_relation_size(nullif(c.reltoastrelid, 0))), 0)::bigint AS toast_bytes,
    coalesce(sum(pg_indexes_size(c.oid)) FILTER (WHERE c.relkind IN ('r', 'm')), 0)::bigint AS indexes_bytes,
    coalesce(sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples END) FILTER (WHERE c.relkind IN ('r', 'm')), 0)::bigint
        AS estimate,
    bool_or(c.reltuples < 0 AND c.relkind IN ('r', 'm')) AS never_analyzed,
    coalesce(sum(s.n_live_tup), 0)::bigint AS live,
    coalesce(sum(s.n_dead_tup), 0)::bigint AS dead,
    coalesce(sum(s.n_tup_ins), 0)::bigint AS inserted,
    coalesce(sum(s.n_tup_del), 0)::bigint AS deleted,
    coalesce(sum(o.heap_blks_hit), 0)::bigint AS heap_hit,
    coalesce(sum(o.heap_blks_read), 0)::bigint AS heap_read,
    coalesce(sum(o.toast_blks_hit), 0)::bigint AS toast_hit,
    coalesce(sum(o.toast_blks_read), 0)::bigint AS toast_read,
    (SELECT sum(p.width)::int FROM (
        SELECT sum(avg_width) / count(DISTINCT (schemaname, tablename)) AS width FROM pg_stats
        WHERE (schemaname, tablename) IN (SELECT l.relnamespace::regnamespace::text, l.relname
            FROM pg_class l WHERE l.oid = ANY (%(leaves)s)) AND NOT inherited AND attname <> ALL (%(vectors)s)) p
    ) AS other_width
FROM pg_class c
LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
LEFT JOIN pg_statio_all_tables o ON o.relid = c.oid
WHERE c.oid = ANY (%(leaves)s)
