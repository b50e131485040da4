-- databases
SELECT datname AS name, datallowconn AS open, has_database_privilege(oid, 'CONNECT') AS may_connect FROM pg_database ORDER BY 1
