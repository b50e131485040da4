-- The audit trail: what a client of pgherd reads or writes leaves a line in pgherd.access_log of each group that
-- answers, in the same transaction. What plain SQL does is for pgaudit to record, where the server has loaded it.

-- How the trail is kept here, as the newest topology has it; no row where none is kept.
CREATE TABLE IF NOT EXISTS pgherd.trail_kept (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    questions boolean NOT NULL,
    region text NOT NULL
);

-- pgaudit's settings for this database, which new sessions have once the server has loaded it. Never a text: statements
-- hold values of rows, and the server's log lies outside of the tables that placement is promised for.
CREATE OR REPLACE FUNCTION pgherd.audit_statements(wanted boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM (VALUES ('log', 'read, write, ddl, role'), ('log_relation', 'on'), ('log_rows', 'on'),
        ('log_catalog', 'off'), ('log_parameter', 'off'), ('log_statement', 'off')) setting (name, value)
    LOOP
        EXECUTE format('ALTER DATABASE %I ', current_database()) || CASE WHEN wanted
            THEN format('SET pgaudit.%s = %L', one.name, one.value) ELSE format('RESET pgaudit.%s', one.name) END;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;  -- pgherd is no superuser there: pgherd apply and pgherd audit say what is not recorded
END $$;

CREATE OR REPLACE FUNCTION pgherd.note_trail() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text := NEW.document #>> '{schema,trail}';
    kept boolean := EXISTS (SELECT FROM pgherd.trail_kept);
BEGIN
    IF wanted IS NULL AND NOT kept THEN
        RETURN NULL;
    END IF;
    DELETE FROM pgherd.trail_kept;
    INSERT INTO pgherd.trail_kept (questions, region)
    SELECT wanted = 'questions', n #>> '{label,region}'
    FROM jsonb_array_elements(NEW.document -> 'groups') g, jsonb_array_elements(g -> 'nodes') n
    WHERE wanted IS NOT NULL AND coalesce(n ->> 'role', 'primary') = 'primary'
        AND (g ->> 'name' = (SELECT group_name FROM pgherd.self) OR NOT EXISTS (SELECT FROM pgherd.self))
    LIMIT 1;
    IF kept <> (wanted IS NOT NULL) THEN
        PERFORM pgherd.audit_statements(wanted IS NOT NULL);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER pgherd_trail AFTER INSERT ON pgherd.topology FOR EACH ROW EXECUTE FUNCTION pgherd.note_trail();

-- Add the caller's line: role and address are those of its session, ms is since its transaction began. True, so that a
-- SELECT can have it for a condition that is looked at once, before it gives any row.
CREATE OR REPLACE FUNCTION pgherd.trail(tool text, tables text[], rows bigint, question text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pgherd.reader WHERE session_user IN (role, scribe)) THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s may read only', session_user);
    END IF;
    INSERT INTO pgherd.access_log (role, region, client, tool, tables, rows, ms, question)
    SELECT session_user, kept.region, coalesce(host(inet_client_addr()), 'local'), $1, $2, $3,
        1000 * extract(epoch FROM clock_timestamp() - transaction_timestamp()), CASE WHEN kept.questions THEN $4 END
    FROM pgherd.trail_kept kept;
    IF random() < 0.001 THEN
        PERFORM pgherd.forget_logs();
    END IF;
    RETURN true;
END $$;

REVOKE ALL ON FUNCTION pgherd.audit_statements FROM PUBLIC;
