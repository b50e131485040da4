-- What was measured of a shard's vector index, kept where the shard is: recall and time over effort, and how many rows
-- there were. It goes with a shard that moves; an index of another kind is measured anew.
CREATE TABLE IF NOT EXISTS pgherd.calibration (
    relation text NOT NULL,
    column_name text NOT NULL,
    metric text NOT NULL,
    document jsonb NOT NULL,
    rows_at bigint NOT NULL,
    changes_at bigint NOT NULL,
    calibrated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relation, column_name, metric)
);
GRANT SELECT ON pgherd.calibration TO PUBLIC;
