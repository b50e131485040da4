-- Searches by vector that pg_stat_statements has counted in this database, and since when.
SELECT coalesce(sum(calls) FILTER (WHERE is_search), 0)::bigint AS calls,
    (sum(total_exec_time) FILTER (WHERE is_search) / nullif(sum(calls) FILTER (WHERE is_search), 0))::float8 AS mean_ms,
    count(*) FILTER (WHERE query = '<insufficient privilege>')::int AS hidden,
    (SELECT stats_reset FROM {schema}.pg_stat_statements_info) AS since
FROM (
    SELECT calls, total_exec_time, query,
        query ~ '<=>|<->|<#>|<\+>|<~>|<%>' AND query ~* 'order\s+by' AND query !~ 'pgherd advise' AS is_search
    FROM {schema}.pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
) seen
