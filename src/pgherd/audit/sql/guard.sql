-- event triggers against statements that would let pinned rows out
SELECT evtname AS name, evtenabled = 'A' AS always FROM pg_event_trigger
WHERE evtname IN ('pgherd_guard_start', 'pgherd_guard_end')
