-- functions that run with their owner's rights, or send statements or rows elsewhere
SELECT n.nspname AS schema, p.proname AS name, p.oid::regprocedure::text AS signature, coalesce(q.body, '') AS body,
    pg_get_userbyid(p.proowner) AS owner, (SELECT rolsuper FROM pg_roles WHERE oid = p.proowner) AS superuser,
    EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) WHERE grantee = 0) AS public,
    p.prosecdef AS definer, q.body ~* q.sending AS sends
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
CROSS JOIN LATERAL (SELECT coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body,
    '\mdblink|\mcopy\M[^;]*\m(to|from)\s+(program\M|'')|\mlo_export\M' AS sending) q
WHERE p.oid >= 16384  -- what initdb makes has lower ones
    AND (p.prosecdef OR q.body ~* q.sending) AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
