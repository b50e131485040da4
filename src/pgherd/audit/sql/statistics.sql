-- planner statistics that hold values
SELECT n.nspname AS schema, c.relname AS name, 'columns'::text AS what, array_agg(DISTINCT a.attname::text) AS columns
FROM pg_statistic s
JOIN pg_class c ON c.oid = s.starelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = s.starelid AND a.attnum = s.staattnum
WHERE c.relkind IN ('f', 'p') AND (s.stavalues1 IS NOT NULL OR s.stavalues2 IS NOT NULL OR s.stavalues3 IS NOT NULL
    OR s.stavalues4 IS NOT NULL OR s.stavalues5 IS NOT NULL)
GROUP BY 1, 2
UNION ALL
SELECT n.nspname, c.relname, 'extended statistics ' || e.stxname, ARRAY(SELECT attname::text FROM pg_attribute
    WHERE attrelid = e.stxrelid AND attnum = ANY (e.stxkeys))
FROM pg_statistic_ext e
JOIN pg_statistic_ext_data d ON d.stxoid = e.oid
JOIN pg_class c ON c.oid = e.stxrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('f', 'p') AND (d.stxdmcv IS NOT NULL OR d.stxdexpr IS NOT NULL)
