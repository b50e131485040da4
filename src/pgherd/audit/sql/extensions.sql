-- extensions, languages and libraries of functions
-- as text: as a name, a library's path would end after 63 bytes
SELECT 'extension' AS what, e.extname::text AS name, n.nspname::text AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
UNION ALL
SELECT 'language', lanname, '' FROM pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c')
UNION ALL
SELECT DISTINCT 'library', p.probin, '' FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE lanname = 'c' AND p.oid >= 16384  -- what initdb makes has lower ones
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
