-- Schema pgherd: the same on every node, so that any one node is enough to find the others.

CREATE SCHEMA IF NOT EXISTS pgherd;
GRANT USAGE ON SCHEMA pgherd TO PUBLIC;

-- Which version of these scripts made this schema; another version's runs them again.
CREATE TABLE IF NOT EXISTS pgherd.catalog (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    digest text NOT NULL
);
GRANT SELECT ON pgherd.catalog TO PUBLIC;

-- Give a partition the numbers of its identity columns. Before PostgreSQL 17 it has none of its own, so that a row written
-- to it directly would have NULL there: the sequence of the whole table becomes its default.
CREATE OR REPLACE FUNCTION pgherd.number_rows(part regclass, parent regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    whole regclass := pg_partition_root(parent);
    numbered name;
BEGIN
    IF current_setting('server_version_num')::int < 170000 THEN
        FOR numbered IN SELECT attname FROM pg_attribute WHERE attrelid = whole AND attidentity <> '' AND NOT attisdropped LOOP
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT nextval(%L::regclass)', part, numbered,
                pg_get_serial_sequence(whole::text, numbered));
        END LOOP;
    END IF;
END $$;

-- The herd at every generation it had; the highest one counts.
CREATE TABLE IF NOT EXISTS pgherd.topology (
    generation bigint PRIMARY KEY,
    document jsonb NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON pgherd.topology TO PUBLIC;

-- A document with edits made in their order; what they are, model/difference.py says.
CREATE OR REPLACE FUNCTION pgherd.patched(document jsonb, edits jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    edit jsonb;
    way text[];
    part jsonb;
BEGIN
    FOR edit IN SELECT value FROM jsonb_array_elements(edits) LOOP
        way := ARRAY(SELECT jsonb_array_elements_text(edit -> 'path'));
        part := document #> way;
        IF jsonb_typeof(part) = 'object' THEN
            part := (part - ARRAY(SELECT jsonb_array_elements_text(edit -> 'drop'))) || (edit -> 'put');
        ELSE
            SELECT coalesce(jsonb_agg(value ORDER BY n) FILTER (WHERE n <= (edit ->> 'at')::int), '[]') || (edit -> 'put')
                || coalesce(jsonb_agg(value ORDER BY n) FILTER (WHERE n > (edit ->> 'at')::int + (edit ->> 'drop')::int), '[]')
            INTO part FROM jsonb_array_elements(part) WITH ORDINALITY e(value, n);
        END IF;
        document := CASE WHEN way = '{}' THEN part ELSE jsonb_set(document, way, part) END;
    END LOOP;
    RETURN document;
END $$;

-- The group that this node is in; no row on a single server.
CREATE TABLE IF NOT EXISTS pgherd.self (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    group_name text NOT NULL
);
GRANT SELECT ON pgherd.self TO PUBLIC;

-- Where each shard is at home at the highest generation: what search functions ask, so that a move leaves them as they are.
CREATE TABLE IF NOT EXISTS pgherd.home (
    relation text PRIMARY KEY,
    group_name text NOT NULL
);

CREATE OR REPLACE FUNCTION pgherd.note_homes() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    homes jsonb := coalesce(NEW.document -> 'homes', '{}');
BEGIN
    INSERT INTO pgherd.home (relation, group_name)
    SELECT key, value FROM jsonb_each_text(homes)
    WHERE NOT EXISTS (SELECT FROM pgherd.home WHERE relation = key AND group_name = value)
    ON CONFLICT (relation) DO UPDATE SET group_name = excluded.group_name;
    DELETE FROM pgherd.home WHERE NOT homes ? relation;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER pgherd_homes AFTER INSERT ON pgherd.topology FOR EACH ROW EXECUTE FUNCTION pgherd.note_homes();

-- What a search function asks each group: ``template`` for each of its shards (%1$s the query, %2$s the limit, %3$s the
-- condition, %4$s the shard's name, %5$s its home, %6$s the table). ``home`` is for tables that have the same home always.
CREATE OR REPLACE FUNCTION pgherd.search_parts(shards text[], home text, template text, query text, k integer, condition text)
RETURNS TABLE (group_name text, part text) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT place, string_agg(format(template, query, k, condition,
            quote_literal(CASE name[1] WHEN 'public' THEN name[2] ELSE array_to_string(name, '.') END),
            quote_literal(place), relation), ' UNION ALL ' ORDER BY n)
    FROM unnest(shards) WITH ORDINALITY s(relation, n) LEFT JOIN pgherd.home h USING (relation),
        coalesce(h.group_name, home) place, parse_ident(relation) name
    GROUP BY place ORDER BY min(n)
$$;

-- Outcome of commits over several groups. Whoever inserts a gid first decides it: the coordinator (commit), in the same
-- transaction as its own rows, or whoever cleans up after it (abort). The coordinator removes it when all have been told.
CREATE TABLE IF NOT EXISTS pgherd.decision (
    gid text PRIMARY KEY,
    outcome text NOT NULL CHECK (outcome IN ('commit', 'abort')),
    decided_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, DELETE ON pgherd.decision TO PUBLIC;

-- How far a load of a file has come: written in the same transaction as the rows. reject_bytes is how much of the file
-- of rejected rows counts; lines_done is where a load that was killed goes on.
CREATE TABLE IF NOT EXISTS pgherd.load (
    load_id text PRIMARY KEY,
    table_name text NOT NULL,
    file_name text NOT NULL,
    lines_done bigint NOT NULL DEFAULT 0,
    rows_done bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    reject_bytes bigint NOT NULL DEFAULT 0,
    finished boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE ON pgherd.load TO PUBLIC;

-- Every call of a model behind an endpoint, noted before it is made, in the endpoint's region: never a text.
CREATE TABLE IF NOT EXISTS pgherd.model_log (
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role name NOT NULL,
    region text,
    endpoint text NOT NULL,
    model text NOT NULL,
    table_name text NOT NULL,
    purpose text NOT NULL,
    texts integer NOT NULL,
    bytes bigint NOT NULL
);
ALTER TABLE pgherd.model_log DROP CONSTRAINT IF EXISTS model_log_purpose_check,
    ADD CONSTRAINT model_log_purpose_check CHECK (purpose IN ('row', 'question', 'answer'));
CREATE INDEX IF NOT EXISTS model_log_at ON pgherd.model_log USING brin (at);

-- Entries of both logs that are older than the herd keeps them. Whoever adds an entry runs it, and who reads them.
CREATE OR REPLACE FUNCTION pgherd.forget_logs() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    days int := (SELECT (document ->> 'log_days')::int FROM pgherd.topology ORDER BY generation DESC LIMIT 1);
BEGIN
    IF days IS NOT NULL THEN
        DELETE FROM pgherd.model_log WHERE at < clock_timestamp() - make_interval(days => days);
        -- Lines of a transaction that is still under way elsewhere are left: nobody who asks waits for it.
        DELETE FROM pgherd.access_log WHERE ctid = ANY (ARRAY(SELECT ctid FROM pgherd.access_log
            WHERE at < clock_timestamp() - make_interval(days => days) FOR UPDATE SKIP LOCKED));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pgherd.log_model(region text, endpoint text, model text, table_name text, purpose text,
    texts integer, bytes bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgherd.model_log (role, region, endpoint, model, table_name, purpose, texts, bytes)
    VALUES (session_user, $1, $2, $3, $4, $5, $6, $7);
    SELECT pgherd.forget_logs();
$$;

-- The roles that may read what is at home in a region and nothing else (reader.sql); on that region's nodes only.
CREATE TABLE IF NOT EXISTS pgherd.reader (
    role name PRIMARY KEY,
    scribe name NOT NULL,
    region text NOT NULL
);
GRANT SELECT ON pgherd.reader TO PUBLIC;

-- Whether the caller may read a table: by the role it has set, or the one it logged in with. Functions that run with
-- their owner's rights ask here first.
CREATE OR REPLACE FUNCTION pgherd.check_reader(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    caller name := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END;
BEGIN
    IF NOT has_table_privilege(caller, relation, 'SELECT') OR EXISTS (SELECT FROM pgherd.reader WHERE role = session_user) THEN
        RAISE insufficient_privilege USING MESSAGE = format('permission denied for table %s', relation);
    END IF;
    IF (SELECT relrowsecurity FROM pg_class WHERE oid = relation)
       AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = caller) THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('table %s has row-level security, which this function would bypass', relation),
            HINT = 'Query the table itself: SELECT ... ORDER BY the distance LIMIT k.';
    END IF;
END $$;

-- {"city": "Rome", "year": [2024, 2025], "gone": null} as an SQL condition; only columns of the table may be named.
CREATE OR REPLACE FUNCTION pgherd.filter_sql(filter jsonb, columns text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
    value jsonb;
    parts text[] := '{}';
BEGIN
    FOR name, value IN SELECT * FROM jsonb_each(coalesce(filter, '{}')) LOOP
        IF name <> ALL (columns) THEN
            RAISE undefined_column USING MESSAGE = format('column %I in the filter does not exist', name),
                HINT = 'columns: ' || array_to_string(columns, ', ');
        END IF;
        parts := parts || CASE jsonb_typeof(value)
            WHEN 'null' THEN format('%I IS NULL', name)
            WHEN 'array' THEN format('%I IN (%s)', name,
                coalesce((SELECT string_agg(quote_literal(v), ', ') FROM jsonb_array_elements_text(value) v), 'NULL'))
            ELSE format('%I = %L', name, value #>> '{}')
        END;
    END LOOP;
    RETURN coalesce(nullif(array_to_string(parts, ' AND '), ''), 'true');
END $$;

-- A statement with a secret in it, for plans: as a parameter it is not what pg_stat_activity shows, and errors go without
-- their context, which would quote it.
CREATE OR REPLACE FUNCTION pgherd.quietly(statement text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE statement;
EXCEPTION WHEN query_canceled OR OTHERS THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
END $$;
REVOKE ALL ON FUNCTION pgherd.quietly FROM PUBLIC;

CREATE OR REPLACE FUNCTION pgherd.drop_function(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found regprocedure;
BEGIN
    FOR found IN SELECT oid FROM pg_proc WHERE pronamespace = 'pgherd'::regnamespace AND proname = name LOOP
        EXECUTE format('DROP FUNCTION %s', found);
    END LOOP;
END $$;

-- PostgreSQL holds new rows against the policies of a table, but not when a partition of it is foreign. There this
-- trigger does, by the rules of CREATE POLICY: one permissive policy must agree, and all restrictive ones.
CREATE OR REPLACE FUNCTION pgherd.check_policies() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    root regclass := TG_ARGV[0];
    policy record;
    agrees boolean;
    permitted boolean := false;
BEGIN
    IF NOT row_security_active(root) THEN
        RETURN NEW;
    END IF;
    FOR policy IN
        SELECT polpermissive, pg_get_expr(coalesce(polwithcheck, polqual), polrelid) AS condition, relname
        FROM pg_policy JOIN pg_class c ON c.oid = polrelid
        WHERE polrelid = root AND polcmd IN ('*', CASE TG_OP WHEN 'INSERT' THEN 'a' ELSE 'w' END)
            AND EXISTS (SELECT FROM unnest(polroles) role WHERE role = 0 OR pg_has_role(role, 'USAGE'))
        ORDER BY polpermissive DESC
    LOOP
        EXECUTE format('SELECT %s FROM (SELECT ($1).*) AS %I', policy.condition, policy.relname) INTO agrees USING NEW;
        IF policy.polpermissive THEN
            permitted := permitted OR coalesce(agrees, false);
        ELSE
            permitted := permitted AND coalesce(agrees, false);
        END IF;
    END LOOP;
    IF NOT permitted THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('new row violates row-level security policy for table %s', root);
    END IF;
    RETURN NEW;
END $$;

-- Shards are read and written directly by clients, so they carry the privileges and row-level security of their table
-- (plans give them its policies); the partitions between do too, since policies hold only on the table that a query
-- names. Foreign partitions can't have policies, so nobody is let in there directly (GRANT … ON ALL TABLES would).
CREATE OR REPLACE FUNCTION pgherd.sync_shards() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shard record;
    entry record;
    readers oid[] := ARRAY(SELECT r.oid FROM pg_roles r JOIN pgherd.reader ON role = rolname);  -- let_read does theirs
BEGIN
    FOR shard IN
        SELECT leaf.oid::regclass AS name, leaf.relowner, leaf.relacl, root.oid::regclass AS root, root.relrowsecurity
                AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = leaf.oid AND tgname = 'pgherd_policies') AS open
        FROM pg_class leaf JOIN pg_class root ON root.oid = pg_partition_root(leaf.oid)
        WHERE leaf.relkind = 'f' AND leaf.relispartition
    LOOP
        IF shard.open THEN
            EXECUTE format('CREATE TRIGGER pgherd_policies BEFORE INSERT OR UPDATE ON %s'
                ' FOR EACH ROW EXECUTE FUNCTION pgherd.check_policies(%L)', shard.name, shard.root);
        END IF;
        FOR entry IN SELECT DISTINCT grantee FROM aclexplode(shard.relacl)
            WHERE grantee <> shard.relowner AND grantee <> ALL (readers)
        LOOP
            EXECUTE format('REVOKE ALL ON %s FROM %s', shard.name,
                CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(entry.grantee)) END);
        END LOOP;
    END LOOP;
    FOR shard IN
        SELECT leaf.oid::regclass AS name, leaf.relowner, leaf.relacl AS old_acl, root.relacl,
               root.relrowsecurity AS secure, root.relforcerowsecurity AS forced,
               (leaf.relrowsecurity, leaf.relforcerowsecurity) <> (root.relrowsecurity, root.relforcerowsecurity) AS odd
        FROM pg_class root
        CROSS JOIN LATERAL pg_partition_tree(root.oid) part
        JOIN pg_class leaf ON leaf.oid = part.relid
        WHERE root.relkind = 'p' AND NOT root.relispartition AND leaf.relispartition AND leaf.relkind IN ('r', 'p')
    LOOP
        IF shard.relacl IS DISTINCT FROM shard.old_acl THEN
            FOR entry IN SELECT DISTINCT grantee FROM aclexplode(shard.old_acl)
                WHERE grantee <> shard.relowner AND grantee <> ALL (readers)
            LOOP
                EXECUTE format('REVOKE ALL ON %s FROM %s', shard.name,
                    CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(entry.grantee)) END);
            END LOOP;
            FOR entry IN SELECT * FROM aclexplode(shard.relacl) WHERE grantee <> shard.relowner LOOP
                EXECUTE format('GRANT %s ON %s TO %s%s', entry.privilege_type, shard.name,
                    CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(entry.grantee)) END,
                    CASE WHEN entry.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
            END LOOP;
        END IF;
        IF shard.odd THEN
            EXECUTE format('ALTER TABLE %s %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY', shard.name,
                CASE WHEN shard.secure THEN 'ENABLE' ELSE 'DISABLE' END,
                CASE WHEN shard.forced THEN 'FORCE' ELSE 'NO FORCE' END);
        END IF;
    END LOOP;
END $$;
