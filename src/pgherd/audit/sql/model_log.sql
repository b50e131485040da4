-- calls of models that rows were sent to
SELECT table_name AS table, region, endpoint, purpose, sum(texts)::bigint AS texts, max(at)::text AS last
FROM pgherd.model_log WHERE purpose <> 'question' GROUP BY 1, 2, 3, 4
