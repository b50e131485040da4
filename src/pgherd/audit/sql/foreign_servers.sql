-- foreign servers and who may use them
SELECT s.srvname AS name, w.fdwname AS wrapper, (SELECT jsonb_object_agg(option_name, option_value)
        FROM pg_options_to_table(s.srvoptions) WHERE option_name IN ('host', 'hostaddr', 'port', 'dbname', 'service')) AS options,
    ARRAY(SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END::text
        FROM aclexplode(s.srvacl) a WHERE a.grantee <> s.srvowner) AS usable_by,
    ARRAY(SELECT CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(m.umuser) END::text
        FROM pg_user_mappings m WHERE m.srvid = s.oid) AS mapped,
    (SELECT rolsuper FROM pg_roles WHERE oid = s.srvowner) AS by_superuser
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
