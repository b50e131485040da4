-- Statements that would let pinned rows out of their regions are refused on every node, whoever sends them; plans of pgherd
-- itself go through. Event triggers belong to superusers, so the owner of the database can't drop or disable these; where
-- pgherd is no superuser there are none, and pgherd status says so.
--
-- A plan is told by the setting pgherd.plan in a session that a superuser has logged in to. Anybody may set it, but
-- nobody else's session is a superuser's: session_user is who logged in, whatever a SECURITY DEFINER function does.

-- Every shard, or whole table, that must stay in regions: by the newest topology.
CREATE OR REPLACE FUNCTION pgherd.pinned(OUT relation text, OUT table_name text, OUT tablespace text, OUT regions text[],
    OUT is_strict boolean, OUT home text)
RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE newest AS MATERIALIZED (
        SELECT document FROM pgherd.topology ORDER BY generation DESC LIMIT 1
    ), policy AS (
        SELECT space ->> 'name' AS name, coalesce((space ->> 'strict')::boolean, false) AS is_strict,
            ARRAY(SELECT DISTINCT block ->> 'region' FROM jsonb_array_elements(space -> 'blocks') block ORDER BY 1) AS regions
        FROM newest, jsonb_array_elements(document -> 'schema' -> 'tablespaces') space
    ), part AS (
        SELECT item AS node, format('%I.%I', item -> 'name' ->> 0, item -> 'name' ->> 1) AS root, item ->> 'tablespace' AS space
        FROM newest, jsonb_array_elements(document -> 'schema' -> 'items') item
        WHERE item ->> 'is' = 'Table' AND item ->> 'kind' IS DISTINCT FROM 'reference'
        UNION ALL
        SELECT below, root, coalesce(below ->> 'tablespace', space)
        FROM part, jsonb_array_elements(node -> 'partitions') below
    ), found AS (
        SELECT format('%I.%I', node -> 'name' ->> 0, node -> 'name' ->> 1) AS relation, root, name, policy.regions, policy.is_strict
        FROM part JOIN policy ON name = space
        WHERE node -> 'by' IS NULL AND policy.regions <> '{}' AND '*' <> ALL (policy.regions)
    )
    SELECT found.*, homes.value FROM found, newest, jsonb_each_text(document -> 'homes') homes
    WHERE parse_ident(homes.key) = parse_ident(found.relation)
$$;

-- The group that this node is in, and the regions of all of the group's nodes.
CREATE OR REPLACE FUNCTION pgherd.here(OUT group_name text, OUT regions text[])
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT g ->> 'name', ARRAY(SELECT DISTINCT n -> 'label' ->> 'region' FROM jsonb_array_elements(g -> 'nodes') n)
    FROM (SELECT document FROM pgherd.topology ORDER BY generation DESC LIMIT 1) newest,
        jsonb_array_elements(document -> 'groups') g
    WHERE g ->> 'name' = (SELECT self.group_name FROM pgherd.self) OR NOT EXISTS (SELECT FROM pgherd.self)
    LIMIT 1
$$;

CREATE OR REPLACE FUNCTION pgherd.in_plan() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(current_setting('pgherd.plan', true), '') = 'on'
        AND (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)
$$;

CREATE OR REPLACE FUNCTION pgherd.refuse_leak(what text, relation text, regions text[], hint text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE SQLSTATE 'PH002' USING
        MESSAGE = format('%s: rows of %s must stay in region %s', what, relation, array_to_string(regions, ', ')),
        HINT = hint;
END $$;

-- Before the statement: what reaches other servers, or lets them reach this one, whatever it names.
CREATE OR REPLACE FUNCTION pgherd.guard_start() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    leak record;
    said text := current_query();
BEGIN
    IF pgherd.in_plan() THEN
        RETURN;
    END IF;
    -- What commits on its way can't be undone at its end; it never runs inside of a function, so this is its text.
    IF tg_tag = 'ALTER TABLE' AND NOT (said ~* '\mdetach\M' AND said ~* '\mconcurrently\M')
        OR tg_tag = 'CREATE INDEX' AND NOT (said ~* '\mconcurrently\M'
            AND (said ~* '\mtablespace\M' OR current_setting('default_tablespace') <> ''))
        OR tg_tag = 'REINDEX' AND said !~* '\mtablespace\M'
    THEN
        RETURN;
    END IF;
    SELECT * INTO leak FROM pgherd.pinned() ORDER BY relation LIMIT 1;
    IF FOUND AND tg_tag IN ('ALTER TABLE', 'CREATE INDEX', 'REINDEX') THEN
        PERFORM pgherd.refuse_leak(format('%s is refused in a herd with pinned tables', CASE tg_tag
                WHEN 'ALTER TABLE' THEN 'DETACH PARTITION CONCURRENTLY' ELSE tg_tag || ' CONCURRENTLY or in a tablespace' END),
            leak.table_name, leak.regions, 'Leave the word out: without it the statement is judged by what it does.');
    ELSIF FOUND THEN
        PERFORM pgherd.refuse_leak(tg_tag || ' is refused in a herd with pinned tables', leak.table_name, leak.regions,
            'Make it in another database, which has none of the herd''s tables; pgherd moves, joins and links by itself.');
    END IF;
END $$;

-- After it, before it is committed: what it has made, and what it has read.
CREATE OR REPLACE FUNCTION pgherd.guard_end() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    leak record;
    here record;
BEGIN
    IF pgherd.in_plan() OR NOT EXISTS (SELECT FROM pgherd.pinned()) THEN
        RETURN;
    END IF;
    SELECT * INTO here FROM pgherd.here();
    IF tg_tag LIKE '%PUBLICATION' THEN
        SELECT p.*, pubname INTO leak FROM pgherd.pinned() p, pg_publication
        WHERE NOT (pubname LIKE 'pgherd\_move\_%' AND (SELECT rolsuper FROM pg_roles WHERE oid = pubowner))
            AND (puballtables AND p.regions && here.regions OR p.home = here.group_name AND EXISTS (
                SELECT FROM pg_get_publication_tables(pubname) t
                WHERE t.relid = to_regclass(p.relation)
                    OR t.relid IN (SELECT relid FROM pg_partition_ancestors(to_regclass(p.relation)))))
        ORDER BY p.relation LIMIT 1;
        IF FOUND THEN
            PERFORM pgherd.refuse_leak(format('publication %I would let them out', leak.pubname), leak.relation,
                leak.regions, 'Publish tables that are not pinned, by name.');
        END IF;
    ELSIF tg_tag LIKE '%FOREIGN TABLE' THEN
        SELECT p.*, srvname, ftrelid::regclass AS made INTO leak
        FROM pg_event_trigger_ddl_commands() c
        JOIN pg_foreign_table ON ftrelid = c.objid AND c.classid = 'pg_class'::regclass
        JOIN pg_foreign_server s ON s.oid = ftserver
        JOIN pg_class r ON r.oid = ftrelid
        JOIN pg_namespace n ON n.oid = relnamespace
        JOIN pgherd.pinned() p ON parse_ident(format('%I.%I',
                coalesce((SELECT option_value FROM pg_options_to_table(ftoptions) WHERE option_name = 'schema_name'), nspname),
                coalesce((SELECT option_value FROM pg_options_to_table(ftoptions) WHERE option_name = 'table_name'), relname)))
            IN (parse_ident(p.relation), parse_ident(p.table_name))
        WHERE NOT p.regions && here.regions AND NOT (relispartition AND srvname = 'pgherd_' || p.home)
        ORDER BY p.relation LIMIT 1;
        IF FOUND THEN
            PERFORM pgherd.refuse_leak(format('foreign table %s would lead to them', leak.made), leak.relation, leak.regions,
                'Query the herd''s own table, or connect to a server of that region.');
        END IF;
        SELECT ftrelid::regclass AS made, srvname, p.* INTO leak
        FROM pg_event_trigger_ddl_commands() c
        JOIN pg_foreign_table ON ftrelid = c.objid AND c.classid = 'pg_class'::regclass
        JOIN pg_foreign_server s ON s.oid = ftserver
        JOIN pg_class r ON r.oid = ftrelid
        JOIN pgherd.pinned() p ON 'pgherd_' || p.home = srvname
        WHERE tg_tag = 'CREATE FOREIGN TABLE' ORDER BY p.relation LIMIT 1;
        IF FOUND THEN
            PERFORM pgherd.refuse_leak(format('foreign table %s on %s, a link of the herd''s own', leak.made, leak.srvname),
                leak.relation, leak.regions, 'Query the herd''s own table.');
        END IF;
    ELSIF tg_tag IN ('CREATE TABLE AS', 'SELECT INTO', 'CREATE MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW') THEN
        -- What this transaction has read it holds a lock on, however it was named.
        SELECT p.* INTO leak FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        JOIN pgherd.pinned() p ON to_regclass(p.relation) = c.oid
        WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.database =
                (SELECT oid FROM pg_database WHERE datname = current_database())
            AND relkind = 'f' AND NOT p.regions @> here.regions
        ORDER BY p.relation LIMIT 1;
        IF FOUND THEN
            PERFORM pgherd.refuse_leak(format('%s would copy what this transaction has read to region %s', tg_tag,
                array_to_string(here.regions, ', ')), leak.relation, leak.regions,
                'Make it on a server of that region, or leave those rows out with a condition on the partition key.');
        END IF;
        SELECT p.*, m.oid::regclass AS made INTO leak
        FROM pg_event_trigger_ddl_commands() c JOIN pg_class m ON m.oid = c.objid AND c.classid = 'pg_class'::regclass
        JOIN pg_locks l ON l.pid = pg_backend_pid() AND l.locktype = 'relation'
        JOIN pgherd.pinned() p ON to_regclass(p.relation) = l.relation
        WHERE m.reltablespace <> 0 ORDER BY p.relation LIMIT 1;
        IF FOUND THEN
            PERFORM pgherd.refuse_leak(format('%s puts what this transaction has read into %s, in a tablespace that nobody can'
                ' tell the region of', tg_tag, leak.made), leak.relation, leak.regions,
                'Make it where the server keeps its own data.');
        END IF;
    ELSE
        SELECT p.*, i.indexrelid::regclass AS index INTO leak FROM pgherd.pinned() p
        LEFT JOIN pg_index i ON i.indrelid = to_regclass(p.relation)
        WHERE p.home = here.group_name AND EXISTS (SELECT FROM pg_class
            WHERE oid IN (to_regclass(p.relation), i.indexrelid) AND reltablespace <> 0)
        ORDER BY p.relation LIMIT 1;
        IF FOUND THEN
            PERFORM pgherd.refuse_leak(format('%s puts them into a tablespace that nobody can tell the region of', tg_tag),
                leak.relation, leak.regions, 'Leave them where the server keeps its own data.');
        END IF;
        IF tg_tag = 'ALTER TABLE' THEN
            SELECT p.* INTO leak FROM pgherd.pinned() p
            WHERE p.home = here.group_name AND (to_regclass(p.relation) IS NULL OR p.relation <> p.table_name
                AND pg_partition_root(to_regclass(p.relation)) IS DISTINCT FROM to_regclass(p.table_name))
            ORDER BY p.relation LIMIT 1;
            IF FOUND THEN
                PERFORM pgherd.refuse_leak(format('ALTER TABLE takes %s out of %s, and with it the constraint that keeps others'' rows'
                    ' out', leak.relation, leak.table_name), leak.relation, leak.regions,
                    'pgherd rebalance and pgherd node drain move shards.');
            END IF;
        END IF;
        SELECT t.*, part.relid::regclass AS leaf INTO leak
        FROM (SELECT DISTINCT ON (table_name) * FROM pgherd.pinned() ORDER BY table_name, relation) t,
            LATERAL pg_partition_tree(to_regclass(t.table_name)) part JOIN pg_class c ON c.oid = part.relid
        WHERE part.isleaf AND relkind = 'r' AND NOT EXISTS (
            SELECT FROM (SELECT document FROM pgherd.topology ORDER BY generation DESC LIMIT 1) newest,
                jsonb_each_text(document -> 'homes') h
            WHERE h.value = here.group_name AND to_regclass(h.key) = part.relid)
        LIMIT 1;
        IF FOUND THEN
            PERFORM pgherd.refuse_leak(format('%s is a partition of %s that is not at home here', leak.leaf, leak.table_name),
                leak.relation, leak.regions, 'Write the partition into the schema file: pgherd apply puts it where it belongs.');
        END IF;
    END IF;
END $$;

-- Whether both triggers are there, and fire in any session.
CREATE OR REPLACE FUNCTION pgherd.guarded() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) = 2 FROM pg_event_trigger WHERE evtname IN ('pgherd_guard_start', 'pgherd_guard_end') AND evtenabled = 'A'
$$;


DO $$
DECLARE  -- PostgreSQL 16 knows no event triggers for REINDEX
    reindex text := CASE WHEN current_setting('server_version_num')::int >= 170000 THEN $tag$, 'REINDEX'$tag$ ELSE '' END;
BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        DROP EVENT TRIGGER IF EXISTS pgherd_guard_start;
        EXECUTE $make$CREATE EVENT TRIGGER pgherd_guard_start ON ddl_command_start WHEN TAG IN ('CREATE SUBSCRIPTION',
            'ALTER SUBSCRIPTION', 'CREATE SERVER', 'ALTER SERVER', 'IMPORT FOREIGN SCHEMA', 'CREATE USER MAPPING',
            'ALTER USER MAPPING', 'CREATE FOREIGN DATA WRAPPER', 'ALTER FOREIGN DATA WRAPPER', 'ALTER TABLE', 'CREATE INDEX'
            $make$ || reindex || ') EXECUTE FUNCTION pgherd.guard_start()';
        DROP EVENT TRIGGER IF EXISTS pgherd_guard_end;
        EXECUTE $make$CREATE EVENT TRIGGER pgherd_guard_end ON ddl_command_end WHEN TAG IN ('CREATE PUBLICATION',
            'ALTER PUBLICATION', 'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'CREATE TABLE', 'ALTER TABLE', 'CREATE TABLE AS',
            'SELECT INTO', 'CREATE MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW', 'CREATE INDEX', 'ALTER INDEX'
            $make$ || reindex || ') EXECUTE FUNCTION pgherd.guard_end()';
        ALTER EVENT TRIGGER pgherd_guard_start ENABLE ALWAYS;
        ALTER EVENT TRIGGER pgherd_guard_end ENABLE ALWAYS;
    END IF;
END $$;
