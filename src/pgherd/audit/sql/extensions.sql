-- extensions, languages and libraries of functions
SELECT 'extension' AS what, e.extname AS name, n.nspname AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
UNION ALL
SELECT 'language', lanname, '' FROM pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c')
UNION ALL
SELECT DISTINCT 'library', p.probin, '' FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE lanname = 'c' AND p.oid >= 16384  -- what initdb makes has lower ones
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
