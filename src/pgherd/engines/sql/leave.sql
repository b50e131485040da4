-- A server that has left a herd: what is left of schema pgherd goes, and the roles of links with it. Can be run again; does
-- nothing on a server that is a member.
DO $$
DECLARE
    role name;
BEGIN
    IF to_regclass('pgherd.topology') IS NULL THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pgherd.topology) THEN
        RETURN;
    END IF;
    DROP SCHEMA IF EXISTS pgherd_aside CASCADE;
    DROP SCHEMA pgherd CASCADE;
    FOR role IN
        SELECT rolname FROM pg_roles WHERE rolname IN ('pgherd_link_' || current_database(), 'pgherd_any_' || current_database(),
            left(format('pgherd_as_%s_%s', substring(rolname FROM '^pgherd_as_(.{12})'), current_database()), 63))
    LOOP
        EXECUTE format('DROP ROLE %I', role);
    END LOOP;
END $$;
