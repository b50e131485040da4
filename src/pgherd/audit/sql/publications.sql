-- publications
SELECT p.pubname AS name, p.puballtables AS everything, ARRAY(
    SELECT schemaname || '.' || tablename FROM pg_publication_tables t WHERE t.pubname = p.pubname) AS tables
FROM pg_publication p
