-- Moving a shard: what source and target do. The shard is named by its qualified name; slot, publication and subscription
-- of a move share a name. pgherd.moving says what is under way here, so that it can be cleared by whoever comes next.

CREATE SCHEMA IF NOT EXISTS pgherd_aside;

CREATE TABLE IF NOT EXISTS pgherd.moving (
    shard text PRIMARY KEY,
    incoming boolean NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now()
);
-- A shard that is split goes out too: these tables will take its place.
ALTER TABLE pgherd.moving ADD COLUMN IF NOT EXISTS halves text[];

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
-- look for a newer topology before they read, at most every other second, so wait until none can be that far behind. A
-- group that leaves waits the same for whatever was at home there (no shard named).
CREATE OR REPLACE FUNCTION pgherd.await_readers(shard text, seconds double precision) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    left_at timestamptz;
BEGIN
    SELECT max(ended) INTO left_at
    FROM (SELECT document -> 'homes' AS homes, lead(applied_at) OVER (ORDER BY generation) AS ended
          FROM pgherd.topology) past, pgherd.self
    WHERE CASE WHEN shard IS NULL THEN EXISTS (SELECT FROM jsonb_each_text(homes) WHERE value = group_name)
        ELSE homes ->> shard = group_name END;
    PERFORM pg_sleep(greatest(0, extract(epoch FROM left_at - clock_timestamp())::double precision + seconds))
    WHERE left_at IS NOT NULL;
END $$;

-- A hash partition's constraint as PostgreSQL makes it, which calls satisfies_hash_partition with no collation. A call that
-- is written gets the one of its arguments, and then is not the same; two different ones (name's is "C") cancel each other,
-- and what brings them in is gone as soon as the expression is simplified.
DO $$
BEGIN
    IF to_regtype('pgherd.posix_text') IS NULL THEN
        CREATE DOMAIN pgherd.posix_text AS text COLLATE "POSIX";
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pgherd.hash_constraint(parent regclass, modulus integer, remainder integer, key text[])
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('satisfies_hash_partition(%L::oid, %s, %s, %s)', parent::oid, modulus, remainder, string_agg(CASE
        WHEN attcollation = 0 THEN quote_ident(k)
        ELSE format('CASE WHEN true THEN %1$I WHEN false THEN NULL::pgherd.posix_text::%2$s ELSE NULL::name::%2$s END',
            k, format_type(atttypid, NULL)) END, ', ' ORDER BY n))
    FROM unnest(key) WITH ORDINALITY u(k, n) JOIN pg_attribute ON attrelid = parent AND attname = k
$$;

-- What the rows of a partition fulfil, all levels above it included, such that PostgreSQL knows it again.
CREATE OR REPLACE FUNCTION pgherd.partition_condition(partition regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE partstrat WHEN 'h' THEN concat_ws(' AND ', pgherd.partition_condition(inhparent),
            pgherd.hash_constraint(inhparent, bound[1]::int, bound[2]::int, ARRAY(
                SELECT attname::text FROM unnest(partattrs::int2[]) WITH ORDINALITY u(k, n)
                JOIN pg_attribute ON attrelid = inhparent AND attnum = k ORDER BY n)))
        ELSE '(' || pg_get_partition_constraintdef(partition) || ')' END
    FROM pg_inherits JOIN pg_partitioned_table ON partrelid = inhparent JOIN pg_class c ON c.oid = inhrelid,
        regexp_match(pg_get_expr(c.relpartbound, c.oid), '(\d+)\D+(\d+)') bound
    WHERE inhrelid = partition
$$;

-- Target: the foreign partition steps aside, still attached, and an empty table takes its name. The check repeats the
-- partition's constraint, so that attaching the table later needs no look at its rows.
CREATE OR REPLACE FUNCTION pgherd.begin_incoming(shard text, parent text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgherd.moving (shard, incoming) VALUES (begin_incoming.shard, true);
    EXECUTE format('ALTER FOREIGN TABLE %s SET SCHEMA pgherd_aside', shard);
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING STORAGE)',
        shard, parent);
    PERFORM pgherd.number_rows(shard, parent);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT pgherd_move CHECK (%s)', shard,
        pgherd.partition_condition(pgherd.aside(shard)));
    EXECUTE format('CREATE TRIGGER pgherd_incoming BEFORE INSERT OR UPDATE OR DELETE ON %s'
        ' FOR EACH STATEMENT EXECUTE FUNCTION pgherd.refuse_incoming()', shard);
END $$;

-- What the rows of a partition fulfil at its own level; NULL where the text doesn't show where that begins.
CREATE OR REPLACE FUNCTION pgherd.own_condition(partition regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN above IS NULL THEN whole
        WHEN starts_with(whole, '(' || above || ' AND ') THEN '(' || substr(whole, length(above) + 7)
        WHEN starts_with(whole, left(above, -1) || ' AND ') THEN '(' || substr(whole, length(above) + 5) END
    FROM (SELECT pg_get_partition_constraintdef(partition) AS whole, pg_get_partition_constraintdef(inhparent) AS above
          FROM pg_inherits WHERE inhrelid = partition) d
$$;

-- Home of a DEFAULT partition beside the shard: a check that it holds none of the shard's rows, so that attaching the shard
-- again, as table or as link, reads none of them. check_default looks at the rows, and keeps nobody out meanwhile.
CREATE OR REPLACE FUNCTION pgherd.spare_default(shard text, rest text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    condition text := pgherd.own_condition(coalesce(pgherd.aside(shard), to_regclass(shard)));
BEGIN
    IF condition IS NOT NULL AND EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(rest) AND relkind = 'r') THEN
        INSERT INTO pgherd.moving (shard, incoming) VALUES (spare_default.shard, false) ON CONFLICT DO NOTHING;
        PERFORM pgherd.lock_gently(rest, 'ACCESS EXCLUSIVE');
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (NOT %s) NOT VALID', rest, pgherd.move_name(shard), condition);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pgherd.check_default(shard text, rest text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(rest) AND conname = pgherd.move_name(shard)) THEN
        EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT %I', rest, pgherd.move_name(shard));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pgherd.clear_default(shard text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rest text;
BEGIN
    FOR rest IN SELECT conrelid::regclass FROM pg_constraint WHERE contype = 'c' AND conname = pgherd.move_name(shard) LOOP
        PERFORM pgherd.lock_gently(rest, 'ACCESS EXCLUSIVE');
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rest, pgherd.move_name(shard));
    END LOOP;
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

-- What a COPY between two servers needs to know of a table: its columns but generated ones; whether COPY's binary format
-- means the same on both (composite types, and arrays of what is not built in, carry numbers that differ between
-- servers; so do the reg… types); how many rows (-1: unknown) and bytes there are, by the statistics.
CREATE OR REPLACE FUNCTION pgherd.copy_facts(shard regclass, OUT columns text, OUT is_binary boolean, OUT row_count bigint,
    OUT bytes bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE column_of AS (
        SELECT attnum, attname, atttypid FROM pg_attribute
        WHERE attrelid = shard AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ), used AS (
        SELECT t.* FROM column_of JOIN pg_type t ON t.oid = atttypid
        UNION
        SELECT t.* FROM used JOIN pg_type t ON t.oid = CASE
            WHEN used.typtype = 'd' THEN used.typbasetype WHEN used.typcategory = 'A' THEN used.typelem END
    )
    SELECT (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM column_of),
        (SELECT bool_and(typsend <> 0 AND typreceive <> 0 AND typname !~ '^_?reg[a-z]+$' AND (typtype IN ('b', 'd', 'e')
            OR oid < 16384) AND typtype <> 'c' AND (typcategory <> 'A' OR typtype = 'd' OR typelem < 16384)) FROM used),
        reltuples::bigint, pg_table_size(shard)
    FROM pg_class WHERE oid = shard
$$;

-- Target: from the slot's start on, which is where the copied snapshot ends.
CREATE OR REPLACE FUNCTION pgherd.subscribe(shard text, link text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name name := pgherd.move_name(shard);
    publisher text;
BEGIN
    SELECT string_agg(format('%s=%L', option_name, option_value), ' ') INTO publisher
    FROM pg_foreign_server s, pg_options_to_table(s.srvoptions)
    WHERE srvname = link AND option_name IN ('host', 'port', 'dbname', 'target_session_attrs', 'connect_timeout',
        'sslmode', 'sslrootcert');
    EXECUTE format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION %I WITH (create_slot = false, slot_name = %L,'
        ' copy_data = false, origin = none, binary = %s)',
        name, publisher || format(' user=%L password=%L', pgherd.link_role(), pgherd.link_secret(link)), name, name,
        (SELECT is_binary::text FROM pgherd.copy_facts(shard)));
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

-- Target: whether changes still arrive. A worker whose source is gone tries for ever, so ask for it.
CREATE OR REPLACE FUNCTION pgherd.check_incoming(shard text, link text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgherd.check_link(link);
    IF EXISTS (SELECT FROM pg_subscription s, pg_stat_get_subscription_stats(s.oid) t
        WHERE s.subname = pgherd.move_name(shard) AND t.apply_error_count + t.sync_error_count > 0) THEN
        RAISE EXCEPTION 'changes of % can''t be made at its new home', shard
            USING HINT = 'See the new home''s server log and pg_stat_subscription_stats.';
    END IF;
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

-- Source: how many bytes of the log, up to a place in it, the target has not flushed yet.
CREATE OR REPLACE FUNCTION pgherd.behind(shard text, goal pg_lsn) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgherd.wake_senders();
    RETURN (SELECT greatest(0, goal - confirmed_flush_lsn)::bigint FROM pg_replication_slots
        WHERE slot_name = pgherd.move_name(shard));
END $$;

-- Source, inside the cut-over: wait until the target has flushed all that is committed here by now, for as long as a lock
-- might be waited for.
CREATE OR REPLACE FUNCTION pgherd.wait_caught_up(shard text, timeout_s double precision) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    goal pg_lsn;
    patience interval := coalesce(nullif(current_setting('lock_timeout')::interval, '0'), make_interval(secs => timeout_s));
    deadline timestamptz := clock_timestamp() + least(patience, make_interval(secs => timeout_s));
    done boolean;
BEGIN
    goal := pg_current_wal_insert_lsn();  -- what was committed asynchronously may not be flushed yet
    IF current_setting('server_version_num')::int < 170000 AND has_function_privilege('pg_switch_wal()', 'EXECUTE') THEN
        PERFORM pg_switch_wal();  -- no other function flushes there, and the WAL writer takes up to 200 ms
    END IF;
    PERFORM pgherd.wake_senders();
    LOOP
        SELECT confirmed_flush_lsn >= goal INTO done FROM pg_replication_slots WHERE slot_name = pgherd.move_name(shard);
        IF NOT FOUND THEN  -- it was on the server that was primary before
            RAISE undefined_object USING MESSAGE = format('the move of %s was interrupted by a failover', shard),
                HINT = 'Run the same command again: the move is undone.';
        END IF;
        EXIT WHEN done;
        IF clock_timestamp() > deadline THEN
            RAISE lock_not_available USING MESSAGE = format('the new home of %s did not catch up in time', shard);
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

-- Target, inside the cut-over: what was measured of the shard's indexes goes with it. Changes are counted anew here, so
-- that those since it was measured stay as many; the indexes may have other names here.
CREATE OR REPLACE FUNCTION pgherd.take_calibration(shard text, link text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgherd.calibration (relation, column_name, metric, stored, document, rows_at, changes_at, calibrated_at)
    SELECT shard, column_name, metric, stored, CASE WHEN definition IS NULL THEN document
            ELSE jsonb_set(document, '{definition}', to_jsonb(definition)) END,
        rows_at, coalesce(n_tup_ins + n_tup_upd + n_tup_del, 0) - changed, calibrated_at
    FROM pgherd.dblink(link, format('SELECT column_name, metric, stored, document, rows_at, calibrated_at,'
            ' coalesce(n_tup_ins + n_tup_upd + n_tup_del, 0) - changes_at FROM pgherd.calibration'
            ' LEFT JOIN pg_stat_all_tables ON relid = to_regclass(relation) WHERE relation = %L', shard))
        AS r(column_name text, metric text, stored text, document jsonb, rows_at bigint, calibrated_at timestamptz,
            changed bigint)
    LEFT JOIN pg_stat_all_tables ON relid = to_regclass(shard)
    LEFT JOIN LATERAL (
        SELECT pg_get_indexdef(indexrelid) AS definition FROM pg_index WHERE indrelid = to_regclass(shard)
            AND split_part(pg_get_indexdef(indexrelid), ' USING ', 2) = split_part(document ->> 'definition', ' USING ', 2)
        LIMIT 1
    ) index ON true
    ON CONFLICT (relation, column_name, metric, stored) DO UPDATE SET document = excluded.document, rows_at = excluded.rows_at,
        changes_at = excluded.changes_at, calibrated_at = excluded.calibrated_at;
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
    PERFORM pgherd.clear_default(shard);
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
    FOR slot IN SELECT slot_name, active_pid FROM pg_replication_slots WHERE slot_name = name LOOP
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
    PERFORM pgherd.clear_split(m.shard, m.halves) FROM pgherd.moving m WHERE m.shard = clear_outgoing.shard AND m.halves <> '{}';
    PERFORM pgherd.clear_default(shard);
    DELETE FROM pgherd.moving m WHERE m.shard = clear_outgoing.shard AND NOT m.incoming;
END $$;

DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'pgherd'::regnamespace AND proname IN ('begin_incoming', 'begin_outgoing',
            'subscribe', 'check_link', 'check_incoming', 'await_readers', 'wake_senders', 'behind', 'wait_caught_up',
            'end_incoming', 'take_calibration', 'drop_tied', 'clear_incoming', 'clear_outgoing', 'spare_default',
            'check_default', 'clear_default')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
END $$;
