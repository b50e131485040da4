"""What an edited schema file becomes: steps, or a refusal that says why."""

from __future__ import annotations

import pytest

from herds import FLEET, SINGLE, a_herd
from pgherd import dialect
from pgherd.errors import BadSchema, ChangeRefused
from pgherd.model.topology import Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.plan import Plan, Step, Traits

HERD = a_herd("us-east", "us-west")

SPACES = "".join(
    f"""CREATE TABLESPACE {name} WITH (replica_placement = '{{"num_replicas": 1, "placement_blocks":
    [{{"cloud": "local", "region": "{region}", "zone": "a", "min_num_replicas": 1}}]}}');"""
    for name, region in (("east", "us-east"), ("west", "us-west"))
)

BASE = (
    SPACES
    + """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE FUNCTION plus(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a + 1';
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE ROLE reader PASSWORD 'one';
CREATE SEQUENCE ticket;
CREATE TABLE kind (id int PRIMARY KEY, label text);
SELECT create_reference_table('kind');
CREATE TABLE doc (
    id bigint, region text, m mood, title text, kind int, CHECK (id > 0), PRIMARY KEY (id, region)
) PARTITION BY LIST (region);
CREATE TABLE doc_e PARTITION OF doc FOR VALUES IN ('e') TABLESPACE east;
CREATE TABLE doc_w PARTITION OF doc FOR VALUES IN ('w') TABLESPACE west;
CREATE TABLE hashed (id bigint PRIMARY KEY, v vector(3));
SELECT create_distributed_table('hashed', 'id', shard_count => 4);
CREATE TABLE local (id bigint PRIMARY KEY, note text);
CREATE INDEX doc_title ON doc (title);
CREATE VIEW seen AS SELECT id FROM doc;
"""
)


def applied(text: str, herd: Topology = HERD, traits: Traits = FLEET) -> Topology:
    result = plan_apply(herd, dialect.parse(text), traits).result
    assert result is not None
    return result


def edit(*changes: tuple[str, str]) -> str:
    text = BASE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def plan_of(*changes: tuple[str, str], more: str = "", traits: Traits = FLEET) -> Plan:
    herd = HERD if traits is FLEET else a_herd("us-east")
    base = applied(BASE, herd, traits)
    schema = dialect.parse(edit(*changes) + more)
    plan = plan_apply(base, schema, traits)
    if plan.phases:
        assert plan_apply(plan.phases[-1].result, schema, traits).phases == ()
    return plan


def steps(plan: Plan) -> list[Step]:
    """All but what follows from the whole: search functions, privileges of shards."""
    return [s for s in plan.steps if s.kind not in ("search_function", "sync_shards")]


def shown(plan: Plan) -> list[tuple[str, str, str]]:
    return [(s.kind, ",".join(s.groups), s.sql) for s in steps(plan)]


def test_an_unchanged_file_plans_nothing_whatever_its_layout() -> None:
    assert (
        plan_of(("CREATE TYPE mood AS ENUM ('sad', 'glad');", "create type  mood as enum('sad','glad') ;")).phases == ()
    )


def test_what_the_file_does_not_mention_stays() -> None:
    result = applied(BASE)
    plan = plan_apply(result, dialect.parse("CREATE TABLE other (id int PRIMARY KEY)"), FLEET)
    assert plan.result is not None
    assert {t.name for t in result.schema.tables} < {t.name for t in plan.result.schema.tables}


def test_a_new_column_goes_to_the_parent_everywhere() -> None:
    plan = plan_of(("title text", "title text, score real DEFAULT 0 NOT NULL"))
    sql = "ALTER TABLE public.doc ADD COLUMN score real DEFAULT 0 NOT NULL"
    assert shown(plan) == [("add_column", "g1,g2", sql)]


def test_a_new_column_of_a_local_table_is_foreign_elsewhere() -> None:
    plan = plan_of(("note text", "note text, extra text"))
    assert shown(plan) == [
        ("add_column", "g1", "ALTER TABLE public.local ADD COLUMN extra text"),
        ("add_column", "g2", "ALTER FOREIGN TABLE public.local ADD COLUMN extra text"),
    ]


def test_a_new_index_is_built_concurrently_then_adopted() -> None:
    plan = plan_of(more="CREATE INDEX hashed_v ON hashed USING hnsw (v vector_cosine_ops);")
    (phase,) = plan.phases
    assert [(s.target, s.groups) for s in phase.builds] == [
        (f"public.hashed_{i}_v", ("g1",) if i % 2 == 0 else ("g2",)) for i in range(4)
    ]
    assert all(s.sql.startswith("CREATE INDEX CONCURRENTLY IF NOT EXISTS") for s in phase.builds)
    assert phase.commits[0].sql == ("CREATE INDEX hashed_v ON public.hashed USING hnsw (v vector_cosine_ops)")


def test_a_new_index_comes_after_the_column_it_needs() -> None:
    plan = plan_of(("title text", "title text, score real"), more="CREATE INDEX doc_score ON doc (score);")
    assert [p.result.generation for p in plan.phases] == [3, 4]
    assert [s.kind for s in plan.phases[0].steps][:1] == ["add_column"]
    assert {s.kind for s in plan.phases[1].builds} == {"build_index"}
    names = [i.name.name for i in plan.phases[0].result.schema.indexes]
    assert "doc_score" not in names  # a herd that stopped between the phases still lacks it


@pytest.mark.parametrize("traits", [FLEET, SINGLE])
def test_a_new_unique_index_is_whole_on_every_shard(traits: Traits) -> None:
    plan = plan_of(more="CREATE UNIQUE INDEX once ON doc (title, region);", traits=traits)
    assert {s.target for s in plan.phases[0].builds} == {"public.doc_e_once", "public.doc_w_once"}
    on_parent = [s for s in plan.phases[0].commits if s.kind == "create_index"]
    assert len(on_parent) == (1 if traits.keys_on_parent else 0)


def test_long_index_names_differ_between_shards() -> None:
    name = "i" * 63
    plan = plan_of(more=f"CREATE INDEX {name} ON hashed (id);")
    targets = [s.target.partition(".")[2] for s in plan.phases[0].builds]
    assert len(set(targets)) == 4
    assert all(len(t) <= 63 for t in targets)


def test_a_new_partition_has_what_its_siblings_have() -> None:
    """Keys, unique indexes, triggers and policies live on the leaves: a new one needs them too."""
    more = """CREATE UNIQUE INDEX once ON doc (title, region);
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER t BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION f();
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON doc FOR EACH ROW EXECUTE FUNCTION f();
    ALTER TABLE doc ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON doc USING (doc.region = current_user);"""
    base = applied(BASE + more)
    partition = "CREATE TABLE doc_x PARTITION OF doc FOR VALUES IN ('x') TABLESPACE west;"
    plan = plan_apply(base, dialect.parse(BASE + more + partition), FLEET)
    assert [(k, g) for k, g, _ in shown(plan)] == [
        ("create_shard", "g2"),
        ("link_shard", "g1"),
        ("create_index", "g2"),
        ("run_trigger", "g2"),
        ("run_trigger", "g2"),
        ("run_policy", "g2"),
        ("sync_logins", "g1,g2"),
    ]
    create, _, index, trigger, _, policy, _ = (s for _, _, s in shown(plan))
    assert "(PRIMARY KEY (id, region)) FOR VALUES IN ('x')" in create
    assert index == "CREATE UNIQUE INDEX doc_x_once ON public.doc_x USING btree (title, region)"
    assert "ON public.doc_x " in trigger
    assert "ON public.doc_x " in policy
    assert "doc_x.region" in policy


def test_a_new_partition_with_a_new_trigger_gets_it_once() -> None:
    more = """CREATE TABLE doc_x PARTITION OF doc FOR VALUES IN ('x');
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON doc FOR EACH ROW EXECUTE FUNCTION f();"""
    triggers = [s.sql.split(" ON ")[1].split()[0] for s in plan_of(more=more).steps if s.kind == "run_trigger"]
    assert sorted(triggers) == ["public.doc_e", "public.doc_w", "public.doc_x"]


def test_a_new_partition_with_a_new_constraint_gets_it_once() -> None:
    plan = plan_of(
        ("PRIMARY KEY (id, region)\n", "PRIMARY KEY (id, region), UNIQUE (title, region)\n"),
        more="CREATE TABLE doc_x PARTITION OF doc FOR VALUES IN ('x');",
    )
    assert [s.target for s in plan.steps if s.kind == "add_constraint"] == ["doc_e", "doc_w"]
    assert [s.sql.count("UNIQUE") for s in plan.steps if s.kind == "create_shard"] == [1]


def test_a_new_partition_may_be_split_by_hash() -> None:
    more = "CREATE TABLE doc_x PARTITION OF doc FOR VALUES IN ('x') PARTITION BY HASH (id) TABLESPACE east;"
    plan = plan_of(more=more)
    kinds = [(s.kind, s.target, s.groups) for s in steps(plan)]
    assert kinds[0] == ("create_partition", "doc_x", ("g1", "g2"))
    assert [k for k in kinds if k[0] == "create_shard"] == [("create_shard", f"doc_x_{i}", ("g1",)) for i in range(2)]


def test_a_new_level_below_a_partition_that_exists_is_refused() -> None:
    change = ("FOR VALUES IN ('w') TABLESPACE west;", "FOR VALUES IN ('w') PARTITION BY HASH (id) TABLESPACE west;")
    with pytest.raises(ChangeRefused, match="the bounds of partition doc_w changed"):
        plan_of(change)


def test_new_enum_labels_are_committed_before_anything_uses_them() -> None:
    plan = plan_of(("('sad', 'glad')", "('new', 'sad', 'so-so', 'glad', 'last')"), ("m mood", "m mood DEFAULT 'so-so'"))
    first, second = plan.phases
    assert [s.sql for s in first.steps] == [
        "ALTER TYPE public.mood ADD VALUE IF NOT EXISTS 'new' BEFORE 'sad'",
        "ALTER TYPE public.mood ADD VALUE IF NOT EXISTS 'so-so' AFTER 'sad'",
        "ALTER TYPE public.mood ADD VALUE IF NOT EXISTS 'last' AFTER 'glad'",
    ]
    assert [s.kind for s in second.steps][:1] == ["set_default"]


def test_views_and_functions_are_replaced() -> None:
    plan = plan_of(("SELECT a + 1", "SELECT a + 2"), ("SELECT id FROM doc", "SELECT id, title FROM doc"))
    assert [(s.kind, s.sql[:17]) for s in steps(plan)] == [
        ("replace_function", "CREATE OR REPLACE"),
        ("replace_view", "CREATE OR REPLACE"),
    ]


def test_defaults_and_not_null_are_changed_in_place() -> None:
    plan = plan_of(("title text", "title text DEFAULT '?' NOT NULL"))
    assert shown(plan) == [
        ("set_default", "g1,g2", "ALTER TABLE public.doc ALTER COLUMN title SET DEFAULT '?'"),
        ("set_not_null", "g1,g2", "ALTER TABLE public.doc ALTER COLUMN title SET NOT NULL"),
    ]


def test_constraints_are_added_where_they_can_be_kept() -> None:
    plan = plan_of(
        ("kind int,", "kind int REFERENCES kind ON DELETE CASCADE, CONSTRAINT short CHECK (length(title) < 9),"),
        ("PRIMARY KEY (id, region)\n", "PRIMARY KEY (id, region), UNIQUE (title, region)\n"),
    )
    assert shown(plan) == [
        ("add_constraint", "g1,g2", "ALTER TABLE public.doc ADD CONSTRAINT short CHECK (length(title) < 9)"),
        *(
            ("add_constraint", g, f"ALTER TABLE public.{leaf} ADD {what}")
            for what in (
                "FOREIGN KEY (kind) REFERENCES public.kind (id) ON DELETE CASCADE",
                "UNIQUE (title, region)",
            )
            for leaf, g in (("doc_e", "g1"), ("doc_w", "g2"))
        ),
    ]


def test_row_security_is_switched_on_before_its_policy() -> None:
    plan = plan_of(more="ALTER TABLE doc ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON doc USING (true);")
    assert [(s.kind, s.groups) for s in steps(plan)] == [
        ("row_security", ("g1", "g2")),
        ("row_security", ("g1", "g2")),
        ("run_policy", ("g1", "g2")),
        ("run_policy", ("g1",)),
        ("run_policy", ("g2",)),
        ("sync_logins", ("g1", "g2")),
    ]
    assert not plan.notes


@pytest.mark.parametrize(
    "policy",
    [
        "current_setting('app.tenant') = doc.region",
        "pg_catalog.current_setting('app.tenant', true) = doc.region",
        "doc.region = session_user",
        "ours(doc.region)",
        "other.ours(doc.region)",
    ],
)
def test_policies_that_ask_the_session_are_noted(policy: str) -> None:
    function = "CREATE FUNCTION ours(text) RETURNS bool LANGUAGE sql AS 'SELECT true';"
    schema = "CREATE SCHEMA other; ALTER TABLE doc ENABLE ROW LEVEL SECURITY;"
    (note,) = plan_of(more=f"{function} {schema} CREATE POLICY p ON doc USING ({policy});").notes
    assert "doc has policies that ask for settings of the session" in note


def test_a_policy_that_shadows_its_table_is_left_as_written() -> None:
    more = "ALTER TABLE doc ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON doc USING " + (
        "(doc.id > 0 AND EXISTS (SELECT 1 FROM kind doc WHERE doc.id = 3));"
    )
    policy = next(s.sql for s in plan_of(more=more).steps if s.kind == "run_policy" and s.groups == ("g2",))
    assert "doc_w.id > 0" in policy
    assert "doc.id = 3" in policy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((", note text", ""), "column 'note' is in the herd but no longer in the file"),
        (("title text", "title varchar(9)"), "column 'title' changed type from text to character varying(9)"),
        (("title text", 'title text COLLATE "C"'), "column 'title' changed type"),
        (
            ("id bigint, region", "id bigint GENERATED ALWAYS AS IDENTITY, region"),
            "how column 'id' is generated changed",
        ),
        (("title text", "title text, n int NOT NULL"), "new column 'n' is NOT NULL without a default"),
        (("title text", "title text, n int GENERATED ALWAYS AS (1) STORED"), "new column 'n' is generated"),
        (("note text", "note text, n bigint GENERATED ALWAYS AS IDENTITY"), "new column 'n' is generated"),
        (
            ("label text", "label text, at timestamptz DEFAULT now()"),
            "new column 'at' has a default that calls a function",
        ),
        (
            ("label text", "label text, d date DEFAULT CURRENT_DATE"),
            "new column 'd' has a default that calls a function",
        ),
        (("('e')", "('e', 'f')"), "the bounds of partition doc_e changed"),
        (("('w') TABLESPACE west", "('w') TABLESPACE east"), "partition doc_w changed its tablespace"),
        (("shard_count => 4", "shard_count => 6"), "hashed has 4 shards and the schema now asks for 6"),
        (("ON doc (title)", "ON doc (title DESC)"), "index doc_title exists with another definition"),
        (
            ("CREATE TABLE doc_w PARTITION OF doc FOR VALUES IN ('w') TABLESPACE west;", ""),
            "partition doc_w is in the herd",
        ),
        (("CHECK (id > 0), ", ""), "check 'check' is in the herd but no longer in the file"),
        (("('sad', 'glad')", "('glad', 'sad')"), "type public.mood exists with another definition"),
        (("('sad', 'glad')", "('glad')"), "type public.mood exists with another definition"),
        (("VALUE > 0", "VALUE > 1"), "domain public.positive exists with another definition"),
        (("SEQUENCE ticket", "SEQUENCE ticket START 5"), "sequence public.ticket exists with another definition"),
        (("PASSWORD 'one'", "PASSWORD 'two'"), "role reader exists with another definition"),
        (("SELECT create_reference_table('kind');", ""), "table kind: how it is distributed changed"),
        (("'hashed', 'id'", "'hashed', 'id', colocate_with => 'none'"), ""),
    ],
)
def test_what_cannot_be_done_in_place_is_refused(change: tuple[str, str], message: str) -> None:
    if not message:  # the same thing, said in more words
        assert plan_of(change).phases == ()
        return
    with pytest.raises(ChangeRefused) as e:
        plan_of(change)
    assert message in e.value.message
    assert e.value.hint
    assert "SCRAM" not in e.value.message


def test_a_primary_key_cannot_be_added_later() -> None:
    base = applied("CREATE TABLE t (id bigint NOT NULL)")
    with pytest.raises(ChangeRefused, match="a primary key was added"):
        plan_apply(base, dialect.parse("CREATE TABLE t (id bigint NOT NULL PRIMARY KEY)"), FLEET)


def test_rows_are_not_taken_out_of_the_default_partition() -> None:
    rest = "CREATE TABLE doc_rest PARTITION OF doc DEFAULT;"
    base = applied(BASE + rest)
    more = "CREATE TABLE doc_x PARTITION OF doc FOR VALUES IN ('x');"
    with pytest.raises(ChangeRefused, match="partition doc_x would take rows out of the DEFAULT partition"):
        plan_apply(base, dialect.parse(BASE + rest + more), FLEET)


def test_another_tablespace_of_a_table_is_refused() -> None:
    base = applied(SPACES + "CREATE TABLE t (id bigint PRIMARY KEY) TABLESPACE east;")
    with pytest.raises(ChangeRefused, match="its tablespace changed, so its rows would have to move"):
        plan_apply(base, dialect.parse(SPACES + "CREATE TABLE t (id bigint PRIMARY KEY) TABLESPACE west;"), FLEET)


def test_policies_on_a_local_table_would_hold_on_one_node_only() -> None:
    text = "CREATE TABLE t (id bigint PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
    with pytest.raises(BadSchema, match="row-level security on t: it is whole on one node"):
        plan_apply(HERD, dialect.parse(text), FLEET)
    assert plan_apply(a_herd("us-east"), dialect.parse(text), SINGLE).phases


def test_sequences_start_where_the_file_says_and_never_meet() -> None:
    plan = plan_apply(HERD, dialect.parse("CREATE SEQUENCE s MINVALUE 100; CREATE SEQUENCE t START 7;"), FLEET)
    assert [s.sql for s in plan.steps if s.kind == "interleave_ids"] == [
        f"ALTER SEQUENCE public.{name} INCREMENT BY 1024 START WITH {start} RESTART"
        for name, start in (("s", 100), ("s", 101), ("t", 7), ("t", 8))
    ]
