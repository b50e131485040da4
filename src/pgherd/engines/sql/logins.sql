-- Logins of roles over links. A link evaluates conditions at the rows' home; policies of row-level security must be
-- evaluated there before them, or an error of a condition quotes rows that a policy hides. So, in a herd with policies:
--   * a role that they may hold back has a login of its own on every node, which becomes that role as it logs in;
--   * superusers and the herd's owner, whom policies don't hold back, log in as pgherd.link_role();
--   * everybody else logs in as pgherd.any_role(), to whom shards with policies are closed.
-- Shards whose policies ask the session are closed to all but the second. Where no table has policies, all links log in as
-- pgherd.link_role().

CREATE OR REPLACE FUNCTION pgherd.any_role() RETURNS name
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ('pgherd_any_' || current_database())::name
$$;

CREATE OR REPLACE FUNCTION pgherd.own_login(role name) RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT left(format('pgherd_as_%s_%s', left(md5(role || '/' || current_database()), 12), current_database()), 63)::name
$$;

-- What a node derives alike with all others; the links' password is known to superusers only.
CREATE OR REPLACE FUNCTION pgherd.own_secret(role name) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(convert_to(pgherd.link_secret(srvname) || '/' || role, 'UTF8')), 'hex')
    FROM pg_foreign_server s JOIN pg_user_mapping m ON m.umserver = s.oid AND m.umuser = 0
    WHERE srvname LIKE 'pgherd\_%' LIMIT 1
$$;

-- Whether policies of a table ask the session for what the home's session does not know: settings of the application, who
-- logged in, from where; by themselves, by a function of somebody's own that may, or by a view or another table's policies
-- that they read. In plpgsql, since it is asked at every turn of a link, and so keeps its plan.
DROP FUNCTION IF EXISTS pgherd.asks_session(text);
CREATE OR REPLACE FUNCTION pgherd.policies_ask(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        WITH RECURSIVE rule(oid, said) AS NOT MATERIALIZED (
            SELECT polrelid, concat(polqual, polwithcheck) FROM pg_policy WHERE polname NOT IN ('pgherd_links', 'pgherd_any', 'pgherd_asker')
            UNION ALL
            SELECT ev_class, ev_action::text FROM pg_rewrite
        ), seen(said) AS (
            SELECT rule.said FROM rule WHERE oid = relation
            UNION
            SELECT rule.said
            FROM seen CROSS JOIN regexp_matches(seen.said, ':relid (\d+)', 'g') named JOIN rule ON oid = named[1]::oid
        )
        SELECT FROM seen
        WHERE said ~ '\{SQLVALUEFUNCTION :op (12|14) '  -- SESSION_USER, CURRENT_SCHEMA
            OR EXISTS (
                SELECT FROM regexp_matches(said, ':(?:funcid|opfuncid) (\d+)', 'g') called JOIN pg_proc p ON p.oid = called[1]::oid
                WHERE CASE WHEN pronamespace = 'pg_catalog'::regnamespace
                    THEN proname ~ ('^(current_setting|current_schemas?|session_user|inet_(client|server)_.*|pg_backend_pid'
                        '|current_query|pg_show_all_settings)$')
                    ELSE provolatile <> 'i' END)
    );
END $$;

-- Policy pgherd_links of each shard that has policies: a session of a link is refused if this node can't tell what its role
-- may see. IMMUTABLE, so that the planner evaluates it, whatever rows there are and whatever else would be evaluated first;
-- in all other sessions nothing of it is left in the plan. Who has logged in does not change while a plan is kept.
CREATE OR REPLACE FUNCTION pgherd.admit_link(relation regclass) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    elsewhere text := 'pgherd''s client asks each home itself; in SQL, connect to group %s, where these rows are.';
BEGIN
    IF session_user !~ '^pgherd_(any|as)_' THEN
        RETURN true;
    END IF;
    elsewhere := format(elsewhere, (SELECT group_name FROM pgherd.self));
    IF session_user = pgherd.any_role() THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('row-level security of %s: no link of this role''s own leads here, as none does until pgherd has'
                ' seen the role', relation),
            HINT = 'The next change of the herd by pgherd gives it one, if it may read the table. ' || elsewhere;
    ELSIF pgherd.policies_ask(relation) THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('row-level security of %s: its policies ask for settings of the session, which links do not carry',
                relation),
            HINT = elsewhere;
    END IF;
    RETURN true;
END $$;

-- Whether a role's links log in as those of superusers do.
CREATE OR REPLACE FUNCTION pgherd.links_unheld(role name) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT role <> pgherd.link_role() AND EXISTS (
            SELECT FROM pg_user_mappings WHERE srvname LIKE 'pgherd\_%' AND usename = role
                AND 'user=' || pgherd.link_role() = ANY (umoptions))
        AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'pgherd' AND pg_get_userbyid(nspowner) = role)
$$;

-- Policy pgherd_asker of tables with policies, where they are asked: whom policies hold back must not have the links of a
-- superuser, which it was until somebody changed that by hand. IMMUTABLE as admit_link is.
CREATE OR REPLACE FUNCTION pgherd.admit_asker() RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pgherd.links_unheld(current_user) THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('row-level security: the links of %s are still those of the superuser that it was', current_user),
            HINT = 'The next change of the herd by pgherd gives it its own; pgherd''s client asks each home itself.';
    END IF;
    RETURN true;
END $$;

-- Roles that policies of tables with links may hold back: they have rights on such a table.
CREATE OR REPLACE FUNCTION pgherd.held_roles() RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT r.rolname
    FROM pg_roles r, pg_class c
    WHERE relkind = 'p' AND NOT relispartition AND relrowsecurity
        AND (has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
            OR has_table_privilege(r.oid, c.oid, 'DELETE'))
        AND NOT r.rolsuper AND r.rolname !~ '^pg_' AND r.rolname !~ '^pgherd_(link|any|as)_'
        AND NOT EXISTS (SELECT FROM pgherd.reader WHERE r.rolname IN (reader.role, reader.scribe))
        AND r.oid <> (SELECT nspowner FROM pg_namespace WHERE nspname = 'pgherd')
$$;

-- Who logs in as whom over links, but for PUBLIC and readers.
CREATE OR REPLACE FUNCTION pgherd.link_logins() RETURNS TABLE (role name, login name)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT held, pgherd.own_login(held) FROM pgherd.held_roles() held
    UNION ALL
    SELECT rolname, pgherd.link_role() FROM pg_roles r
    WHERE (rolsuper OR rolname = pgherd.link_role() OR r.oid = (SELECT nspowner FROM pg_namespace WHERE nspname = 'pgherd'))
        AND EXISTS (SELECT FROM pg_class WHERE relkind = 'p' AND NOT relispartition AND relrowsecurity)
$$;

-- Every role that needs one has its login, links log in as they should, and shards with policies refuse those that can't be
-- judged; run at the end of every plan.
CREATE OR REPLACE FUNCTION pgherd.sync_logins() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    secret text := (SELECT pgherd.link_secret(srvname) FROM pg_foreign_server s JOIN pg_user_mapping m ON m.umserver = s.oid
        WHERE srvname LIKE 'pgherd\_%' AND umuser = 0 LIMIT 1);
    others name := CASE WHEN EXISTS (SELECT FROM pgherd.link_logins()) THEN pgherd.any_role() ELSE pgherd.link_role() END;
    held name;
    its_login name;
    link record;
    shard regclass;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = others) THEN
        EXECUTE format('CREATE ROLE %I', others);
        PERFORM pgherd.quietly(format('ALTER ROLE %I LOGIN PASSWORD %L', others, secret));
        EXECUTE format('GRANT pg_read_all_data, pg_write_all_data TO %I', others);
    END IF;
    FOR held IN SELECT * FROM pgherd.held_roles() LOOP
        its_login := pgherd.own_login(held);
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = its_login) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', its_login);
            PERFORM pgherd.quietly(format('ALTER ROLE %I PASSWORD %L', its_login, pgherd.own_secret(held)));
        END IF;
        EXECUTE format('ALTER ROLE %I SET role = %L', its_login, held);
        IF NOT EXISTS (SELECT FROM pg_auth_members WHERE member = to_regrole(quote_ident(its_login))
            AND roleid = to_regrole(quote_ident(held)))
        THEN
            EXECUTE format('GRANT %I TO %I', held, its_login);
        END IF;
    END LOOP;
    FOR link IN  -- mappings that are to be other ones, or none
        SELECT m.srvname, m.usename
        FROM pg_user_mappings m CROSS JOIN unnest(m.umoptions) option LEFT JOIN pgherd.link_logins() wanted ON role = m.usename
        WHERE m.srvname LIKE 'pgherd\_%' AND m.umuser <> 0
            AND option IN ('user=' || pgherd.link_role(), 'user=' || pgherd.own_login(m.usename))
            AND option IS DISTINCT FROM 'user=' || wanted.login
    LOOP
        EXECUTE format('DROP USER MAPPING FOR %I SERVER %I', link.usename, link.srvname);
    END LOOP;
    FOR link IN
        SELECT s.srvname, wanted.*
        FROM pgherd.link_logins() wanted, pg_foreign_server s JOIN pg_user_mapping m ON m.umserver = s.oid AND m.umuser = 0
        WHERE srvname LIKE 'pgherd\_%' AND NOT EXISTS (
            SELECT FROM pg_user_mapping own WHERE own.umserver = s.oid AND own.umuser = to_regrole(quote_ident(wanted.role)))
    LOOP
        PERFORM pgherd.quietly(format('CREATE USER MAPPING FOR %I SERVER %I OPTIONS (user %L, password %L)', link.role,
            link.srvname, link.login, CASE link.login WHEN pgherd.link_role() THEN secret ELSE pgherd.own_secret(link.role) END));
    END LOOP;
    FOR link IN
        SELECT srvname FROM pg_user_mappings WHERE srvname LIKE 'pgherd\_%' AND umuser = 0 AND 'user=' || others <> ALL (umoptions)
    LOOP
        EXECUTE format('ALTER USER MAPPING FOR PUBLIC SERVER %I OPTIONS (SET user %L)', link.srvname, others);
    END LOOP;
    FOR shard IN
        SELECT c.oid FROM pg_class c JOIN pg_class root ON root.oid = pg_partition_root(c.oid)
        WHERE c.relispartition AND c.relkind = 'r' AND root.relrowsecurity
            AND (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid AND polname IN ('pgherd_links', 'pgherd_any')) < 2
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS pgherd_links ON %s; DROP POLICY IF EXISTS pgherd_any ON %1$s', shard);
        EXECUTE format('CREATE POLICY pgherd_links ON %s AS RESTRICTIVE USING (pgherd.admit_link(%L::regclass))', shard, shard);
        -- Without a policy that admits anything PostgreSQL would find no rows, and not ask the other one.
        EXECUTE format('CREATE POLICY pgherd_any ON %s TO %I USING (session_user = %2$L)', shard, pgherd.any_role());
    END LOOP;
    FOR shard IN
        SELECT oid FROM pg_class c WHERE relkind = 'p' AND relrowsecurity
            AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'pgherd_asker')
    LOOP
        EXECUTE format('CREATE POLICY pgherd_asker ON %s AS RESTRICTIVE USING (pgherd.admit_asker())', shard);
    END LOOP;
    FOR its_login IN  -- of roles that are gone, or have no rights any more
        SELECT rolname FROM pg_roles
        WHERE rolname = left(format('pgherd_as_%s_%s', substring(rolname FROM '^pgherd_as_(.{12})'), current_database()), 63)
            AND rolname NOT IN (SELECT l.login FROM pgherd.link_logins() l)
    LOOP
        BEGIN
            EXECUTE format('DROP ROLE %I', its_login);
        EXCEPTION WHEN dependent_objects_still_exist THEN  -- somebody gave it something; the audit tells of it
        END;
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION pgherd.own_secret, pgherd.sync_logins FROM PUBLIC;
