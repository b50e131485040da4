-- settings of logs, temporary files and preloaded libraries
SELECT name, setting FROM pg_settings
WHERE name ~ '^(log_|logging_|syslog_|event_source|auto_explain\.|debug_print_|temp_tablespaces|data_directory$|pgaudit\.|.*_preload_libraries$)'
