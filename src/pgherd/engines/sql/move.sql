-- Moving a shard: what source and target do. The shard is named by its qualified name; slot, publication and subscription
-- of a move share a name. pgherd.moving says what is under way here, so that it can be cleared by whoever comes next.

CREATE SCHEMA IF NOT EXISTS pgherd_aside;

CREATE TABLE IF NOT EXISTS pgherd.moving (
    shard text PRIMARY KEY,
    incoming boolean NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT ON pgherd.moving TO PUBLIC;

CREATE OR REPLACE FUNCTION pgherd.move_name(shard text) RETURNS name
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ('pgherd_move_' || md5(current_database() || shard))::name
$$;

CREATE OR REPLACE FUNCTION pgherd.aside(shard text) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_regclass('pgherd_aside.' || quote_ident((parse_ident(shard))[2]))
$$;

-- Keeps a client away from the new table that still thinks of an earlier time when the shard was at home here;
-- replication doesn't fire it.
CREATE OR REPLACE FUNCTION pgherd.refuse_incoming() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is still on its way to this group', TG_RELID::regclass USING ERRCODE = 'PH001';
END $$;

-- Target: a client that still takes this group for the shard's home would read the table that fills under its name. Clients
-- look for a newer topology before they read, at most every other second, so wait until none can be that far behind.
CREATE OR REPLACE FUNCTION pgherd.await_readers(shard text, seconds double precision) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    left_at timestamptz;
BEGIN
    SELECT max(ended) INTO left_at
    FROM (SELECT document -> 'homes' ->> shard AS home, lead(applied_at) OVER (ORDER BY generation) AS ended
          FROM pgherd.topology) past
    WHERE home = (SELECT group_name FROM pgherd.self);
    PERFORM pg_sleep(greatest(0, extract(epoch FROM left_at - clock_timestamp())::double precision + seconds))
    WHERE left_at IS NOT NULL;
END $$;

-- Target: the foreign partition steps aside, still attached, and an empty table takes its name. The check repeats the
-- partition's constraint, so that attaching the table later needs no look at its rows.
CREATE OR REPLACE FUNCTION pgherd.begin_incoming(shard text, parent text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgherd.moving (shard, incoming) VALUES (begin_incoming.shard, true);
    EXECUTE format('ALTER FOREIGN TABLE %s SET SCHEMA pgherd_aside', shard);
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING STORAGE)',
        shard, parent);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT pgherd_move CHECK (%s)', shard,
        pg_get_partition_constraintdef(pgherd.aside(shard)));
    EXECUTE format('CREATE TRIGGER pgherd_incoming BEFORE INSERT OR UPDATE OR DELETE ON %s'
        ' FOR EACH STATEMENT EXECUTE FUNCTION pgherd.refuse_incoming()', shard);
END $$;

-- Source: publish the shard. Without a primary key, updates and deletes are told apart by whole rows.
CREATE OR REPLACE FUNCTION pgherd.begin_outgoing(shard text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgherd.moving (shard, incoming) VALUES (begin_outgoing.shard, false);
    IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = shard::regclass AND indisprimary) THEN
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', shard);
    END IF;
    EXECUTE format('CREATE PUBLICATION %I FOR TABLE ONLY %s', pgherd.move_name(shard), shard);
END $$;

CREATE OR REPLACE FUNCTION pgherd.subscribe(shard text, link text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name name := pgherd.move_name(shard);
    publisher text;
BEGIN
    SELECT string_agg(format('%s=%L', option_name, option_value), ' ') INTO publisher
    FROM pg_foreign_server s, pg_options_to_table(s.srvoptions)
    WHERE srvname = link AND option_name IN ('host', 'port', 'dbname', 'target_session_attrs', 'connect_timeout');
    EXECUTE format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION %I WITH (create_slot = false, slot_name = %L, origin = none)',
        name, publisher || format(' user=%L password=%L', pgherd.link_role(), pgherd.link_secret(link)), name, name);
END $$;

-- Whether a link's other end answers; the error names the link.
CREATE OR REPLACE FUNCTION pgherd.check_link(link text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgherd.dblink_connect('pgherd_check', link);
    PERFORM pgherd.dblink_disconnect('pgherd_check');
EXCEPTION WHEN connection_exception OR sqlclient_unable_to_establish_sqlconnection THEN
    RAISE sqlclient_unable_to_establish_sqlconnection USING MESSAGE = format('could not connect to server "%s"', link);
END $$;

-- Target: wait until the rows that were there are copied. A worker whose source is gone tries for ever, so ask for it.
CREATE OR REPLACE FUNCTION pgherd.wait_copied(shard text, link text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    subscription oid := (SELECT oid FROM pg_subscription WHERE subname = pgherd.move_name(shard));
    failures bigint;
    checked_at timestamptz := clock_timestamp();
BEGIN
    WHILE EXISTS (SELECT FROM pg_subscription_rel WHERE srsubid = subscription AND srsubstate <> 'r') LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT apply_error_count + sync_error_count INTO failures FROM pg_stat_get_subscription_stats(subscription);
        IF failures > 0 OR clock_timestamp() > checked_at + interval '1 second' THEN
            PERFORM pgherd.check_link(link);
            checked_at := clock_timestamp();
        END IF;
        IF failures > 0 THEN
            RAISE EXCEPTION 'the rows of % can''t be copied to their new home', shard
                USING HINT = 'See the new home''s server log and pg_stat_subscription_stats.';
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;

-- Flush what is written and give the senders something to send: a target answers that at once, not at its next report.
CREATE OR REPLACE FUNCTION pgherd.wake_senders() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('server_version_num')::int >= 170000 THEN
        EXECUTE 'SELECT pg_logical_emit_message(false, ''pgherd'', ''wake'', true)';
    ELSE
        PERFORM pg_logical_emit_message(false, 'pgherd', 'wake');
    END IF;
END $$;

-- Source: wait until the target has flushed all that is committed here by now.
CREATE OR REPLACE FUNCTION pgherd.wait_caught_up(shard text, timeout_s double precision) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    goal pg_lsn;
    deadline timestamptz := clock_timestamp() + make_interval(secs => timeout_s);
    done boolean;
BEGIN
    goal := pg_current_wal_insert_lsn();  -- what was committed asynchronously may not be flushed yet
    PERFORM pgherd.wake_senders();
    LOOP
        SELECT confirmed_flush_lsn >= goal INTO done FROM pg_replication_slots WHERE slot_name = pgherd.move_name(shard);
        IF NOT FOUND THEN  -- it was on the server that was primary before
            RAISE undefined_object USING MESSAGE = format('the move of %s was interrupted by a failover', shard),
                HINT = 'Run the same command again: the move is undone.';
        END IF;
        EXIT WHEN done;
        IF clock_timestamp() > deadline THEN
            RAISE lock_not_available USING MESSAGE = format('the new home of %s did not catch up in %s s', shard, timeout_s);
        END IF;
        PERFORM pgherd.wake_senders();
        PERFORM pg_sleep(0.005);
    END LOOP;
END $$;

-- Target, inside the cut-over: no more rows will come.
CREATE OR REPLACE FUNCTION pgherd.end_incoming(shard text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', pgherd.move_name(shard));
    EXECUTE format('DROP FOREIGN TABLE %s', pgherd.aside(shard));
    EXECUTE format('DROP TRIGGER pgherd_incoming ON %s', shard);
END $$;

-- Drop a table that foreign keys of others, which are about to go too, may point to.
CREATE OR REPLACE FUNCTION pgherd.drop_tied(shard regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tie record;
BEGIN
    FOR tie IN SELECT conrelid::regclass AS child, conname FROM pg_constraint
        WHERE contype = 'f' AND confrelid = shard AND conrelid <> shard
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', tie.child, tie.conname);
    END LOOP;
    EXECUTE format('DROP TABLE %s', shard);
END $$;

-- Take away what a move has left on its target: all of it if it did not come to its end, its tools if it did.
CREATE OR REPLACE FUNCTION pgherd.clear_incoming(shard text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name name := pgherd.move_name(shard);
    aside regclass := pgherd.aside(shard);
BEGIN
    IF EXISTS (SELECT FROM pg_subscription WHERE subname = name) THEN
        EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', name);
        EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', name);
        EXECUTE format('DROP SUBSCRIPTION %I', name);
    END IF;
    IF EXISTS (SELECT FROM pg_class WHERE oid = aside AND relkind = 'f') THEN
        IF to_regclass(shard) IS NOT NULL THEN
            PERFORM pgherd.drop_tied(shard::regclass);
        END IF;
        EXECUTE format('ALTER FOREIGN TABLE %s SET SCHEMA %I', aside, (parse_ident(shard))[1]);
    ELSIF EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(shard) AND conname = 'pgherd_move') THEN
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT pgherd_move', shard);
    END IF;
    DELETE FROM pgherd.moving m WHERE m.shard = clear_incoming.shard AND m.incoming;
END $$;

-- The same on its source.
CREATE OR REPLACE FUNCTION pgherd.clear_outgoing(shard text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name name := pgherd.move_name(shard);
    aside regclass := pgherd.aside(shard);
    slot record;
BEGIN
    EXECUTE format('DROP PUBLICATION IF EXISTS %I', name);
    FOR slot IN
        SELECT slot_name, active_pid FROM pg_replication_slots
        WHERE database = current_database() AND (slot_name = name OR (slot_name ~ '^pg_\d+_sync_\d+_\d+$'
            AND (NOT active OR active_pid IN (SELECT pid FROM pg_stat_replication WHERE usename = pgherd.link_role()))))
    LOOP
        IF slot.active_pid IS NOT NULL THEN
            PERFORM pg_terminate_backend(slot.active_pid, 5000);
        END IF;
        PERFORM pg_drop_replication_slot(slot.slot_name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_class WHERE oid = aside AND relkind = 'r') THEN
        PERFORM pgherd.drop_tied(aside);
    ELSIF EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(shard) AND relkind = 'r' AND relreplident = 'f') THEN
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', shard);
    END IF;
    DELETE FROM pgherd.moving m WHERE m.shard = clear_outgoing.shard AND NOT m.incoming;
END $$;

DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'pgherd'::regnamespace AND proname IN ('begin_incoming', 'begin_outgoing',
            'subscribe', 'check_link', 'await_readers', 'wake_senders', 'wait_copied', 'wait_caught_up', 'end_incoming',
            'drop_tied', 'clear_incoming', 'clear_outgoing')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
END $$;
