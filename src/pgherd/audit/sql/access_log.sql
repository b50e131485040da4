-- the log of what readers asked
SELECT region, count(*) AS lines, count(question) AS questions, array_agg(DISTINCT t) AS tables
FROM pgherd.access_log LEFT JOIN LATERAL unnest(tables) t ON true GROUP BY 1
