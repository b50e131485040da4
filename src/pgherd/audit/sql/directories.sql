-- PostgreSQL's own tablespaces (directories)
SELECT spcname AS name, pg_tablespace_location(oid) AS directory FROM pg_tablespace
WHERE spcname NOT IN ('pg_default', 'pg_global')
