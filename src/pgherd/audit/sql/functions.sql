-- functions that run with their owner's rights
SELECT n.nspname AS schema, p.proname AS name, p.oid::regprocedure::text AS signature, p.prosrc AS body,
    pg_get_userbyid(p.proowner) AS owner, (SELECT rolsuper FROM pg_roles WHERE oid = p.proowner) AS superuser,
    EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) WHERE grantee = 0) AS public
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prosecdef AND NOT EXISTS (
    SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
