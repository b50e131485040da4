-- readers
SELECT role::text AS role, scribe::text AS scribe, region FROM pgherd.reader
