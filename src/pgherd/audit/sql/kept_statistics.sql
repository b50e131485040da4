-- planner statistics of tables, materialized views and indexes: they stay when rows go
SELECT format('statistics of %I.%I', nspname, relname) AS place, said
FROM pg_statistic
JOIN pg_class c ON c.oid = starelid
JOIN pg_namespace n ON n.oid = relnamespace
CROSS JOIN LATERAL (VALUES (stavalues1::text), (stavalues2::text), (stavalues3::text), (stavalues4::text), (stavalues5::text)) slot (listed)
CROSS JOIN LATERAL unnest(listed::text[]) said
WHERE relkind IN ('r', 'm', 'i') AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
UNION ALL
SELECT format('statistics of %s', stxrelid::regclass), said
FROM pg_statistic_ext_data JOIN pg_statistic_ext e ON e.oid = stxoid
CROSS JOIN LATERAL pg_mcv_list_items(stxdmcv) item CROSS JOIN LATERAL unnest(item.values) said
UNION ALL
SELECT format('statistics of %s', stxrelid::regclass), said
FROM pg_statistic_ext_data JOIN pg_statistic_ext e ON e.oid = stxoid
CROSS JOIN LATERAL unnest(stxdexpr) slots
CROSS JOIN LATERAL (VALUES (stavalues1::text), (stavalues2::text), (stavalues3::text), (stavalues4::text), (stavalues5::text)) slot (listed)
CROSS JOIN LATERAL unnest(listed::text[]) said
