-- whose WAL a standby takes
SELECT status, sender_host AS host, sender_port AS port, slot_name FROM pg_stat_wal_receiver
