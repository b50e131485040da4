-- files of no relation, which a crash left
SELECT path AS top, path, s.size
FROM pg_database d
CROSS JOIN LATERAL pg_ls_dir('base/' || d.oid) f (name)
CROSS JOIN LATERAL (SELECT 'base/' || d.oid || '/' || name AS path) p
CROSS JOIN LATERAL pg_stat_file(path, true) s
WHERE datname = current_database() AND name ~ '^\d+(\.\d+)?$' AND s.size > 0
    AND substring(name FROM '^\d+')::oid NOT IN (
        SELECT pg_relation_filenode(oid) FROM pg_class WHERE pg_relation_filenode(oid) IS NOT NULL)
    AND s.modification < least(now() - interval '1 hour',  -- not one that a transaction under way has made
        (SELECT min(xact_start) FROM pg_stat_activity), (SELECT min(prepared) FROM pg_prepared_xacts))
