"""Random herds and schemas for the tests of planning."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from pgherd.model.names import Name
from pgherd.model.placement import Label, PlacementBlock, Tablespace
from pgherd.model.schema import (
    Check,
    Column,
    Embedding,
    HashBound,
    Index,
    Item,
    Key,
    ListBound,
    ObjectKind,
    Partition,
    PartitionBy,
    Schema,
    SqlObject,
    Strategy,
    Table,
    TableKind,
)
from pgherd.model.topology import EngineName, Group, GroupId, Node, NodeId, Topology
from pgherd.planning.plan import Traits

FLEET = Traits(keys_on_parent=False, enforces_placement=True)
SINGLE = Traits(keys_on_parent=True, enforces_placement=False)

REGIONS = ("us-east", "us-central", "us-west", "eu")
COLUMNS = (Column("id", "bigint", not_null=True), Column("region", "text", not_null=True), Column("v", "vector(3)"))
EXTRA = (
    Column("body", "text"),
    Column("made", "timestamp with time zone", default="now()"),
    Column("tags", "text[]", not_null=True, default="'{}'"),
    Column("Größe", "numeric(10, 2)", collation=None),
)


def a_herd(*regions: str) -> Topology:
    """An empty herd with one server a region."""
    groups = tuple(
        Group(GroupId(f"g{i}"), i, (Node(NodeId(f"g{i}"), "127.0.0.1", 5432 + i, Label("local", r, "a")),))
        for i, r in enumerate(regions, 1)
    )
    return Topology(1, EngineName.FLEET if len(groups) > 1 else EngineName.SINGLE, groups)


def pinned(region: str) -> Tablespace:
    """The tablespace ``in_<region>``."""
    return Tablespace(f"in_{region}", 1, (PlacementBlock("local", region, "*", 1),))


herds = st.lists(st.sampled_from(REGIONS), min_size=1, max_size=5).map(lambda regions: a_herd(*regions))


@st.composite
def tables(draw: st.DrawFn, name: str, spaces: tuple[str, ...]) -> Table:
    """A table of any kind, in or above the given tablespaces."""
    kind = draw(st.sampled_from(TableKind))
    columns = (*COLUMNS, *draw(st.lists(st.sampled_from(EXTRA), unique=True)))
    space = st.none() | st.sampled_from(spaces)
    own = Name(draw(st.sampled_from(("public", "Other schema"))), name)
    keys = (Key(("id", "region"), primary=True), *draw(st.sampled_from(((), (Key(("region", "id"), name="again"),)))))
    embeddings = (Embedding("v", "body", "wordllama"),) if columns[-1].name == "body" else ()
    plain = Table(own, columns, kind, keys, checks=(Check("id > 0"),), embeddings=embeddings)
    match kind:
        case TableKind.REFERENCE:
            return plain
        case TableKind.LOCAL:
            return replace(plain, tablespace=draw(space))
    hashed = PartitionBy(Strategy.HASH, ("id",))
    if draw(st.booleans()):
        return replace(plain, by=hashed, shard_count=draw(st.integers(0, 12)), tablespace=draw(space))
    parts = []
    for i, value in enumerate(draw(st.lists(st.sampled_from(("a", "b", None, "it's")), min_size=1, unique=True))):
        part = Partition(Name(own.schema, f"{name}_p{i}"), ListBound((value,)), draw(space))
        if draw(st.booleans()):
            part = Partition(part.name, part.bound, part.tablespace, hashed, shard_count=draw(st.integers(0, 3)))
        elif draw(st.booleans()):
            halves = tuple(
                Partition(Name(own.schema, f"{name}_p{i}_{r}"), HashBound(2, r), draw(space)) for r in (0, 1)
            )
            part = Partition(part.name, part.bound, part.tablespace, hashed, halves)
        parts.append(part)
    if draw(st.booleans()):
        parts.append(Partition(Name(own.schema, f"{name}_rest"), ListBound(default=True), draw(space)))
    by = PartitionBy(Strategy.LIST, ("region",))
    return replace(plain, by=by, partitions=tuple(parts), tablespace=draw(space))


@st.composite
def schemas(draw: st.DrawFn, herd: Topology) -> Schema:
    """A schema whose tablespaces this herd can serve."""
    regions = sorted({n.label.region for n in herd.nodes})
    spaces = tuple(pinned(r) for r in regions)
    items: list[Item] = [
        SqlObject(ObjectKind.ENUM, "public.mood", "CREATE TYPE public.mood AS ENUM ('sad')", values=("sad",))
    ]
    for i in range(draw(st.integers(1, 4))):
        table = draw(tables(f"t{i}", tuple(s.name for s in spaces)))
        items.append(table)
        for unique in draw(st.lists(st.booleans(), max_size=2)):
            columns = ("id", "region") if unique else ("v",)
            name = Name(table.name.schema, f"t{i}_{'u' if unique else 'h'}{len(items)}")
            method, elements = ("btree", columns) if unique else ("hnsw", ("v vector_l2_ops",))
            items.append(Index(name, table.name, method, elements, columns, unique, opclass=None))
    if draw(st.booleans()):
        sql = "CREATE ROLE reader LOGIN PASSWORD 'SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy'"
        items.append(SqlObject(ObjectKind.ROLE, "reader", sql, secret=True))
    return Schema(spaces, tuple(items))


@st.composite
def herds_with_schemas(draw: st.DrawFn) -> tuple[Topology, Schema, Traits]:
    """A herd, a schema it can hold, and an engine's traits that fit."""
    herd = draw(herds)
    traits = FLEET if len(herd.groups) > 1 else draw(st.sampled_from((FLEET, SINGLE)))
    return herd, draw(schemas(herd)), traits


@st.composite
def grown(draw: st.DrawFn) -> tuple[Topology, Schema, Schema, Traits]:
    """As :func:`herds_with_schemas`, with a second schema that has more tables and indexes."""
    herd, schema, traits = draw(herds_with_schemas())
    spaces = tuple(s.name for s in schema.tablespaces)
    more: list[Item] = [draw(tables(f"n{i}", spaces)) for i in range(draw(st.integers(0, 2)))]
    for table in schema.tables:
        if draw(st.booleans()):
            name = Name(table.name.schema, f"{table.name.name}_late")
            more.append(Index(name, table.name, "btree", ("region",), ("region",)))
    return herd, schema, Schema(schema.tablespaces, (*schema.items, *more)), traits
