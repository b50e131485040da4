-- The server as any user may see it; NULL where only others may.
SELECT current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS version_number,
    (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector,
    (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE extname = 'vector') AS vector_schema,
    (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE extname = 'pg_stat_statements') AS statements_schema,
    (SELECT setting::bigint * current_setting('block_size')::int FROM pg_settings WHERE name = 'shared_buffers') AS shared_buffers,
    (SELECT setting::bigint * current_setting('block_size')::int FROM pg_settings WHERE name = 'effective_cache_size') AS effective_cache_size,
    current_setting('max_connections')::int AS max_connections,
    (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data_directory,
    pg_database_size(current_database()) AS database_bytes,
    pg_is_in_recovery() AS standby,
    has_function_privilege('pg_catalog.pg_read_file(text, bigint, bigint, boolean)', 'EXECUTE') AS reads_files,
    pg_has_role('pg_read_all_stats', 'USAGE') AS sees_statements,
    EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'pgherd' AND c.relname = 'topology') AS in_herd,
    now() AS measured_at,
    (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS database_reset,
    (SELECT stats_reset FROM pg_stat_bgwriter) AS server_reset
