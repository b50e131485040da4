-- extensions and languages
SELECT 'extension' AS what, e.extname AS name, n.nspname AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
UNION ALL
SELECT 'language', lanname, '' FROM pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c')
