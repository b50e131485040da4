-- Splitting a shard at its home (planning/split.py). Its row in pgherd.moving names what it becomes, so that whoever comes
-- next can clear up. The log of changed keys, and the trigger function that fills it, share a name in pgherd_aside.

CREATE OR REPLACE FUNCTION pgherd.split_name(shard text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'pgherd_aside.pgherd_split_' || md5(shard)
$$;

CREATE OR REPLACE FUNCTION pgherd.begin_split(shard text, halves text[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgherd.moving (shard, incoming, halves) VALUES (shard, false, halves)
$$;

-- An empty table for a half. The check repeats the constraint of the partition that it will be (its parent's, and the hash),
-- so that attaching the table needs no look at its rows.
CREATE OR REPLACE FUNCTION pgherd.make_half(half text, parent text, modulus integer, remainder integer, key text[])
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING STORAGE)',
        half, parent);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT pgherd_move CHECK (%s)', half, concat_ws(' AND ',
        pgherd.partition_condition(parent::regclass),
        pgherd.hash_constraint(parent, modulus, remainder, key)));
END $$;

-- Wait for a lock in small portions: whoever comes after us queues behind us, and must not wait for the one before us.
CREATE OR REPLACE FUNCTION pgherd.lock_gently(relation text, mode text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    outer_timeout text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '250ms', true);
    FOR attempt IN 1 .. 20 LOOP
        BEGIN
            EXECUTE format('LOCK TABLE ONLY %s IN %s MODE', relation, mode);
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF attempt = 20 THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(0.25);
    END LOOP;
    PERFORM set_config('lock_timeout', outer_timeout, true);
END $$;

-- From now on the keys of rows that change in a shard are logged, in the transaction that changes them; a row without key
-- says that all have changed. Nobody writes while the triggers are made, so whatever the log misses is there to be copied.
CREATE OR REPLACE FUNCTION pgherd.note_changes(shard text, key text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    log text := pgherd.split_name(shard);
    old_key text := (SELECT string_agg(format('OLD.%I', k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY u(k, n));
    new_key text := (SELECT string_agg(format('NEW.%I', k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY u(k, n));
BEGIN
    EXECUTE format('CREATE TABLE %s AS SELECT %s FROM %s WITH NO DATA', log,
        (SELECT string_agg(quote_ident(k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY u(k, n)), shard);
    EXECUTE format($function$
        CREATE FUNCTION %1$s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        BEGIN
            CASE TG_OP
                WHEN 'INSERT' THEN INSERT INTO %1$s VALUES (%3$s);
                WHEN 'DELETE' THEN INSERT INTO %1$s VALUES (%2$s);
                WHEN 'UPDATE' THEN INSERT INTO %1$s SELECT %2$s UNION SELECT %3$s;
                ELSE INSERT INTO %1$s DEFAULT VALUES;
            END CASE;
            RETURN NULL;
        END $body$ $function$, log, old_key, new_key);
    PERFORM pgherd.lock_gently(shard, 'SHARE ROW EXCLUSIVE');
    EXECUTE format('CREATE TRIGGER pgherd_split AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %s()',
        shard, log);
    EXECUTE format('CREATE TRIGGER pgherd_split_all AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION %s()', shard, log);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgherd_split, ENABLE ALWAYS TRIGGER pgherd_split_all', shard);
END $$;

CREATE OR REPLACE FUNCTION pgherd.stored_columns(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
    FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
$$;

-- Which of the shard's rows belong into a half.
CREATE OR REPLACE FUNCTION pgherd.half_condition(half regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = half AND conname = 'pgherd_move'
$$;

-- The halves get their rows as replicas do: foreign keys hold because they hold on the shard, and cascades happened there.
CREATE OR REPLACE FUNCTION pgherd.copy_halves(shard text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
DECLARE
    half text;
BEGIN
    FOR half IN SELECT unnest(m.halves) FROM pgherd.moving m WHERE m.shard = copy_halves.shard LOOP
        EXECUTE format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM ONLY %3$s WHERE %4$s',
            half, pgherd.stored_columns(half::regclass), shard, pgherd.half_condition(half::regclass));
    END LOOP;
END $$;

-- Bring the halves up to date: rows whose key is logged are taken out, and put in again as they are now, if they are.
-- Run in one snapshot, or with the writers waiting, and then for at_most so many changes. A key is found by its index: there
-- are few, and a scan of the whole shard would keep the writers waiting.
CREATE OR REPLACE FUNCTION pgherd.replay(shard text, at_most bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET session_replication_role = replica
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    log text := pgherd.split_name(shard);
    key text := pgherd.stored_columns(log::regclass);
    half text;
    waiting bigint;
    all_changed boolean;
BEGIN
    EXECUTE format('SELECT count(*), bool_or((%s) IS NULL) FROM %s', key, log) INTO waiting, all_changed;
    IF waiting > at_most THEN
        RAISE lock_not_available USING MESSAGE = format('%s changes of shard %s are still on their way', waiting, shard);
    END IF;
    FOR half IN SELECT unnest(m.halves) FROM pgherd.moving m WHERE m.shard = replay.shard LOOP
        EXIT WHEN waiting = 0;
        IF all_changed THEN
            EXECUTE format('DELETE FROM %s', half);
            CONTINUE;
        END IF;
        EXECUTE format('DELETE FROM %1$s WHERE (%2$s) IN (SELECT %2$s FROM %3$s)', half, key, log);
        EXECUTE format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE'
            ' SELECT %2$s FROM ONLY %3$s WHERE (%4$s) IN (SELECT %4$s FROM %5$s) AND %6$s',
            half, pgherd.stored_columns(half::regclass), shard, key, log, pgherd.half_condition(half::regclass));
    END LOOP;
    IF all_changed THEN
        PERFORM pgherd.copy_halves(shard);
    END IF;
    EXECUTE format('DELETE FROM %s', log);
EXCEPTION WHEN query_canceled THEN
    RAISE lock_not_available USING MESSAGE = format('the changes of shard %s take too long while writers wait', shard);
END $$;

-- What was measured of the shard's indexes is where its halves begin; it is stale, since their indexes are other ones.
CREATE OR REPLACE FUNCTION pgherd.carry_curves(shard text, halves text[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgherd.calibration
    SELECT (jsonb_populate_record(c, jsonb_build_object('relation', half))).*
    FROM pgherd.calibration c, unnest(halves) half WHERE c.relation = shard
    ON CONFLICT DO NOTHING;
    DELETE FROM pgherd.calibration WHERE relation = shard
$$;

-- Part of clear_outgoing: the halves if it did not come to its end, and what noted the changes.
CREATE OR REPLACE FUNCTION pgherd.clear_split(shard text, halves text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    half regclass;
BEGIN
    FOR half IN SELECT oid FROM unnest(halves) h JOIN pg_class ON oid = to_regclass(h) WHERE NOT relispartition LOOP
        PERFORM pgherd.drop_tied(half);
    END LOOP;
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(shard) AND tgname = 'pgherd_split') THEN
        PERFORM pgherd.lock_gently(shard, 'ACCESS EXCLUSIVE');
        EXECUTE format('DROP TRIGGER pgherd_split ON %s', shard);
        EXECUTE format('DROP TRIGGER pgherd_split_all ON %s', shard);
    END IF;
    EXECUTE format('DROP FUNCTION IF EXISTS %s()', pgherd.split_name(shard));
    EXECUTE format('DROP TABLE IF EXISTS %s', pgherd.split_name(shard));
END $$;

DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'pgherd'::regnamespace AND proname IN ('begin_split', 'make_half',
            'lock_gently', 'note_changes', 'copy_halves', 'replay', 'carry_curves', 'clear_split')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
END $$;
