-- Readers: roles that may read what is at home in a region and nothing else; what language models run as. Privileges
-- hold them, not settings: a role can change its own settings. What PUBLIC may do in PostgreSQL they may do as well, so
-- that is taken away where it writes (REVOKE) or, where others need it, refused to them alone (triggers).

-- Who asked what, kept on the nodes of the region that answered; never a row, the question only if it is asked for.
CREATE TABLE IF NOT EXISTS pgherd.access_log (
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role name NOT NULL,
    region text NOT NULL,
    client text NOT NULL,
    tool text NOT NULL,
    tables text[] NOT NULL,
    rows bigint,
    ms double precision NOT NULL,
    refused text,
    question text
);
CREATE INDEX IF NOT EXISTS access_log_at ON pgherd.access_log USING brin (at);

-- The only thing a scribe can do: add a line about its own reader.
CREATE OR REPLACE FUNCTION pgherd.log_access(client text, tool text, tables text[], rows bigint, ms double precision,
    refused text, question text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgherd.access_log (role, region, client, tool, tables, rows, ms, refused, question)
    SELECT r.role, r.region, $1, $2, $3, $4, $5, $6, $7 FROM pgherd.reader r WHERE r.scribe = session_user;
    IF NOT FOUND THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s writes no access log', session_user);
    END IF;
    PERFORM pgherd.forget_logs();
END $$;
REVOKE ALL ON FUNCTION pgherd.log_access FROM PUBLIC;

-- Built-in functions that PUBLIC may run, and that leave something behind.
CREATE OR REPLACE FUNCTION pgherd.writing_functions() RETURNS SETOF regprocedure
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import',
        'lo_export', 'lo_open', 'lo_put', 'lo_truncate', 'lo_truncate64', 'lo_unlink', 'lowrite', 'pg_logical_emit_message')
$$;

CREATE OR REPLACE FUNCTION pgherd.refuse_readers() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pgherd.reader WHERE session_user IN (role, scribe)) THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s may read only', session_user);
    END IF;
    RETURN NULL;
END $$;

-- Temporary tables and functions too: PUBLIC may make those.
CREATE OR REPLACE FUNCTION pgherd.refuse_readers_ddl() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pgherd.reader WHERE session_user IN (role, scribe)) THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s may read only, not %s', session_user, tg_tag);
    END IF;
END $$;

-- Links of a reader log in as itself: its region's nodes know it, no other's does.
CREATE OR REPLACE FUNCTION pgherd.map_reader(link name, reader name, secret text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('DROP USER MAPPING IF EXISTS FOR %I SERVER %I', reader, link);
    EXECUTE format('CREATE USER MAPPING FOR %I SERVER %I OPTIONS (user %L, password %L)', reader, link, reader, secret);
EXCEPTION WHEN query_canceled OR OTHERS THEN  -- whose context would be the statement, password and all
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
END $$;

-- What a node that joins the region needs: the reader's password and its scribe's verifier.
CREATE OR REPLACE FUNCTION pgherd.reader_secrets(reader name) RETURNS TABLE (secret text, scribe_secret text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT option_value, a.rolpassword
    FROM pg_user_mapping m, pg_options_to_table(m.umoptions), pgherd.reader r JOIN pg_authid a ON a.rolname = r.scribe
    WHERE m.umuser = to_regrole(quote_ident(reader)) AND r.role = reader AND option_name = 'password' LIMIT 1
$$;

CREATE OR REPLACE FUNCTION pgherd.make_reader(reader name, its_scribe name, its_region text, secret text, scribe_secret text)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
BEGIN
    INSERT INTO pgherd.reader VALUES (reader, its_scribe, its_region)
    ON CONFLICT (role) DO UPDATE SET scribe = excluded.scribe, region = excluded.region;
    FOR one IN SELECT * FROM (VALUES (reader, secret), (its_scribe, scribe_secret)) made (role, password) LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one.role) THEN
            EXECUTE format('CREATE ROLE %I', one.role);
        END IF;
        BEGIN
            EXECUTE format('ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT'
                ' CONNECTION LIMIT 50 PASSWORD %L', one.role, one.password);
        EXCEPTION WHEN query_canceled OR OTHERS THEN  -- as in map_reader
            RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
        END;
        EXECUTE format('ALTER ROLE %I RESET ALL', one.role);
    END LOOP;
    FOR one IN
        SELECT name, value FROM (VALUES ('default_transaction_read_only', 'on'), ('statement_timeout', '15s'),
            ('transaction_timeout', '60s'), ('lock_timeout', '2s'), ('idle_in_transaction_session_timeout', '15s'),
            ('idle_session_timeout', '15min'), ('work_mem', '16MB'), ('temp_file_limit', '256MB'),
            ('max_parallel_workers_per_gather', '0')) wanted (name, value)
        JOIN pg_settings USING (name)  -- transaction_timeout is younger than PostgreSQL 16
    LOOP
        EXECUTE format('ALTER ROLE %I SET %I = %L', reader, one.name, one.value);
    END LOOP;
    EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog, public, pg_temp', reader);
    EXECUTE format('GRANT EXECUTE ON FUNCTION pgherd.log_access TO %I', its_scribe);
    FOR one IN SELECT writer FROM pgherd.writing_functions() writer LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one.writer);
    END LOOP;
    FOR one IN SELECT unnest(ARRAY['pgherd.decision', 'pgherd.load']) AS shared LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER pgherd_readers BEFORE INSERT OR UPDATE OR DELETE ON %s'
            ' FOR EACH STATEMENT EXECUTE FUNCTION pgherd.refuse_readers()', one.shared);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgherd_readers') THEN
        CREATE EVENT TRIGGER pgherd_readers ON ddl_command_start EXECUTE FUNCTION pgherd.refuse_readers_ddl();
    END IF;
    PERFORM pgherd.map_reader(srvname, reader, secret) FROM pg_foreign_server WHERE srvname LIKE 'pgherd\_%';
END $$;

-- Give a reader SELECT on these relations and on no others.
CREATE OR REPLACE FUNCTION pgherd.let_read(reader name, relations text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted regclass[] := relations::regclass[];
    relation regclass;
BEGIN
    FOR relation IN
        SELECT oid FROM pg_class
        WHERE EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = to_regrole(quote_ident(reader))) AND oid <> ALL (wanted)
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %I', relation, reader);
    END LOOP;
    FOREACH relation IN ARRAY wanted LOOP
        EXECUTE format('GRANT SELECT ON %s TO %I', relation, reader);
        EXECUTE (SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, reader)
            FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = relation);
    END LOOP;
END $$;

-- What a reader could do beyond what it was given: mostly what somebody has granted to PUBLIC. No row: nothing found.
CREATE OR REPLACE FUNCTION pgherd.reader_findings(reader name) RETURNS TABLE (kind text, object text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH me AS (SELECT * FROM pg_roles WHERE rolname = reader),
    relation AS (
        SELECT c.*, nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd') AND nspname !~ '^pg_(toast|temp)'
            AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    )
    SELECT 'has the attribute', attribute
    FROM me, unnest(ARRAY[CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
        CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' END]) attribute WHERE attribute IS NOT NULL
    UNION ALL
    SELECT 'is a member of', g.rolname FROM me JOIN pg_auth_members m ON m.member = me.oid JOIN pg_roles g ON g.oid = m.roleid
    UNION ALL
    SELECT 'may read', relation.oid::regclass::text FROM me, relation
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND has_any_column_privilege(me.oid, relation.oid, 'SELECT')
        AND NOT EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = me.oid)
    UNION ALL
    SELECT 'may write', relation.oid::regclass::text FROM me, relation
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND (has_any_column_privilege(me.oid, relation.oid, 'INSERT, UPDATE')
        OR has_table_privilege(me.oid, relation.oid, 'DELETE, TRUNCATE, TRIGGER'))
    UNION ALL
    SELECT 'may advance', relation.oid::regclass::text FROM me, relation
    WHERE CASE relkind WHEN 'S' THEN has_sequence_privilege(me.oid, relation.oid, 'USAGE, UPDATE') END
    UNION ALL
    SELECT 'may make objects in', nspname FROM me, pg_namespace n WHERE has_schema_privilege(me.oid, n.oid, 'CREATE')
    UNION ALL
    SELECT 'may use the server', srvname FROM me, pg_foreign_server s WHERE has_server_privilege(me.oid, s.oid, 'USAGE')
    UNION ALL
    SELECT 'may run', writer::text FROM me, pgherd.writing_functions() writer WHERE has_function_privilege(me.oid, writer, 'EXECUTE')
    UNION ALL
    -- Functions with their owner's rights or in a language that is not held back: somebody's own, or of an extension
    -- that is not known to be harmless.
    SELECT 'may run', p.oid::regprocedure::text
    FROM me, pg_proc p
    JOIN pg_language l ON l.oid = p.prolang
    LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    LEFT JOIN pg_extension e ON e.oid = d.refobjid
    WHERE p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'pgherd'::regnamespace)
        AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
        AND (p.prosecdef OR NOT l.lanpltrusted) AND has_function_privilege(me.oid, p.oid, 'EXECUTE')
        AND coalesce(e.extname, '') NOT IN ('vector', 'postgres_fdw', 'pg_trgm', 'unaccent', 'citext', 'hstore', 'ltree',
            'intarray', 'fuzzystrmatch', 'btree_gin', 'btree_gist', 'cube', 'earthdistance', 'isn', 'seg', 'uuid-ossp',
            'pgcrypto', 'tablefunc', 'dict_int', 'dict_xsyn')
$$;

REVOKE ALL ON FUNCTION pgherd.map_reader, pgherd.reader_secrets, pgherd.make_reader, pgherd.let_read FROM PUBLIC;
