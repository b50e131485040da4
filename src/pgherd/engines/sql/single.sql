-- One server: what the generated search functions call.

DROP FUNCTION IF EXISTS pgherd.scatter(text[], text[], text, text, integer, text);

CREATE OR REPLACE FUNCTION pgherd.scatter(shards text[], home text, template text, returns text, query text, k integer,
    condition text, OUT statement text, OUT groups text[])
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('SELECT * FROM (%s) gathered ORDER BY 1 LIMIT %s', string_agg(part, ' UNION ALL '), k), '{}'::text[]
    FROM pgherd.search_parts(shards, home, template, query, k, condition)
$$;

CREATE OR REPLACE FUNCTION pgherd.gathered(groups text[]) RETURNS void
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS '';
