-- files in the data directory that are not PostgreSQL's
WITH RECURSIVE entry AS (
    SELECT name AS top, name AS path, size, isdir
    FROM pg_ls_dir('.', false, false) name CROSS JOIN LATERAL pg_stat_file(name, true)
    WHERE name <> ALL (ARRAY['PG_VERSION', 'base', 'global', 'pg_commit_ts', 'pg_dynshmem', 'pg_logical', 'pg_multixact', 'pg_notify',
            'pg_replslot', 'pg_serial', 'pg_snapshots', 'pg_stat', 'pg_stat_tmp', 'pg_subtrans', 'pg_tblspc', 'pg_twophase', 'pg_wal',
            'pg_xact', 'postmaster.opts', 'postmaster.pid', 'current_logfiles', 'current_logfiles.tmp', 'backup_label', 'backup_label.old',
            'backup_manifest', 'tablespace_map', 'tablespace_map.old', 'standby.signal', 'recovery.signal', 'postgresql.auto.conf.tmp',
            'patroni.dynamic.json', 'pgherd.conf', 'lost+found', current_setting('log_directory')])
        AND name !~ '^(postgresql|pg_hba|pg_ident|recovery)(\.\w+)*\.conf(\.\w+)*$|^(server|root)\.(crt|key|crl)$|^\.s\.PGSQL\.|^\.barman-recover\.info$'
    UNION ALL
    SELECT top, path || '/' || below, s.size, s.isdir
    FROM entry CROSS JOIN LATERAL pg_ls_dir(path, true, false) below CROSS JOIN LATERAL pg_stat_file(path || '/' || below, true) s
    WHERE entry.isdir
)
SELECT top, path, size FROM entry WHERE NOT isdir AND size > 0 ORDER BY path LIMIT 1000
