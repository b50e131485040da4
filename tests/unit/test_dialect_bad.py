"""Bad input: every case says where (the mark § stands at the place), what is wrong, and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgherd.dialect import parse
from pgherd.errors import BadSchema, HerdError, ResidencyRefused, SyntaxProblem

REGION = {"cloud": "aws", "region": "eu", "zone": "a", "min_num_replicas": 1}
SPACES = "".join(
    f"CREATE TABLESPACE {n} WITH (replica_placement = '"
    + json.dumps({"num_replicas": 1, "placement_blocks": [{**REGION, "region": n}]})
    + "');\n"
    for n in ("eu", "us")
)
PARTED = """CREATE TABLE t (id int, r text, v vector(3), PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE t_eu PARTITION OF t FOR VALUES IN ('eu') TABLESPACE eu;
CREATE TABLE t_us PARTITION OF t FOR VALUES IN ('us') TABLESPACE us;
"""
SPREAD = "CREATE TABLE s (id int PRIMARY KEY HASH, n int, name text, e real[]) SPLIT INTO 4 TABLETS;\n"


def refuse(text: str, said: str, kind: type[HerdError] = BadSchema) -> HerdError:
    """Parse ``text`` and check that it is refused at the mark, with ``said`` in message or hint."""
    before, mark, after = text.partition("§")
    assert mark, "the case has no mark"
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    with pytest.raises(kind) as caught:
        parse(before + after, file="my file.sql")
    error = caught.value
    assert error.message.startswith(f"my file.sql:{line}:{column}: "), error.message
    assert said in f"{error.message} | {error.hint}"
    assert "§" not in error.message
    return error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SET a = 1;\n  CREATE TABLE é (a int, b§)", "syntax error at or near"),
        ("CREATE TABLE é (a int§", "syntax error at end of input"),
        ("SELECT 'é', §'abc", "unterminated quoted string"),
        ("/* é */ SELECT 1; §/* abc", "unterminated /* comment"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS §$x$ select 1", "unterminated dollar-quoted string"),
        ("SELECT U&'§\\zz'", "invalid Unicode escape"),
        ("SELECT §12ab", "trailing junk after numeric literal"),
        ("CREATE TABLE t (id int PRIMARY KEY HASH, b int §HASH ASC)", "syntax error"),
        ("CREATE TABLE t (id int) §SPLIT INTO TABLETS", "syntax error"),
        ("CREATE TABLE a (b int);\n§\0", "NUL character"),
        ("CREATE TABLESPACE x§", "syntax error"),
    ],
)
def test_syntax(text: str, said: str) -> None:
    refuse(text, said, SyntaxProblem)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CREATE TABLE a (b int);\n§\\connect other", "psql command"),
        ("§\\copy a from 'x'", "psql command"),
        ("CREATE TABLE a (b text);\n§COPY a (b) FROM stdin;\nit's\n\\.\n", "pgherd load"),
        ("§INSERT INTO a VALUES (1)", "pgherd load or pgherd sql"),
        ("§UPDATE a SET b = 1", "pgherd load or pgherd sql"),
        ("§COPY a FROM '/tmp/x'", "pgherd load"),
        ("§DO $$ begin end $$", "DO block"),
        ("§CREATE RULE r AS ON INSERT TO a DO NOTHING", "rule"),
        ("§CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw", "foreign servers"),
        ("§CREATE PUBLICATION p FOR ALL TABLES", "replicates by itself"),
        ("§CREATE SUBSCRIPTION p CONNECTION 'x' PUBLICATION y", "replicates by itself"),
        ("§CREATE DATABASE d", "one database"),
        ("§CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()", "would fire"),
        ("§CREATE MATERIALIZED VIEW m AS SELECT 1", "onto one node"),
        ("§CREATE TABLE m AS SELECT 1 AS a", "onto one node"),
        ("§CREATE TYPE c AS (a int)", "composite types"),
        ("§CREATE AGGREGATE a (int) (sfunc = f, stype = int)", "aggregates"),
        ("§ALTER SYSTEM SET work_mem = '1GB'", "one server"),
        ("§ALTER ROLE bob LOGIN", "CREATE ROLE"),
        ("§SELECT 1", "pgherd sql"),
        ("§SELECT a FROM b", "pgherd sql"),
        ("SELECT §setval('a', 1)", "function setval"),
        ("§LISTEN x", "doesn't know this statement"),
        ("§SET search_path TO app, public", "app.name"),
        ("§SET ROLE bob", "SET role"),
        ("§CREATE TEMP VIEW v AS SELECT 1 AS a", "one session"),
        ("§CREATE SCHEMA pgherd", "own"),
        ("§CREATE TABLE pgherd.t (a int)", "pgherd's own"),
        ("§CREATE TABLE pg_catalog.t (a int)", "PostgreSQL's own"),
        ("§CREATE VIEW pgherd.v AS SELECT 1 AS a", "pgherd's own"),
        ("§CREATE FUNCTION pgherd.f() RETURNS int LANGUAGE sql AS 'select 1'", "pgherd's own"),
        ("§CREATE SCHEMA a CREATE TABLE b (c int)", "statements of their own"),
        ("§CREATE TYPE e AS ENUM ('a', 'a')", "twice"),
        ("§ALTER TYPE e ADD VALUE 'a'", "no type public.e"),
        ("CREATE TYPE e AS ENUM ('a'); §ALTER TYPE e ADD VALUE 'b' AFTER 'c'", "no label 'c'"),
        ("CREATE TYPE e AS ENUM ('a'); §ALTER TYPE e RENAME VALUE 'a' TO 'b'", "RENAME VALUE"),
        ("CREATE VIEW v AS SELECT 1 AS a; §CREATE VIEW v AS SELECT 2 AS a", "made twice, first at my file.sql:1:1"),
        ("§CREATE ROLE r PASSWORD ''", "empty password"),
        ("§COMMENT ON TABLE t IS 'x'", "no table 't'"),
        ("§COMMENT ON DATABASE d IS 'x'", "one server"),
        ("§CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", "no table 't'"),
        ("§CREATE POLICY p ON t USING (true)", "no table 't'"),
        ("§DROP TABLE t", "take its CREATE out"),
        ("§DROP TABLE IF EXISTS t", "doesn't drop what the file doesn't make again"),
        ("CREATE TABLE t (a int); §DROP TABLE IF EXISTS t", "the file made above"),
        ("§ALTER SEQUENCE s RESTART WITH 4", "CREATE SEQUENCE"),
        ("§CREATE VIEW v AS SELECT " + "||".join(["a"] * 5000), "plainer SQL"),
    ],
)
def test_other_statements(text: str, said: str) -> None:
    refuse(text, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("§CREATE TEMP TABLE t (a int)", "one session"),
        ("§CREATE UNLOGGED TABLE t (a int)", "after a crash"),
        ("§CREATE TABLE t OF y", "write the columns out"),
        ("CREATE TABLE p (a int); §CREATE TABLE t () INHERITS (p)", "PARTITION BY LIST or HASH"),
        ("§CREATE TABLE t (LIKE other)", "no table 'other'"),
        ("§CREATE TABLE t ()", "without columns"),
        ("CREATE TABLE t (a int) WITH (§fillfactor = 70)", "fillfactor"),
        ("CREATE TABLE t (a int) §PARTITION BY RANGE (a)", "every write, on one server"),
        ("CREATE TABLE t (a int) PARTITION BY LIST (§(lower(a)))", "expression"),
        ("§CREATE TABLE t (a int) PARTITION BY LIST (b)", "no column 'b'"),
        ("§CREATE TABLE t (a text) PARTITION BY LIST (a)", "no row has a place"),
        ("§CREATE TABLE t (a text) TABLESPACE nowhere", "unknown tablespace 'nowhere'"),
        ("CREATE TABLE t (a int, §a int)", "written twice"),
        ("CREATE TABLE t (a int, §PRIMARY KEY (b))", "no column 'b'"),
        ("CREATE TABLE t (a int, §PRIMARY KEY (a, a))", "names a column twice"),
        ("CREATE TABLE t (a int PRIMARY KEY, §PRIMARY KEY (a))", "second primary key"),
        ("CREATE TABLE t (a int, §UNIQUE (a) DEFERRABLE)", "leave DEFERRABLE out"),
        ("CREATE TABLE t (a int, §UNIQUE (a) INCLUDE (a))", "CREATE UNIQUE INDEX"),
        ("CREATE TABLE t (a int, §UNIQUE (a) USING INDEX TABLESPACE x)", "lives with its rows"),
        ("CREATE TABLE t (a int, §EXCLUDE USING gist (a WITH =))", "across shards"),
        ("CREATE TABLE t (a int, §CHECK (a > 1) NO INHERIT)", "NO INHERIT"),
        ("CREATE TABLE t (a int, §CHECK (a > 1) NOT ENFORCED)", "NOT ENFORCED"),
        ("CREATE TABLE t (a int §GENERATED ALWAYS AS (1) VIRTUAL)", "write STORED"),
        ("CREATE TABLE t (a int §GENERATED ALWAYS AS IDENTITY (INCREMENT BY 5))", "range of its own"),
        ("CREATE TABLE t (§a text COMPRESSION lz4)", "not kept"),
        ("§CREATE TABLE t (a int, CONSTRAINT x CHECK (a > 1), CONSTRAINT x UNIQUE (a))", "two constraints named 'x'"),
        ("CREATE TABLE t (a int); §CREATE TABLE t (b int)", "made twice"),
        ("CREATE TABLE t (a int) §SPLIT AT VALUES ((1), (2))", "SPLIT INTO n TABLETS"),
        ("CREATE TABLE t (a int) §SPLIT INTO 0 TABLETS", "from 1 to"),
        ("CREATE TABLE t (a int) §SPLIT INTO 3 TABLETS", "PRIMARY KEY (id HASH)"),
        (f"CREATE TABLE t (§{'x' * 64} int)", "PostgreSQL would cut"),
        ("§CREATE TABLE a.b.c (d int)", "three parts"),
        ("§CREATE TABLE t (a mood PRIMARY KEY HASH); CREATE TYPE mood AS ENUM ('x')", "from server to server"),
        ("§CREATE TABLE t (a int, v vector(3)) PARTITION BY HASH (v)", "from server to server"),
        ("CREATE TABLE t (a int); §ALTER TABLE t DROP COLUMN a", "CREATE TABLE t"),
        ("CREATE TABLE t (a text); §ALTER TABLE t ALTER a SET STORAGE external", "not kept"),
        ("CREATE TABLE t (a int); §ALTER TABLE t ALTER a TYPE text", "CREATE TABLE t"),
        ("CREATE TABLE t (a int); §ALTER TABLE t RENAME a TO b", "new name in CREATE"),
        ("CREATE TABLE t (a int); §ALTER TABLE t ALTER b SET NOT NULL", "no column 'b'"),
        ("CREATE TABLE t (a int);\n §ALTER TABLE u ENABLE ROW LEVEL SECURITY", "no table 'u' above"),
        ("CREATE TABLE t (a int); ALTER TABLE t ADD §CONSTRAINT x UNIQUE USING INDEX y", "USING INDEX"),
        ("§CREATE TABLE a (x int PRIMARY KEY, y int);\nCREATE TABLE b (x int PRIMARY KEY REFERENCES a);"
         "ALTER TABLE a ADD FOREIGN KEY (y) REFERENCES b", "go in a circle"),
    ],
)  # fmt: skip
def test_tables(text: str, said: str) -> None:
    refuse(text, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("§CREATE TABLE p PARTITION OF t FOR VALUES IN ('x')", "no table 't'"),
        ("CREATE TABLE t (a text); §CREATE TABLE p PARTITION OF t DEFAULT", "not partitioned"),
        (PARTED + "§CREATE TABLE p PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "FOR VALUES IN"),
        (PARTED + "CREATE TABLE p PARTITION OF t FOR VALUES §FROM (1) TO (2)", "FOR VALUES IN"),
        (PARTED + "CREATE TABLE p PARTITION OF t FOR VALUES §IN (lower('X'))", "not a constant"),
        (PARTED + "§CREATE TABLE p PARTITION OF t FOR VALUES IN ('x', 'us')", "partition t_us too"),
        (PARTED + "§CREATE TABLE p PARTITION OF t FOR VALUES IN ('x', 'x')", "this partition twice"),
        (PARTED + "CREATE TABLE d PARTITION OF t DEFAULT; §CREATE TABLE p PARTITION OF t DEFAULT", "second DEFAULT"),
        (PARTED + "§CREATE TABLE p PARTITION OF t FOR VALUES IN ('x') TABLESPACE nope", "tablespaces: eu, us"),
        (PARTED + "CREATE TABLE p PARTITION OF t (§PRIMARY KEY (r, id)) DEFAULT", "not on every partition"),
        (PARTED + "§CREATE TABLE p PARTITION OF t (CHECK (id > 1)) DEFAULT", "one partition only"),
        (PARTED + "CREATE TABLE p PARTITION OF t (§id DEFAULT 1) DEFAULT", "set defaults and constraints on the table"),
        (PARTED + "CREATE TABLE p PARTITION OF t (§z) DEFAULT", "no column 'z'"),
        (PARTED + "§ALTER TABLE t_eu ENABLE ROW LEVEL SECURITY", "ALTER TABLE t"),
        (PARTED + "§ALTER TABLE t_eu ALTER COLUMN id SET DEFAULT 5", "a default of its own"),
        (PARTED + "§ALTER TABLE t_eu ADD CHECK (id > 1)", "one partition only"),
        (PARTED + "CREATE TABLE p (id int); §ALTER TABLE t ATTACH PARTITION p DEFAULT", "differ in their columns"),
        (PARTED + "§ALTER TABLE t ATTACH PARTITION t_eu DEFAULT", "a partition already"),
        (PARTED + "§CREATE TRIGGER g BEFORE INSERT ON t_eu FOR EACH ROW EXECUTE FUNCTION f()", "one partition only"),
        (PARTED + "§CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()", "FOR EACH ROW"),
        (PARTED + "CREATE TABLE p PARTITION OF t DEFAULT PARTITION BY LIST (id) §SPLIT INTO 2 TABLETS;"
         "CREATE TABLE p1 PARTITION OF p DEFAULT", "keep one of the two"),
        (PARTED.replace("PARTITION BY LIST (r);", "PARTITION BY LIST (r) §SPLIT INTO 3 TABLETS;"), "on a partition"),
        (PARTED + "CREATE TABLE u (id int, PRIMARY KEY (id)) PARTITION BY HASH (id);"
         "CREATE TABLE u0 PARTITION OF u FOR VALUES WITH (MODULUS 1, REMAINDER 0) §SPLIT INTO 2 TABLETS",
         "larger modulus"),
        ("CREATE TABLE t (r text PRIMARY KEY) PARTITION BY LIST (r);"
         "CREATE TABLE p PARTITION OF t DEFAULT §SPLIT INTO 2 TABLETS", "beside the partition's own"),
        ("CREATE TABLE t (id int, r text, §PRIMARY KEY (id)) PARTITION BY LIST (r);"
         "CREATE TABLE p PARTITION OF t DEFAULT",
         "write PRIMARY KEY (id, r)"),
        ("CREATE TABLE t (id int §UNIQUE, r text) PARTITION BY LIST (r); CREATE TABLE p PARTITION OF t DEFAULT",
         "no shard alone can know"),
        ("CREATE TABLE t (id int) PARTITION BY HASH (id);"
         "§CREATE TABLE p PARTITION OF t FOR VALUES WITH (MODULUS 4, REMAINDER 1)",
         "the remainders 0, 2, 3 are missing"),
        ("CREATE TABLE t (id int) PARTITION BY HASH (id);"
         "CREATE TABLE p PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
         "§CREATE TABLE q PARTITION OF t FOR VALUES WITH (MODULUS 4, REMAINDER 3)", "overlaps partition p"),
        ("CREATE TABLE t (id int) PARTITION BY HASH (id);"
         "CREATE TABLE p PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
         "§CREATE TABLE q PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER 0)", "no multiple of modulus 2"),
        ("CREATE TABLE t (id int) PARTITION BY HASH (id);"
         "§CREATE TABLE q PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER 3)", "0 to 2"),
        ("CREATE TABLE t (id int, b int) PARTITION BY LIST (id); §CREATE TABLE p PARTITION OF t FOR VALUES IN ('x')",
         "no integer"),
        ("CREATE TABLE t (id smallint) PARTITION BY LIST (id); §CREATE TABLE p PARTITION OF t FOR VALUES IN (40000)",
         "no smallint"),
        ("CREATE TABLE t (d date) PARTITION BY LIST (d); §CREATE TABLE p PARTITION OF t FOR VALUES IN ('1 May')",
         "YYYY-MM-DD"),
        ("CREATE TABLE t (u uuid) PARTITION BY LIST (u); §CREATE TABLE p PARTITION OF t FOR VALUES IN ('x')",
         "no uuid"),
        ("CREATE TABLE t (b bool) PARTITION BY LIST (b); §CREATE TABLE p PARTITION OF t FOR VALUES IN ('x')",
         "no boolean"),
        ("CREATE TABLE t (b real) PARTITION BY LIST (b); §CREATE TABLE p PARTITION OF t FOR VALUES IN ('1')",
         "type real"),
        ("CREATE TYPE e AS ENUM ('a'); CREATE TABLE t (b e) PARTITION BY LIST (b);"
         "§CREATE TABLE p PARTITION OF t FOR VALUES IN ('z')", "labels: a"),
    ],
)  # fmt: skip
def test_partitions(text: str, said: str) -> None:
    refuse(SPACES + text, said)


def test_key_of_some_partitions_only() -> None:
    refuse(
        "CREATE TABLE t (id int, r text) PARTITION BY LIST (r);\n"
        "CREATE TABLE a PARTITION OF t (§PRIMARY KEY (id, r)) FOR VALUES IN ('a');\n"
        "CREATE TABLE b PARTITION OF t FOR VALUES IN ('b');",
        "or on all of its partitions alike",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("§CREATE INDEX ON nope (a)", "no table 'nope'"),
        (PARTED + "§CREATE INDEX ON t (nope)", "no column 'nope'"),
        (PARTED + "§CREATE INDEX ON t USING bloom (id)", "methods: btree"),
        (PARTED + "§CREATE INDEX ON t (id) TABLESPACE eu", "leave TABLESPACE out"),
        (PARTED + "§CREATE INDEX ON t_eu (id) TABLESPACE us", "leave TABLESPACE out"),
        (PARTED + "§CREATE INDEX ON t_eu (id)", "CREATE INDEX … ON t"),
        (PARTED + "§CREATE INDEX ON t_eu (id); CREATE INDEX ON t_us (id DESC)", "CREATE INDEX … ON t"),
        (
            PARTED + "CREATE INDEX a ON t (id); CREATE INDEX b ON t_eu (r); §ALTER INDEX a ATTACH PARTITION b",
            "is not what",
        ),
        (PARTED + "§CREATE UNIQUE INDEX ON t (id)", "add r to the index"),
        (PARTED + "CREATE INDEX i ON t (id); §CREATE INDEX i ON t (r)", "made twice"),
        (PARTED + "§CREATE INDEX ON t USING hnsw (v)", "vector_cosine_ops"),
        (PARTED + "§CREATE INDEX ON t USING hnsw (id vector_l2_ops)", "which is integer"),
        (PARTED + "CREATE INDEX ON t (id) WITH (§fillfactor = 'a; b')", "name = number"),
        (SPREAD + "§CREATE UNIQUE INDEX ON s (n)", "without partition column 'id'"),
        ("CREATE TABLE x (v vector); §CREATE INDEX ON x USING hnsw (v vector_l2_ops)", "vector(n)"),
        ("CREATE TABLE x (v vector(3072)); §CREATE INDEX ON x USING hnsw (v vector_l2_ops)", "halfvec"),
        ("CREATE TABLE x (a int); §ALTER INDEX i SET TABLESPACE y", "final form in CREATE INDEX"),
    ],
)
def test_indexes(text: str, said: str) -> None:
    refuse(SPACES + text, said)


REFERENCED = "CREATE TABLE ref (id int PRIMARY KEY); SELECT create_reference_table('ref');\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CREATE TABLE a (x int §REFERENCES nope)", "doesn't make"),
        ("CREATE TABLE a (x int §REFERENCES s (nope))", "no column 'nope'"),
        ("CREATE TABLE a (x int §REFERENCES s (n))", "is no key of s"),
        ("CREATE TABLE b (x int); CREATE TABLE a (x int §REFERENCES b)", "no primary key"),
        ("CREATE TABLE a (x int §REFERENCES s)", "create_reference_table('s')"),
        ("CREATE TABLE a (x int, y int, §FOREIGN KEY (x, y) REFERENCES s (id))", "pairwise"),
        ("CREATE TABLE a (x int §REFERENCES s); SELECT create_reference_table('a')", "make s a reference table too"),
        ("CREATE TABLE a (x int PRIMARY KEY HASH §REFERENCES s) SPLIT INTO 3 TABLETS", "not colocated"),
        ("CREATE TABLE a (x bigint PRIMARY KEY HASH §REFERENCES s) SPLIT INTO 4 TABLETS", "not colocated"),
        ("CREATE TABLE a (x int PRIMARY KEY HASH, y int §REFERENCES s) SPLIT INTO 4 TABLETS", "not colocated"),
        ("CREATE TABLE b (x int PRIMARY KEY); CREATE TABLE a (x int PRIMARY KEY HASH §REFERENCES b)", "b is local"),
        (PARTED + "CREATE TABLE a (x int, y text, §FOREIGN KEY (x, y) REFERENCES t_eu (id, r))", "reference t"),
    ],
)
def test_foreign_keys(text: str, said: str) -> None:
    refuse(SPACES + SPREAD + text, said)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE b (x int PRIMARY KEY) TABLESPACE eu; CREATE TABLE a (x int §REFERENCES b)",
        "CREATE TABLE b (x int PRIMARY KEY); CREATE TABLE a (x int §REFERENCES b) TABLESPACE eu",
        "CREATE TABLE b (x int PRIMARY KEY) TABLESPACE eu; CREATE TABLE a (x int §REFERENCES b) TABLESPACE us",
        PARTED + "CREATE TABLE a (x int, y text, §FOREIGN KEY (x, y) REFERENCES t)",
        PARTED + "CREATE TABLE a (x int, y text, §FOREIGN KEY (x, y) REFERENCES t); SELECT create_reference_table('a')",
    ],
)
def test_foreign_keys_whose_values_would_leave_a_region(text: str) -> None:
    error = refuse(SPACES + text, "would leave the regions where they must stay", ResidencyRefused)
    assert error.exit_status == 3


def test_a_reference_table_that_would_hold_pinned_rows() -> None:
    table = "§CREATE TABLE a (x int PRIMARY KEY) TABLESPACE eu; SELECT create_reference_table('a')"
    error = refuse(SPACES + table, "a reference table is on every node", ResidencyRefused)
    assert error.exit_status == 3


def test_a_pinned_table_may_reference_a_reference_table() -> None:
    parse(SPACES + REFERENCED + "CREATE TABLE a (x int REFERENCES ref) TABLESPACE eu")


def test_foreign_keys_that_can_be_kept() -> None:
    parse(
        REFERENCED
        + SPREAD
        + "CREATE TABLE a (x int PRIMARY KEY HASH REFERENCES s, y int REFERENCES ref) SPLIT INTO 4 TABLETS;"
        "CREATE TABLE l (x int PRIMARY KEY REFERENCES ref, up int REFERENCES l); CREATE TABLE m (x int REFERENCES l)"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT §create_distributed_table('nope', 'id')", "no table 'nope'"),
        ("SELECT §create_distributed_table('d', 'nope')", "no column 'nope'"),
        ("SELECT §create_distributed_table('d')", "distribution_column is missing"),
        ("SELECT §create_distributed_table('d', 'id', 'range')", "write 'hash'"),
        ("SELECT §create_distributed_table('d', 'id', shard_count => 0)", "from 1 to"),
        ("SELECT §create_distributed_table('d', 'id', shards => 4)", "no argument 'shards'"),
        ("SELECT §create_distributed_table('d', lower('ID'))", "not a constant"),
        ("SELECT §create_distributed_table('d', 'id', 'hash', 'none', 4, 5)", "too many arguments"),
        ("SELECT §create_distributed_table('s', 'id')", "leave one of the two out"),
        ("SELECT §create_reference_table('t')", "leave one of the two out"),
        ("SELECT §create_distributed_table('d', 'id', colocate_with => 'nope')", "no table distributed by hash"),
        (
            "SELECT §create_distributed_table('d', 'id', colocate_with => 's', shard_count => 7)",
            "leave shard_count out",
        ),
        ("SELECT create_reference_table('d'); SELECT §create_reference_table('d')", "distributed twice"),
        ("SELECT §pgherd.embed_column('s', 'n', 'e')", "not text"),
        ("SELECT §pgherd.embed_column('s', 'name', 'e')", "not a vector"),
        ("SELECT §pgherd.embed_column('s', 'name', 'nope')", "no column 'nope'"),
        ("SELECT §other.embed_column('s', 'name', 'e')", "write embed_column"),
        ("§CREATE TABLE w (a json); SELECT create_distributed_table('w', 'a')", "from server to server"),
    ],
)
def test_functions(text: str, said: str) -> None:
    refuse(SPACES + SPREAD + PARTED + "CREATE TABLE d (id int, n int);\n" + text, said)


NEAR = "CREATE TABLE n (id int, v vector(3), w vector, b bit(3), cell smallint, c text, PRIMARY KEY (id, cell));\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NEAR + "SELECT §pgherd.distribute_by_nearest('n', 'id')", "no centroids"),
        (NEAR + "SELECT §pgherd.distribute_by_nearest('n', 'b')", "name a vector or halfvec column"),
        (NEAR + "SELECT §pgherd.distribute_by_nearest('n', 'w')", "make it vector(n)"),
        (NEAR + "SELECT §pgherd.distribute_by_nearest('n', 'v', 'c')", "not a number of a cell"),
        (NEAR + "SELECT §pgherd.distribute_by_nearest('n', 'v', 'nope')", "no column 'nope'"),
        (NEAR + "SELECT §pgherd.distribute_by_nearest('n', 'v', shard_count => 1)", "from 2 to 128"),
        (NEAR + "SELECT §pgherd.distribute_by_nearest('n', 'v', metric => 'ip')", "one of: cosine, l2"),
        (PARTED + "SELECT §pgherd.distribute_by_nearest('t', 'v', 'id')", "leave one of the two out"),
        (
            "CREATE TABLE k (id int §PRIMARY KEY, v vector(3), cell smallint);"
            "SELECT pgherd.distribute_by_nearest('k', 'v')",
            "write PRIMARY KEY (id, cell)",
        ),
        (
            NEAR + "CREATE TABLE n_cells (id int); SELECT §pgherd.distribute_by_nearest('n', 'v')",
            "relation public.n_cells is made twice",
        ),
    ],
)
def test_what_is_near_needs_a_vector_and_a_cell(text: str, said: str) -> None:
    refuse(SPACES + text, said)


def test_centroids_of_pinned_rows_would_be_everywhere() -> None:
    text = "§CREATE TABLE n (id int, v vector(3), cell smallint, PRIMARY KEY (id, cell)) TABLESPACE eu;\n"
    text += "SELECT pgherd.distribute_by_nearest('n', 'v')"
    refuse(SPACES + text, "centroids, which are made of its rows, are on every node", ResidencyRefused)


def _policy(**changes: Any) -> str:
    said = {"num_replicas": 3, "placement_blocks": [REGION], **changes}
    return json.dumps({k: v for k, v in said.items() if v is not None})


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("replica_placement = '{'", "not JSON"),
        ("replica_placement = '[]'", "not a JSON object"),
        ("tablet_count = 3", "unknown option 'tablet_count'"),
        ("read_replica_placement = '{}'", "replica_placement is missing"),
        (f"replica_placement = '{_policy(num_replicas=None)}'", "num_replicas is missing"),
        (f"replica_placement = '{_policy(num_replicas=0)}'", "num_replicas is 0"),
        (f"replica_placement = '{_policy(num_replicas='3')}'", 'num_replicas is "3"'),
        (f"replica_placement = '{_policy(num_replicas=True)}'", "num_replicas is true"),
        (f"replica_placement = '{_policy(color='red')}'", "unknown key 'color'"),
        (f"replica_placement = '{_policy(placement_blocks=[])}'", "placement_blocks is missing or empty"),
        (f"replica_placement = '{_policy(placement_blocks=[3])}'", "not a JSON object"),
        (f"replica_placement = '{_policy(placement_blocks=[{**REGION, 'rack': 1}])}'", "unknown key 'rack'"),
        (f"replica_placement = '{_policy(placement_blocks=[{**REGION, 'zone': ''}])}'", "zone is missing"),
        (f"replica_placement = '{_policy(placement_blocks=[{**REGION, 'cloud': '*'}])}'", "cloud is '*'"),
        (f"replica_placement = '{_policy(placement_blocks=[{**REGION, 'region': '*'}])}'", "the zone is '*' too"),
        (f"replica_placement = '{_policy(placement_blocks=[{**REGION, 'min_num_replicas': 0}])}'",
         "min_num_replicas is 0"),
        (f"replica_placement = '{_policy(placement_blocks=[{**REGION, 'min_num_replicas': 4}])}'", '"num_replicas": 4'),
        (f"replica_placement = '{_policy(placement_blocks=[REGION, REGION])}'", "two placement blocks for aws.eu.a"),
        (f"replica_placement = '{_policy(placement_blocks=[{**REGION, 'leader_preference': 2}])}'", "without a gap"),
        (f"replica_placement = '{_policy()}', read_replica_placement = '"
         + _policy(placement_blocks=[{**REGION, 'leader_preference': 1}]) + "'", "unknown key 'leader_preference'"),
        (f"replica_placement = '{_policy(placement_uuid='x')}'", "unknown key 'placement_uuid'"),
        (f"replica_placement = '{_policy(strict='yes')}'", 'strict is "yes"'),
        (f"replica_placement = '{_policy(strict={'except': []})}'", '{"except": ["us-east"]}'),
        (f"replica_placement = '{_policy(strict={'except': ['us'], 'roles': []})}'", '"strict": true'),
    ],
)  # fmt: skip
def test_tablespaces(option: str, said: str) -> None:
    error = refuse(f"SELECT set_config('a', 'b', false);\n §CREATE TABLESPACE \"My space\" WITH ({option})", said)
    assert "tablespace 'My space'" in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("§CREATE TABLESPACE x LOCATION '/data'", "a directory of one server"),
        ("§ALTER TABLESPACE x SET (replica_placement = '{}')", "no tablespace 'x'"),
        (SPACES + "§ALTER TABLESPACE eu RESET (replica_placement)", "RESET"),
        (SPACES + "§ALTER TABLESPACE eu SET (seq_page_cost = 1)", "unknown option 'seq_page_cost'"),
        (SPACES + SPACES.replace("CREATE", "§CREATE", 1), "made twice"),
    ],
)
def test_tablespace_statements(text: str, said: str) -> None:
    refuse(text, said)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (f"replica_placement = '{_policy(placement_blocks=[{**REGION, 'region': '*', 'zone': '*'}], strict=True)}'",
         "any region is allowed"),
        (f"replica_placement = '{_policy(strict={'except': ['*']})}'", "any region is allowed"),
        (f"replica_placement = '{_policy(strict=True)}', read_replica_placement = '"
         + _policy(placement_blocks=[{**REGION, 'region': 'us'}]) + "'", "copies at aws.us.a"),
    ],
)  # fmt: skip
def test_strict_tablespaces_that_contradict_themselves(option: str, said: str) -> None:
    error = refuse(
        f"SELECT set_config('a', 'b', false);\n §CREATE TABLESPACE x WITH ({option})", said, ResidencyRefused
    )
    assert error.exit_status == 3


def test_errors_show_the_first_words_and_no_more() -> None:
    error = refuse("§CREATE ROLE bob PASSWORD '' LOGIN", "empty password")
    assert "CREATE ROLE bob PASSWORD: an empty password" in error.message
