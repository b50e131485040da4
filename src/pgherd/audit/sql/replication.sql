-- who receives WAL
SELECT r.pid, r.application_name, coalesce(host(r.client_addr), '') AS address, r.state, s.slot_name, s.slot_type, s.database
FROM pg_stat_replication r
LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
