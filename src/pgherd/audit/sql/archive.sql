-- WAL archiving
SELECT current_setting('archive_mode') AS mode, current_setting('archive_command') AS command,
    current_setting('archive_library') AS library, (SELECT archived_count FROM pg_stat_archiver) AS archived
