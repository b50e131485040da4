-- Three hospitals keep their treatments in their own regions. One table for the application; its rows never leave home.
-- The same file works on one server, on plain servers, and (from the same dialect) on YugabyteDB.

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLESPACE new_york WITH (replica_placement = '{"num_replicas": 1, "placement_blocks": [
    {"cloud": "local", "region": "us-east", "zone": "*", "min_num_replicas": 1}]}');
CREATE TABLESPACE chicago WITH (replica_placement = '{"num_replicas": 1, "placement_blocks": [
    {"cloud": "local", "region": "us-central", "zone": "*", "min_num_replicas": 1}]}');
CREATE TABLESPACE san_francisco WITH (replica_placement = '{"num_replicas": 1, "placement_blocks": [
    {"cloud": "local", "region": "us-west", "zone": "*", "min_num_replicas": 1}]}');

-- Every region needs the hospitals' names: a full copy on every server.
CREATE TABLE hospital (
    location text PRIMARY KEY,
    name text NOT NULL,
    region text NOT NULL
);
SELECT create_reference_table('hospital');

CREATE TABLE treatment (
    id bigint NOT NULL,
    hospital_location text NOT NULL REFERENCES hospital,
    icd_code text NOT NULL,
    description text NOT NULL,
    embedding vector(256),
    PRIMARY KEY (id HASH, hospital_location)
) PARTITION BY LIST (hospital_location);

CREATE TABLE treatment_new_york PARTITION OF treatment FOR VALUES IN ('New York') TABLESPACE new_york;
CREATE TABLE treatment_chicago PARTITION OF treatment FOR VALUES IN ('Chicago') TABLESPACE chicago;
CREATE TABLE treatment_san_francisco PARTITION OF treatment FOR VALUES IN ('San Francisco') TABLESPACE san_francisco;

SELECT pgherd.embed_column('treatment', 'description', 'embedding', model => 'wordllama');

-- Added to the file once the rows are in: each region builds its own part at once.
CREATE INDEX treatment_embedding_idx ON treatment USING ybhnsw (embedding vector_cosine_ops)
    WITH (m = 16, ef_construction = 128);
