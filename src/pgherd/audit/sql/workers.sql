-- background workers
SELECT DISTINCT backend_type AS type, datname AS database FROM pg_stat_activity
WHERE backend_type IS NULL OR backend_type NOT IN ('client backend', 'autovacuum launcher', 'autovacuum worker', 'logical replication launcher',
    'logical replication worker', 'logical replication apply worker', 'logical replication parallel worker',
    'logical replication tablesync worker', 'logical replication sequencesync worker', 'parallel worker',
    'background writer', 'checkpointer', 'archiver', 'startup', 'walreceiver', 'walsender', 'walwriter', 'walsummarizer',
    'slotsync worker', 'io worker', 'standalone backend')
