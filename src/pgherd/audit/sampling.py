"""Samples of pinned values, hashed where the rows are: a value never leaves its server, only its salted hash does.

Short values could be guessed from a hash, and are found anywhere by chance, so only longer ones are taken.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from ..model.schema import Strategy, TableKind
from ..model.topology import Topology
from ..rows.quoting import escaped, identifier
from .finding import Looked, NotLooked
from .limits import SAMPLE
from .looking import Reader, Session, said
from .pinned import Pinned
from .world import Row, Seen, World

LEAST_BYTES = 12
LONG_BYTES = 32
"""One value of so many bytes is proof on its own; of shorter ones it takes two."""
AS_TEXT = 200
"""Vectors that are also looked for written out as text."""
ROWS = 100_000
"""Of larger shards so many rows are hashed, of blocks from anywhere."""
HASH_BYTES = 16


def new_salt() -> bytes:
    """A fresh salt: hashes of two audits have nothing in common."""
    return secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class Sample:
    """Hashes of values of one column of a pinned shard. ``lengths``: hash to bytes of the value."""

    pinned: Pinned
    column: str
    lengths: dict[bytes, int] = field(default_factory=dict)

    def is_proof(self, found: Iterable[bytes]) -> bool:
        """Whether values with these hashes are not there by chance."""
        known = [self.lengths[h] for h in found]
        return len(known) > 1 or any(n >= LONG_BYTES for n in known)

    def is_proof_in_pieces(self, found: Iterable[bytes]) -> bool:
        """The same of values that are parts of longer texts, where single phrases are met by chance."""
        known = [self.lengths[h] for h in found]
        return len(known) > 2 or any(n >= LONG_BYTES for n in known)


def split(content: sql.Composable) -> sql.Composed:
    """Pieces of the bytes ``content`` that may be values, as ``x``: between quotes, brackets and the like; and all."""
    pieces = sql.SQL(
        "SELECT decode(w, 'escape') AS x FROM regexp_split_to_table(encode({content}, 'escape'), {between}) w"
    )
    marks = "[\n\r\t'\"()|]"
    one = pieces.format(content=content, between=sql.Literal(marks))
    other = pieces.format(content=content, between=sql.Literal(marks + "|, ?|="))
    return sql.SQL("{} UNION ALL {} UNION ALL SELECT {}").format(one, other, content)


def values(form: str, send: str | None, column: sql.Composable) -> sql.Composed:
    """A subquery over row ``t`` that gives the bytes of a column's values as ``x``."""
    parts = {
        "column": sql.SQL("t.{}").format(column),
        "send": sql.SQL(escaped(send or "textsend")),
        "split": split(sql.SQL("t2.c")),
        "marked": sql.Literal('[\n\t"|]|,[^ ]'),
    }
    texts = {
        "text": "SELECT convert_to({column}::text, 'UTF8') AS x",
        "bytes": "SELECT {column} AS x",
        "vector": "SELECT {send}({column}) AS x",
        "texts": "SELECT convert_to(e::text, 'UTF8') AS x FROM unnest({column}) e",
        "parts": "SELECT s.x FROM (SELECT convert_to({column}::text, 'UTF8') AS c WHERE {column}::text ~ {marked}) t2"
        " CROSS JOIN LATERAL ({split}) s",
        "said": "SELECT s.x FROM (SELECT convert_to({column}::text, 'UTF8') AS c) t2 CROSS JOIN LATERAL ({split}) s",
        "json": "SELECT convert_to(j #>> '{{}}', 'UTF8') AS x FROM jsonb_path_query({column}::jsonb, 'strict $.**') j"
        " WHERE jsonb_typeof(j) = 'string'",
    }
    return sql.SQL(texts[form]).format(**parts)


def hashed(x: str = "x") -> sql.Composed:
    """The hash of the bytes ``x``."""
    return sql.SQL("substr(sha256(%(salt)s::bytea || {}), 1, {})").format(sql.SQL(x), sql.Literal(HASH_BYTES))


def columns_of(topology: Topology, pinned: Pinned) -> frozenset[str]:
    """The columns that are looked for: not those whose values the bounds name, nor keys of reference tables."""
    table = pinned.table
    left_out = {c for level in pinned.shard.path if level.by.strategy is Strategy.LIST for c in level.by.columns}
    for fk in table.foreign_keys:
        other = topology.schema.table(fk.references)
        if other is not None and other.kind is TableKind.REFERENCE:
            left_out.update(fk.columns)
    return frozenset(c.name for c in table.columns if c.name not in left_out)


async def sample(
    world: World, reader: Reader, salt: bytes, wanted: int = SAMPLE
) -> tuple[list[Sample], list[Looked | NotLooked]]:
    """Hashes of values of every pinned shard, taken at its home."""
    found: list[Sample] = []
    told: list[Looked | NotLooked] = []

    async def at(seen: Seen, here: tuple[Pinned, ...]) -> None:
        try:
            async with reader.session(seen.node) as session:
                known = await _known(session, salt)
                for p in here:
                    await _shard(world.topology, session, seen, p, salt, wanted, known, found, told)
        except psycopg.Error as error:
            told.append(NotLooked("values of pinned rows", seen.name, seen.region, said(error)))

    homes = [(seen, world.at(str(seen.group.name))) for seen in world.primaries()]
    await asyncio.gather(*(at(seen, here) for seen, here in homes if here))
    return found, told


async def _shard(
    topology: Topology,
    session: Session,
    seen: Seen,
    p: Pinned,
    salt: bytes,
    wanted: int,
    known: frozenset[bytes],
    found: list[Sample],
    told: list[Looked | NotLooked],
) -> None:
    rows = [
        r for r in seen.databases[str(session.info.dbname)]["columns"] if (r["schema"], r["name"]) == p.shard.relation
    ]
    named = columns_of(topology, p)
    mine = [r for r in rows if r["column"] in named and r["form"] != "said"]  # of those the pieces may be names
    count = 0
    for row in mine:
        one = Sample(p, row["column"])
        try:
            hashes = await _hashes(session, row, p, salt, wanted, row["form"])
            if row["form"] == "vector":
                hashes |= await _hashes(session, row, p, salt, AS_TEXT, "text")
            one.lengths.update((h, n) for h, n in hashes.items() if h not in known)
        except psycopg.Error as error:
            if session.closed:
                raise
            told.append(NotLooked(f"values of {p.shard.name}.{row['column']}", seen.name, seen.region, said(error)))
        if one.lengths:
            found.append(one)
            count += len(one.lengths)
    if not mine:
        why = f"no column holds values of {LEAST_BYTES} bytes and more, which can be told apart"
        told.append(NotLooked(f"copies of {p.shard.name} by value", seen.name, seen.region, why))
        return
    of = ", ".join(r["column"] for r in mine)
    told.append(
        Looked("values to look for elsewhere (salted hashes)", seen.name, seen.region, f"{p.shard.name}: {of}", count)
    )


async def _hashes(session: Session, row: Row, p: Pinned, salt: bytes, wanted: int, form: str) -> dict[bytes, int]:
    query = sql.SQL(
        "SELECT DISTINCT {hash} AS h, octet_length(v.x) AS n FROM (SELECT * FROM {table}{sampled}{limit}) t"
        " CROSS JOIN LATERAL ({values}) v WHERE octet_length(v.x) >= {least} ORDER BY 1 LIMIT {wanted}"
    ).format(
        hash=hashed("v.x"),
        table=identifier(p.shard.relation),
        sampled=sampled(row["rows"], ROWS),
        limit=sql.SQL(" LIMIT {}").format(sql.Literal(wanted)) if form != row["form"] else sql.SQL(""),
        values=values(form, row["send"], identifier(row["column"])),
        least=sql.Literal(LEAST_BYTES),
        wanted=sql.Literal(wanted),
    )
    cursor = await session.execute(query, {"salt": salt})
    return {bytes(r["h"]): int(r["n"]) for r in await cursor.fetchall()}


async def _known(session: Session, salt: bytes) -> frozenset[bytes]:
    """Hashes of what every node names: roles, and all that the topology says. That is nobody's copy of a row."""
    query = sql.SQL(
        "SELECT DISTINCT {hash} AS h FROM (SELECT convert_to(rolname::text, 'UTF8') AS x FROM pg_roles"
        " UNION ALL SELECT piece.x FROM (SELECT DISTINCT v.x FROM pgherd.topology t CROSS JOIN LATERAL ({said}) v"
        " WHERE octet_length(v.x) >= {least}) v CROSS JOIN LATERAL ({pieces}) piece) named"
        " WHERE octet_length(x) >= {least}"
    ).format(
        hash=hashed(),
        said=values("json", None, sql.Identifier("document")),
        pieces=split(sql.SQL("v.x")),
        least=sql.Literal(LEAST_BYTES),
    )
    cursor = await session.execute(query, {"salt": salt})
    return frozenset(bytes(r["h"]) for r in await cursor.fetchall())


def sampled(rows: int, wanted: int) -> sql.Composable:
    """A TABLESAMPLE clause that leaves about ``wanted`` of ``rows``; nothing where that is all."""
    if rows <= wanted:
        return sql.SQL("")
    return sql.SQL(" TABLESAMPLE SYSTEM ({})").format(sql.Literal(round(100 * wanted / rows, 6)))
