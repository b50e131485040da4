-- What was measured of a shard's vector index, kept where the shard is: recall and time over effort, and how many rows
-- there were. A shard that moves, or an index of another kind, is measured anew.
DO $$
BEGIN
    -- One of an earlier version, which knew of one index a column; what it holds is measured again in a minute.
    IF to_regclass('pgherd.calibration') IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute
            WHERE attrelid = to_regclass('pgherd.calibration') AND attname = 'stored' AND NOT attisdropped) THEN
        DROP TABLE pgherd.calibration;
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS pgherd.calibration (
    relation text NOT NULL,
    column_name text NOT NULL,
    metric text NOT NULL,
    stored text NOT NULL, -- the type of the index's entries
    document jsonb NOT NULL,
    rows_at bigint NOT NULL,
    changes_at bigint NOT NULL,
    calibrated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relation, column_name, metric, stored)
);
GRANT SELECT ON pgherd.calibration TO PUBLIC;
