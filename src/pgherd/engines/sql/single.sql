-- One server: what the generated search functions call.

CREATE OR REPLACE FUNCTION pgherd.scatter(groups text[], templates text[], returns text, query text, k integer, condition text)
RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('SELECT * FROM (%s) gathered ORDER BY 1 LIMIT %s', string_agg(format(template, query, k, condition), ' UNION ALL '), k)
    FROM unnest(templates) template
$$;

CREATE OR REPLACE FUNCTION pgherd.gathered(groups text[]) RETURNS void
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS '';
