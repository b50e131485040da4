-- Logins of roles over links. A link evaluates conditions at the rows' home; policies of row-level security must be
-- evaluated there before them, or an error of a condition quotes rows that a policy hides. So a role that policies may hold
-- back has a login of its own on every node, which becomes that role as it logs in, and links use it for that role.
-- Every other role's links log in as pgherd.link_role().

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

-- Whether a policy asks its session for what the home's session does not know: settings of the application, who logged in,
-- from where; or by a function that may. Such a policy can be evaluated on the asking node only.
CREATE OR REPLACE FUNCTION pgherd.asks_session(expression text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(expression ~ '\{SQLVALUEFUNCTION :op (12|14) ', false)  -- SESSION_USER, CURRENT_SCHEMA
        OR EXISTS (
            SELECT FROM regexp_matches(expression, ':(?:funcid|opfuncid) (\d+)', 'g') m JOIN pg_proc p ON p.oid = m[1]::oid
            WHERE CASE WHEN pronamespace = 'pg_catalog'::regnamespace
                THEN proname ~ '^(current_setting|current_schemas?|session_user|inet_(client|server)_.*|pg_backend_pid|current_query)$'
                ELSE provolatile <> 'i' END)
$$;

-- Roles that policies of tables with links may hold back, and that can be held back at home: of the herd's tables with
-- row-level security they have rights on none whose policies ask the session.
CREATE OR REPLACE FUNCTION pgherd.held_roles() RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH secured AS (
        SELECT c.oid, EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid
            AND (pgherd.asks_session(polqual::text) OR pgherd.asks_session(polwithcheck::text))) AS asking
        FROM pg_class c
        WHERE relkind = 'p' AND NOT relispartition AND relrowsecurity
    )
    SELECT r.rolname
    FROM pg_roles r JOIN secured ON has_any_column_privilege(r.oid, secured.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
        OR has_table_privilege(r.oid, secured.oid, 'DELETE')
    WHERE NOT r.rolsuper AND NOT r.rolbypassrls AND r.rolname !~ '^pg_' AND r.rolname !~ '^pgherd_(link|as)_'
        AND NOT EXISTS (SELECT FROM pgherd.reader WHERE r.rolname IN (reader.role, reader.scribe))
        AND r.oid <> (SELECT nspowner FROM pg_namespace WHERE nspname = 'pgherd')
    GROUP BY r.rolname HAVING NOT bool_or(asking)
$$;

-- Every role that needs one has its login and links, and no other; run at the end of every plan.
CREATE OR REPLACE FUNCTION pgherd.sync_logins() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held name;
    login name;
    link record;
BEGIN
    FOR held IN SELECT * FROM pgherd.held_roles() LOOP
        login := pgherd.own_login(held);
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', login);
            PERFORM pgherd.quietly(format('ALTER ROLE %I PASSWORD %L', login, pgherd.own_secret(held)));
        END IF;
        EXECUTE format('ALTER ROLE %I SET role = %L', login, held);
        IF NOT EXISTS (SELECT FROM pg_auth_members WHERE member = to_regrole(quote_ident(login))
            AND roleid = to_regrole(quote_ident(held)))
        THEN
            EXECUTE format('GRANT %I TO %I', held, login);
        END IF;
        FOR link IN
            SELECT s.srvname FROM pg_foreign_server s JOIN pg_user_mapping m ON m.umserver = s.oid AND m.umuser = 0
            WHERE srvname LIKE 'pgherd\_%' AND NOT EXISTS (
                SELECT FROM pg_user_mapping own WHERE own.umserver = s.oid AND own.umuser = to_regrole(quote_ident(held)))
        LOOP
            PERFORM pgherd.quietly(format('CREATE USER MAPPING FOR %I SERVER %I OPTIONS (user %L, password %L)',
                held, link.srvname, login, pgherd.own_secret(held)));
        END LOOP;
    END LOOP;
    FOR link IN
        SELECT m.srvname, m.usename FROM pg_user_mappings m, unnest(m.umoptions) option
        WHERE m.srvname LIKE 'pgherd\_%' AND m.umuser <> 0 AND option = 'user=' || pgherd.own_login(m.usename)
            AND m.usename NOT IN (SELECT pgherd.held_roles())
    LOOP
        EXECUTE format('DROP USER MAPPING FOR %I SERVER %I', link.usename, link.srvname);
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION pgherd.own_secret, pgherd.sync_logins FROM PUBLIC;
