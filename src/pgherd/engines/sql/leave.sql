-- A server that has left a herd: what is left of schema pgherd goes, and the role of links with it. Can be run again; does
-- nothing on a server that is a member.
DO $$
DECLARE
    role name := 'pgherd_link_' || current_database();
BEGIN
    IF to_regclass('pgherd.topology') IS NULL THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pgherd.topology) THEN
        RETURN;
    END IF;
    DROP SCHEMA IF EXISTS pgherd_aside CASCADE;
    DROP SCHEMA pgherd CASCADE;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
        EXECUTE format('DROP ROLE %I', role);
    END IF;
END $$;
