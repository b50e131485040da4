-- prepared transactions
SELECT p.gid, p.database, extract(epoch FROM clock_timestamp() - p.prepared)::float8 AS age_s, ARRAY(
    SELECT DISTINCT l.relation::bigint FROM pg_locks l
    WHERE l.virtualtransaction = '-1/' || p.transaction AND l.relation IS NOT NULL) AS relations
FROM pg_prepared_xacts p
