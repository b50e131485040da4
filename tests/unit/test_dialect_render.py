"""What render writes, parse reads back: for any schema."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgherd.dialect import parse, render
from pgherd.model.names import Name
from pgherd.model.placement import PlacementBlock, ReadReplicas, Tablespace
from pgherd.model.schema import (
    Bound,
    Check,
    Column,
    Embedding,
    ForeignKey,
    HashBound,
    Index,
    Item,
    Key,
    ListBound,
    Partition,
    PartitionBy,
    Schema,
    Strategy,
    Table,
    TableKind,
)

IDENTIFIERS = st.one_of(
    st.sampled_from(
        ["id", "user", "select", "hash", "asc", "Split", 'a"b', "a.b", "é", "tablets", "x y", "'", "check"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"]), min_size=1, max_size=12),
)
TEXTS = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF, exclude_categories=["Cs"]), max_size=10)
TYPES = st.sampled_from(
    ["bigint", "integer", "text", "character varying(20)", "boolean", "uuid", "timestamp(3) with time zone", "jsonb",
     "numeric(10,2)", "text[]", "double precision", "interval day to second(2)", '"char"',
     "bit varying(8)", '"My"."T y"']
)  # fmt: skip
ORDERS = st.sampled_from(["", " DESC", " NULLS FIRST", ' COLLATE "C"'])
DEFAULTS = {"bigint": "1 + 2", "text": "'it''s'", "boolean": "(TRUE AND FALSE)", "uuid": "gen_random_uuid()"}


def _names(draw: st.DrawFn, count: int) -> list[str]:
    free = IDENTIFIERS.filter(lambda n: n not in ("v", "k0", "k1", "k2"))
    return draw(st.lists(free, min_size=count, max_size=count, unique=True))


@st.composite
def blocks(draw: st.DrawFn, *, live: bool) -> tuple[PlacementBlock, ...]:
    places = draw(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=3, unique=True))
    ranks = sorted(draw(st.lists(st.integers(1, 2), min_size=len(places), max_size=len(places))))
    ranks = [r - ranks[0] + 1 for r in ranks]
    ranked = live and draw(st.booleans())
    found = []
    for (cloud, region, zone), rank in zip(places, ranks, strict=True):
        any_zone = draw(st.booleans())
        named = PlacementBlock("c" + cloud, "r" + region, "*" if any_zone else "z" + zone, draw(st.integers(1, 3)))
        found.append(replace(named, leader_preference=rank if ranked else None))
    return tuple({str(b): b for b in found}.values()) if not ranked else tuple(found)


@st.composite
def tablespaces(draw: st.DrawFn, name: str) -> Tablespace:
    live = draw(blocks(live=True).filter(lambda b: len({str(x) for x in b}) == len(b)))
    read = draw(st.none() | blocks(live=False))
    readers = read and ReadReplicas(sum(b.min_num_replicas for b in read), read, draw(st.none() | st.just("u-u")))
    space = Tablespace(name, sum(b.min_num_replicas for b in live) + draw(st.integers(0, 2)), live, readers)
    if space.regions is None or readers or not draw(st.booleans()):
        return space
    return replace(space, strict=True, granted=draw(st.sampled_from(((), ("us-east",), ("eu", "us-west")))))


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    type_ = draw(TYPES)
    made = Column(name, type_, draw(st.booleans()))
    if type_ in DEFAULTS and draw(st.booleans()):
        return replace(made, default=DEFAULTS[type_])
    if type_ == "bigint" and draw(st.booleans()):
        return replace(made, identity=draw(st.sampled_from("ad")), not_null=True)
    if type_ == "text":
        return replace(made, collation=draw(st.sampled_from([None, '"C"'])))
    return made


@st.composite
def partitions(
    draw: st.DrawFn, prefix: str, by: PartitionBy, below: list[str], spaces: list[str]
) -> tuple[Partition, ...]:
    """Partitions of one level; ``below`` are the columns that deeper levels may use, all of them text."""
    if by.strategy is Strategy.HASH:
        modulus = draw(st.integers(1, 3))
        bounds: list[Bound] = [HashBound(modulus, r) for r in range(modulus)]
    else:
        values = draw(st.lists(TEXTS | st.none(), min_size=1, max_size=4, unique=True))
        cut = draw(st.integers(1, len(values)))
        bounds = [ListBound(tuple(part)) for part in (values[:cut], values[cut:]) if part]
        bounds += [ListBound(default=True)] if draw(st.booleans()) else []
    found = []
    for n, bound in enumerate(bounds):
        part = Partition(Name("public", f"{prefix}_{n}"), bound, draw(st.none() | st.sampled_from(spaces or [None])))
        if below and draw(st.booleans()):
            inner = PartitionBy(draw(st.sampled_from(Strategy)), (below[0],))
            part = replace(part, by=inner)
            if inner.strategy is Strategy.HASH and draw(st.booleans()):
                part = replace(part, shard_count=draw(st.integers(0, 9)))
            else:
                part = replace(part, partitions=draw(partitions(part.name.name, inner, below[1:], spaces)))
        found.append(part)
    return tuple(found)


@st.composite
def tables(draw: st.DrawFn, number: int, spaces: list[str], references: list[Table]) -> Table:
    name = Name(draw(st.sampled_from(["public", "My app"])), f"t{number} {draw(IDENTIFIERS)}".strip())
    plain = [draw(columns(n)) for n in _names(draw, draw(st.integers(1, 3)))]
    keyed = [Column(f"k{n}", "text", True) for n in range(draw(st.integers(1, 3)))]
    vector = Column("v", draw(st.sampled_from(["vector(3)", "halfvec(8)", "vector"])))
    table = Table(name, (*plain, *keyed, vector), tablespace=draw(st.none() | st.sampled_from(spaces or [None])))
    names = tuple(c.name for c in keyed)
    table = replace(table, keys=(Key(names, primary=True, name=draw(st.none() | st.just("My key"))),))
    kind = draw(st.sampled_from(TableKind))
    table = replace(table, kind=kind)
    if kind is TableKind.REFERENCE:
        table = replace(table, tablespace=None)
    elif kind is TableKind.DISTRIBUTED:
        by = PartitionBy(draw(st.sampled_from(Strategy)), names[:1])
        if by.strategy is Strategy.HASH and draw(st.booleans()):
            table = replace(table, by=by, shard_count=draw(st.integers(0, 64_000)))
        else:
            parts = draw(partitions(f"p{number}", by, list(names[1:]), spaces))
            table = replace(table, by=by, partitions=parts)
    if draw(st.booleans()):
        table = replace(table, checks=(Check("k0 <> 'x'", draw(st.none() | st.just("C"))),))
    if references and kind is not TableKind.REFERENCE and draw(st.booleans()):
        to = draw(st.sampled_from(references))
        tail = draw(
            st.sampled_from(["", "ON DELETE CASCADE", "MATCH FULL ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED"])
        )
        if len(to.primary_key) <= len(names):
            fk = ForeignKey(names[: len(to.primary_key)], to.name, to.primary_key, None, tail)
            table = replace(table, foreign_keys=(fk,))
    if draw(st.booleans()):
        table = replace(table, embeddings=(Embedding("v", "k0", draw(st.sampled_from(["wordllama", "my model's"]))),))
    return replace(table, row_security=draw(st.booleans()), force_row_security=draw(st.booleans()))


@st.composite
def indexes(draw: st.DrawFn, number: int, table: Table) -> Index:
    name = Name(table.name.schema, f"i{number} {draw(IDENTIFIERS)}".strip())
    shape = draw(st.sampled_from(["plain", "expression", "vector"]))
    keys = table.primary_key
    if shape == "vector" and table.columns[-1].type != "vector":
        opclass = table.columns[-1].type.partition("(")[0] + "_cosine_ops"
        return Index(name, table.name, "hnsw", (f"v {opclass}",), ("v",), options=(("m", "16"),), opclass=opclass)
    if shape == "expression":
        return Index(name, table.name, "btree", ("lower(k0) DESC", "(k0 || 'x')"), (), where="k0 IS NOT NULL")
    elements = tuple(k + draw(ORDERS) for k in keys)
    return Index(
        name, table.name, "btree", elements, keys, draw(st.booleans()), include=("v",) if draw(st.booleans()) else ()
    )


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    spaces = [draw(tablespaces(n)) for n in _names(draw, draw(st.integers(0, 2)))]
    items: list[Item] = []
    for n in range(draw(st.integers(1, 3))):
        references = [i for i in items if isinstance(i, Table) and i.kind is TableKind.REFERENCE]
        table = draw(tables(n, [s.name for s in spaces], references))
        items.append(table)
        items += [draw(indexes(10 * n + m, table)) for m in range(draw(st.integers(0, 2)))]
    return Schema(tuple(spaces), tuple(items))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None, max_examples=80)
@given(schemas())
def test_parse_reads_what_render_writes(schema: Schema) -> None:
    text = render(schema)
    assert parse(text) == schema


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None, max_examples=20)
@given(schemas())
def test_render_is_stable(schema: Schema) -> None:
    assert render(parse(render(schema))) == render(schema)
