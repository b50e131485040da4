-- temporary files
SELECT t.spcname AS tablespace, f.name, f.size,
    EXISTS (SELECT FROM pg_stat_activity WHERE pid = substring(f.name FROM '^pgsql_tmp(\d+)')::integer) AS in_use
FROM pg_tablespace t
CROSS JOIN LATERAL pg_ls_tmpdir(t.oid) f
WHERE t.spcname <> 'pg_global'
