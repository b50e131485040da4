-- Schema pgherd: the same on every node, so that any one node is enough to find the others.

CREATE SCHEMA IF NOT EXISTS pgherd;
GRANT USAGE ON SCHEMA pgherd TO PUBLIC;

-- The herd at every generation it had; the highest one counts.
CREATE TABLE IF NOT EXISTS pgherd.topology (
    generation bigint PRIMARY KEY,
    document jsonb NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON pgherd.topology TO PUBLIC;

-- Outcome of commits over several groups. Whoever inserts a gid first decides it: the coordinator (commit), in the same
-- transaction as its own rows, or whoever cleans up after it (abort).
CREATE TABLE IF NOT EXISTS pgherd.decision (
    gid text PRIMARY KEY,
    outcome text NOT NULL CHECK (outcome IN ('commit', 'abort')),
    decided_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT ON pgherd.decision TO PUBLIC;

-- How far a load has come: written in the same transaction as the rows.
CREATE TABLE IF NOT EXISTS pgherd.load (
    load_id text PRIMARY KEY,
    lines_done bigint NOT NULL,
    rows_done bigint NOT NULL,
    rejected bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Whether the caller may read a table: by the role it has set, or the one it logged in with. Functions that run with
-- their owner's rights ask here first.
CREATE OR REPLACE FUNCTION pgherd.check_reader(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    caller name := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END;
BEGIN
    IF NOT has_table_privilege(caller, relation, 'SELECT') THEN
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

CREATE OR REPLACE FUNCTION pgherd.drop_function(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found regprocedure;
BEGIN
    FOR found IN SELECT oid FROM pg_proc WHERE pronamespace = 'pgherd'::regnamespace AND proname = name LOOP
        EXECUTE format('DROP FUNCTION %s', found);
    END LOOP;
END $$;

-- Shards are read and written directly by clients, so they carry the privileges and row policies of their table.
CREATE OR REPLACE FUNCTION pgherd.sync_shards() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shard record;
    entry record;
    policy record;
    roles text;
BEGIN
    FOR shard IN
        SELECT leaf.oid::regclass AS name, leaf.relrowsecurity, leaf.relowner, root.oid AS root_oid,
               root.relacl, root.relrowsecurity AS secure, root.relforcerowsecurity AS forced, leaf.relacl AS old_acl
        FROM pg_class root
        CROSS JOIN LATERAL pg_partition_tree(root.oid) part
        JOIN pg_class leaf ON leaf.oid = part.relid
        WHERE root.relkind = 'p' AND NOT root.relispartition AND part.isleaf AND leaf.relkind = 'r'
    LOOP
        IF shard.relacl IS DISTINCT FROM shard.old_acl THEN
            FOR entry IN SELECT DISTINCT grantee FROM aclexplode(shard.old_acl) WHERE grantee <> shard.relowner LOOP
                EXECUTE format('REVOKE ALL ON %s FROM %s', shard.name,
                    CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(entry.grantee)) END);
            END LOOP;
            FOR entry IN SELECT * FROM aclexplode(shard.relacl) WHERE grantee <> shard.relowner LOOP
                EXECUTE format('GRANT %s ON %s TO %s%s', entry.privilege_type, shard.name,
                    CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(entry.grantee)) END,
                    CASE WHEN entry.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
            END LOOP;
        END IF;
        IF shard.secure OR shard.relrowsecurity THEN
            EXECUTE format('ALTER TABLE %s %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY', shard.name,
                CASE WHEN shard.secure THEN 'ENABLE' ELSE 'DISABLE' END,
                CASE WHEN shard.forced THEN 'FORCE' ELSE 'NO FORCE' END);
            FOR policy IN SELECT polname FROM pg_policy WHERE polrelid = shard.name LOOP
                EXECUTE format('DROP POLICY %I ON %s', policy.polname, shard.name);
            END LOOP;
            FOR policy IN SELECT * FROM pg_policy WHERE polrelid = shard.root_oid LOOP
                SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                INTO roles FROM unnest(policy.polroles) r;
                EXECUTE format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', policy.polname, shard.name,
                        CASE WHEN policy.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                        CASE policy.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                            WHEN 'd' THEN 'DELETE' ELSE 'ALL' END, roles)
                    || coalesce(format(' USING (%s)', pg_get_expr(policy.polqual, policy.polrelid)), '')
                    || coalesce(format(' WITH CHECK (%s)', pg_get_expr(policy.polwithcheck, policy.polrelid)), '');
            END LOOP;
        END IF;
    END LOOP;
END $$;
