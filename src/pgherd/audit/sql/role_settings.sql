-- settings of single roles and databases
SELECT coalesce(d.datname, 'every database') AS database, coalesce(r.rolname, 'everybody') AS role,
    split_part(entry, '=', 1) AS name, substring(entry FROM '=(.*)$') AS setting
FROM pg_db_role_setting s
LEFT JOIN pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_roles r ON r.oid = s.setrole
CROSS JOIN LATERAL unnest(s.setconfig) entry
WHERE entry ~ '^(log_|auto_explain\.|pgaudit\.|debug_print_|temp_tablespaces|.*_preload_libraries)'
