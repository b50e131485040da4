-- rights on tables
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, g.role, bool_or(g.login) AS login
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT a.grantee, a.privilege_type FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner
    UNION
    SELECT a.grantee, a.privilege_type FROM pg_attribute t, aclexplode(t.attacl) a
    WHERE t.attrelid = c.oid AND a.grantee <> c.relowner
) acl
CROSS JOIN LATERAL (
    SELECT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(acl.grantee) END::text AS role,
        acl.grantee = 0 OR EXISTS (SELECT FROM pg_roles WHERE rolcanlogin AND pg_has_role(oid, acl.grantee, 'MEMBER')) AS login
) g
WHERE acl.privilege_type = 'SELECT' AND c.relkind IN ('r', 'p', 'f', 'm', 'v')
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
GROUP BY 1, 2, 3, 4
