-- replication slots
SELECT slot_name AS name, slot_type AS type, plugin, database, active, active_pid AS pid, temporary FROM pg_replication_slots
