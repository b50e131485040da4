-- Several servers: how nodes reach each other. Links (foreign servers) are named pgherd_<group>.

CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;
CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA public;
-- A session's open links belong to whoever calls dblink functions, so nobody but pgherd's own functions may.
CREATE EXTENSION IF NOT EXISTS dblink SCHEMA pgherd;
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE e.extname = 'dblink' AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
END $$;

-- The role that links log in as; one for each database, since two herds may share their servers.
CREATE OR REPLACE FUNCTION pgherd.link_role() RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ('pgherd_link_' || current_database())::name
$$;

CREATE OR REPLACE FUNCTION pgherd.make_link_role(secret text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    role name := pgherd.link_role();
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
        EXECUTE format('CREATE ROLE %I', role);
    END IF;
    PERFORM pgherd.quietly(format('ALTER ROLE %I LOGIN BYPASSRLS REPLICATION PASSWORD %L', role, secret));
    EXECUTE format('GRANT pg_read_all_data, pg_write_all_data TO %I', role);
END $$;

-- The link to a group: the same statement on every node, to make it or to change where it points. Host and port list all
-- of the group's nodes; libpq takes the one that can be written to. sslmode and sslrootcert NULL: libpq's own.
DROP FUNCTION IF EXISTS pgherd.set_link(text, text, text, text, text);
CREATE OR REPLACE FUNCTION pgherd.set_link(group_name text, host text, port text, dbname text, secret text,
    sslmode text, sslrootcert text)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    link text := 'pgherd_' || group_name;
    wire record;
BEGIN
    -- 'primary', not 'read-write': a reader's sessions are read-only wherever they are.
    IF EXISTS (SELECT FROM pg_foreign_server WHERE srvname = link) THEN
        EXECUTE format('ALTER SERVER %I OPTIONS (SET host %L, SET port %L)', link, host, port);
        IF NOT EXISTS (SELECT FROM pg_foreign_server s, pg_options_to_table(s.srvoptions)
            WHERE srvname = link AND option_name = 'target_session_attrs')
        THEN
            EXECUTE format('ALTER SERVER %I OPTIONS (ADD target_session_attrs %L)', link, 'primary');
        END IF;
    ELSE
        EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L,'
            ' extensions %L, async_capable %L, fetch_size %L, connect_timeout %L, target_session_attrs %L)',
            link, host, port, dbname, 'vector', 'true', '1000', CASE WHEN host LIKE '%,%' THEN '2' ELSE '5' END, 'primary');
        PERFORM pgherd.quietly(format('CREATE USER MAPPING FOR PUBLIC SERVER %I OPTIONS (user %L, password %L)',
            link, pgherd.link_role(), secret));
    END IF;
    FOR wire IN SELECT * FROM (VALUES ('sslmode', sslmode), ('sslrootcert', sslrootcert)) v(name, value) LOOP
        IF EXISTS (SELECT FROM pg_foreign_server s, pg_options_to_table(s.srvoptions)
            WHERE srvname = link AND option_name = wire.name)
        THEN
            EXECUTE format('ALTER SERVER %I OPTIONS (DROP %I)', link, wire.name);
        END IF;
        IF wire.value IS NOT NULL THEN
            EXECUTE format('ALTER SERVER %I OPTIONS (ADD %I %L)', link, wire.name, wire.value);
        END IF;
    END LOOP;
    PERFORM pgherd.map_reader(link, role, s.secret) FROM pgherd.reader, pgherd.reader_secrets(role) s;
END $$;

-- In the place of a foreign partition whose rows this node may not lead to: a server without a host, and without anybody
-- who may use it. What its name says is what a query that needs those rows is told.
CREATE OR REPLACE FUNCTION pgherd.make_barrier(barrier text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = barrier) THEN
        EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER postgres_fdw', barrier);
    END IF;
END $$;

-- A group that leaves: its link goes on the others (not if anything still uses it) …
CREATE OR REPLACE FUNCTION pgherd.drop_link(group_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    link text := 'pgherd_' || group_name;
    mapped text;
BEGIN
    IF EXISTS (SELECT FROM pg_foreign_server WHERE srvname = link) THEN
        FOR mapped IN SELECT CASE umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(usename) END
            FROM pg_user_mappings WHERE srvname = link
        LOOP
            EXECUTE format('DROP USER MAPPING FOR %s SERVER %I', mapped, link);
        END LOOP;
        EXECUTE format('DROP SERVER %I', link);
    END IF;
END $$;

-- … and on itself, what would search the herd.
CREATE OR REPLACE FUNCTION pgherd.drop_search_functions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found regprocedure;
BEGIN
    FOR found IN SELECT oid FROM pg_proc WHERE pronamespace = 'pgherd'::regnamespace AND proname LIKE 'search\_%' LOOP
        EXECUTE format('DROP FUNCTION %s', found);
    END LOOP;
END $$;

-- What a server that joins needs of one that is there: the links' password, and roles with their verifiers.
CREATE OR REPLACE FUNCTION pgherd.link_secret(link text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT option_value FROM pg_user_mapping m JOIN pg_foreign_server s ON s.oid = m.umserver,
        pg_options_to_table(m.umoptions) WHERE srvname = link AND umuser = 0 AND option_name = 'password'
$$;

CREATE OR REPLACE FUNCTION pgherd.role_definition(role name) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('CREATE ROLE %I %s %s %s %s %s %s %s CONNECTION LIMIT %s PASSWORD %L', rolname,
        CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
        CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END, CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
        CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
        CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END, rolconnlimit, rolpassword)
    FROM pg_authid WHERE rolname = role
$$;

-- Fill the copy of a reference table on a server that joins. By dblink: what postgres_fdw has touched can't be prepared.
CREATE OR REPLACE FUNCTION pgherd.copy_reference(relation regclass, link text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    columns text;
    definitions text;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
           string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
    INTO columns, definitions
    FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    PERFORM set_config('pgherd.everywhere', (SELECT coalesce(max(generation), 0)::text FROM pgherd.topology), true);
    EXECUTE format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT * FROM pgherd.dblink(%L, %L) AS r(%s)',
        relation, columns, link, format('SELECT %s FROM %s', columns, relation), definitions);
END $$;

-- Let links evaluate the operators and functions of an extension at the other end.
CREATE OR REPLACE FUNCTION pgherd.ship_extension(extension text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    link record;
    shipped text;
BEGIN
    FOR link IN SELECT srvname, srvoptions FROM pg_foreign_server WHERE srvname LIKE 'pgherd\_%' LOOP
        SELECT option_value INTO shipped FROM pg_options_to_table(link.srvoptions) WHERE option_name = 'extensions';
        IF extension <> ALL (string_to_array(replace(shipped, ' ', ''), ',')) THEN
            EXECUTE format('ALTER SERVER %I OPTIONS (SET extensions %L)', link.srvname, shipped || ', ' || extension);
        END IF;
    END LOOP;
END $$;

-- A reference table has a copy on every node; a plain write would change one copy only.
CREATE OR REPLACE FUNCTION pgherd.refuse_lone_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM pgherd.topology
        WHERE generation > substring(current_setting('pgherd.everywhere', true) FROM '^[0-9]+$')::bigint
    ) THEN
        RAISE SQLSTATE 'PH001' USING
            MESSAGE = format('the herd has changed since this client read it, and table %s is on more nodes', TG_RELID::regclass);
    END IF;
    IF coalesce(current_setting('pgherd.everywhere', true), '') = '' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('table %s is a reference table: it must change on every node at once', TG_RELID::regclass),
            HINT = 'Write it with pgherd sql, pgherd load or the client, which change all copies in one commit.';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pgherd.guard_reference(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER pgherd_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s'
        ' FOR EACH STATEMENT EXECUTE FUNCTION pgherd.refuse_lone_write()', relation);
END $$;

-- Send a statement over a link of this session, opened at its first use and again when it broke.
CREATE OR REPLACE FUNCTION pgherd.send(link text, statement text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF link = ANY (coalesce(pgherd.dblink_get_connections(), '{}')) THEN
        IF pgherd.dblink_is_busy(link) = 0 AND pgherd.dblink_send_query(link, statement) = 1 THEN
            RETURN;
        END IF;
        PERFORM pgherd.dblink_disconnect(link);
    END IF;
    PERFORM pgherd.dblink_connect(link, link);
    PERFORM pgherd.dblink_exec(link, 'SET search_path = pg_catalog, public; SET hnsw.iterative_scan = strict_order;'
        ' SET ivfflat.iterative_scan = relaxed_order; SET constraint_exclusion = on');
    IF pgherd.dblink_send_query(link, statement) <> 1 THEN
        RAISE connection_failure USING MESSAGE = format('link %s refused a statement: %s', link,
            pgherd.dblink_error_message(link));
    END IF;
END $$;

-- Send each other group its part; the statement that runs our own and gathers all, and the groups that were asked.
DROP FUNCTION IF EXISTS pgherd.scatter(text[], text[], text, text, integer, text);

CREATE OR REPLACE FUNCTION pgherd.scatter(shards text[], home text, template text, returns text, query text, k integer,
    condition text, OUT statement text, OUT groups text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me text := (SELECT s.group_name FROM pgherd.self s);
    asked record;
    parts text[] := '{}';
BEGIN
    groups := '{}';
    FOR asked IN SELECT * FROM pgherd.search_parts(shards, home, template, query, k, condition) LOOP
        groups := groups || asked.group_name;
        IF asked.group_name = me THEN
            parts := parts || asked.part;
        ELSE
            PERFORM pgherd.send('pgherd_' || asked.group_name, asked.part);
            parts := parts || format('SELECT * FROM pgherd.dblink_get_result(%L) AS r(%s)', 'pgherd_' || asked.group_name,
                returns);
        END IF;
    END LOOP;
    statement := format('SELECT * FROM (%s) gathered ORDER BY 1 LIMIT %s', array_to_string(parts, ' UNION ALL '), k);
END $$;

-- Read each link to its end, so that it takes the next statement.
CREATE OR REPLACE FUNCTION pgherd.gathered(groups text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me text := (SELECT group_name FROM pgherd.self);
    name text;
BEGIN
    FOREACH name IN ARRAY groups LOOP
        IF name <> me THEN
            PERFORM FROM pgherd.dblink_get_result('pgherd_' || name) AS r(nothing text);
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION pgherd.link_secret, pgherd.role_definition, pgherd.copy_reference, pgherd.make_link_role, pgherd.set_link, pgherd.make_barrier, pgherd.drop_link, pgherd.drop_search_functions, pgherd.ship_extension, pgherd.send, pgherd.scatter, pgherd.gathered FROM PUBLIC;
