"""Looking for samples of pinned values where they may not be: tables, views, definitions, statistics, files.

Servers hash what they hold and compare; what comes back is which hashes were met, and where.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import psycopg
from psycopg import sql

from ..availability.logs import before
from ..local.herd import log_of
from ..model.names import Name, quote_literal
from ..rows.quoting import escaped, identifier
from .finding import Looked, NotLooked
from .looking import Reader, Session, said, script
from .sampling import LEAST_BYTES, Sample, hashed, sampled, split, values
from .world import Match, Row, Seen, World

WHOLE_BYTES = 512 << 20
"""Tables up to this size are read as a whole; of larger ones as much, of blocks from anywhere."""
FILE_BYTES = 16 << 20
"""So much of the end of a log file, and of the beginning of a large object."""
FILES = 20
STRAYS = 100
"""Files that belong to nobody are searched up to so many."""


def _array(hashes: Iterable[bytes]) -> str:
    """An array of bytea as PostgreSQL reads it; written once, since it goes with every question."""
    return "{" + ",".join(f'"\\\\x{h.hex()}"' for h in hashes) + "}"


class _Met(NamedTuple):
    """Hashes that were met in a place; ``pieces`` are those of them that are parts of longer texts there only."""

    seen: Seen
    dbname: str
    place: str
    kind: str
    hashes: set[bytes]
    pieces: frozenset[bytes] = frozenset()


class Search:
    """One search of the whole herd, until ``deadline`` (of time.monotonic())."""

    def __init__(self, world: World, reader: Reader, salt: bytes, samples: Sequence[Sample], deadline: float) -> None:
        self._world, self._reader, self._salt, self._samples = world, reader, salt, samples
        self._deadline = deadline
        self.told: list[Looked | NotLooked] = []
        self._met: list[_Met] = []
        self._own: dict[str, set[bytes]] = defaultdict(set)
        """by region: what its own rows hold as well, and so proves nothing there"""

    async def node(self, seen: Seen) -> None:
        """Search one node: each database of a primary, and the log files of any."""
        kept = {h for s in self._samples if not s.pinned.allows(seen.node.label) for h in s.lengths}
        for dbname, facts in seen.databases.items():
            if not kept or "all" in facts.failed:
                continue
            try:
                async with self._reader.session(seen.node, dbname) as session:
                    await self._tables(session, seen, dbname, facts["columns"], _array(kept))
                    await self._large_objects(session, seen, dbname, _array(kept))
                    await self._texts(session, seen, dbname, "definitions", "definition", _array(kept))
                    await self._texts(session, seen, dbname, "kept_statistics", "statistics", _array(kept))
            except psycopg.Error as error:
                self._missed(f"values in database {dbname}", seen, said(error))
        every = _array(h for s in self._samples for h in s.lengths)
        if self._samples:
            try:
                async with self._reader.session(seen.node) as session:
                    await self._logs(session, seen, every)
                    strays = [
                        r
                        for f in (seen.facts["stray_files"], *(d["orphans"] for d in seen.databases.values()))
                        for r in f
                    ]
                    await self._files(session, seen, [r["path"] for r in strays][:STRAYS], "stray_file", every)
            except psycopg.Error as error:
                self._missed("log files", seen, said(error))

    def _missed(self, what: str, seen: Seen, why: str) -> None:
        self.told.append(NotLooked(what, seen.name, seen.region, why))

    async def _limit(self, session: Session) -> bool:
        left_s = self._deadline - time.monotonic()
        await session.execute("SELECT set_config('statement_timeout', %s, false)", [f"{max(1, int(left_s * 1000))}ms"])
        return left_s > 0

    async def _tables(self, session: Session, seen: Seen, dbname: str, columns: list[Row], kept: str) -> None:
        count = 0
        for _, group in groupby(columns, key=lambda r: r["oid"]):
            rows = list(group)
            name = Name(rows[0]["schema"], rows[0]["name"])
            what = f"table {name} in database {dbname}"
            if rows[0]["persistence"] == "t":
                self._missed(what, seen, "it is a temporary table of another session")
                continue
            try:
                if not await self._limit(session):
                    self._missed(what, seen, "the time for looking at values was up (--budget-s)")
                    continue
                met = await self._table(session, rows, name, kept) if rows[0]["heap"] else {}
            except psycopg.errors.QueryCanceled:
                self._missed(what, seen, "the time for looking at values was up (--budget-s)")
                continue
            except psycopg.Error as error:
                if session.closed:
                    raise
                self._missed(what, seen, said(error))
                continue
            count += 1
            if rows[0]["bytes"] > WHOLE_BYTES:
                share = WHOLE_BYTES / rows[0]["bytes"]
                self._missed(what, seen, f"it is large: {share:.1%} of it was read")
            for column, (whole, pieces) in met.items():
                if self._is_home(seen, dbname, name):
                    self._own[seen.region] |= whole | pieces
                else:
                    kind = self._kind(name, rows[0]["kind"], dbname)
                    only = frozenset(pieces - whole)
                    self._met.append(_Met(seen, dbname, f"{name}.{column}", kind, whole | pieces, only))
        self.told.append(
            Looked(
                "tables and materialized views searched for pinned values",
                seen.name,
                seen.region,
                f"database {dbname}",
                count,
            )
        )

    def _is_home(self, seen: Seen, dbname: str, name: Name) -> bool:
        """Whether rows of this very region live there by right."""
        here = self._world.at(str(seen.group.name)) if dbname == self._world.dbname else ()
        return any(p.shard.relation == name and p.allows(seen.node.label) for p in here)

    def _kind(self, name: Name, kind: str, dbname: str) -> str:
        if kind == "m":
            return "materialized_view"
        table = self._world.topology.schema.table(name) if dbname == self._world.dbname else None
        if name == Name("pgherd", "access_log"):
            return "access_log"
        return "reference_copy" if table is not None and table.kind.value == "reference" else "table_copy"

    async def _table(
        self, session: Session, rows: list[Row], name: Name, kept: str
    ) -> dict[str, tuple[set[bytes], set[bytes]]]:
        """By column, what was met as whole values and what as pieces of longer texts."""
        forms = [(r, r["form"]) for r in rows] + [(r, "parts") for r in rows if r["form"] == "text"]
        every = [
            sql.SQL(
                "SELECT {name} AS c, {whole} AS whole, x FROM ({values}) v WHERE octet_length(x) >= {least}"
            ).format(
                name=sql.SQL(escaped(quote_literal(r["column"]))),
                whole=sql.Literal(form != "parts"),
                values=values(form, r["send"], identifier(r["column"])),
                least=sql.Literal(LEAST_BYTES),
            )
            for r, form in forms
        ]
        share = WHOLE_BYTES / max(1, rows[0]["bytes"])
        query = sql.SQL(
            "SELECT c, whole, array_agg(DISTINCT h) AS hashes FROM (SELECT u.c, u.whole, {hash} AS h FROM {table} t"
            "{sampled} CROSS JOIN LATERAL ({every}) u) met WHERE h = ANY (%(kept)s::bytea[]) GROUP BY 1, 2"
        ).format(
            hash=hashed("u.x"),
            table=identifier(name),
            sampled=sampled(1_000_000, round(1_000_000 * min(1.0, share))),
            every=sql.SQL(" UNION ALL ").join(every),
        )
        cursor = await session.execute(query, {"salt": self._salt, "kept": kept})
        met: dict[str, tuple[set[bytes], set[bytes]]] = defaultdict(lambda: (set(), set()))
        for r in await cursor.fetchall():
            met[r["c"]][not r["whole"]].update(map(bytes, r["hashes"]))
        return met

    async def _large_objects(self, session: Session, seen: Seen, dbname: str, kept: str) -> None:
        what = f"large objects in database {dbname}"
        content = sql.SQL("lo_get(m.oid, 0, {})").format(sql.Literal(FILE_BYTES))
        query = sql.SQL(
            "SELECT m.oid::text AS name, array_agg(DISTINCT h) FILTER (WHERE h = ANY (%(kept)s::bytea[])) AS hashes"
            " FROM pg_largeobject_metadata m CROSS JOIN LATERAL (SELECT {hash} AS h FROM ({tokens}) v"
            " WHERE octet_length(x) >= {least}) met GROUP BY 1"
        ).format(hash=hashed(), tokens=split(content), least=sql.Literal(LEAST_BYTES))
        found = await self._rows(session, seen, what, query, kept)
        if found is None:
            return
        self.told.append(Looked("large objects", seen.name, seen.region, f"database {dbname}", len(found)))
        for row in found:
            if row["hashes"]:
                place = f"large object {row['name']}"
                self._met.append(_Met(seen, dbname, place, "large_object", set(map(bytes, row["hashes"]))))

    async def _rows(self, session: Session, seen: Seen, what: str, query: sql.Composed, kept: str) -> list[Row] | None:
        """What a query gives in the time that is left; None, once it has been told why, if that is nothing."""
        try:
            if not await self._limit(session):
                raise psycopg.errors.QueryCanceled
            return await (await session.execute(query, {"salt": self._salt, "kept": kept})).fetchall()
        except psycopg.errors.QueryCanceled:
            self._missed(what, seen, "the time for looking at values was up (--budget-s)")
        except psycopg.Error as error:
            if session.closed:
                raise
            self._missed(what, seen, said(error))
        return None

    async def _texts(self, session: Session, seen: Seen, dbname: str, name: str, kind: str, kept: str) -> None:
        """Texts that a script gives with their places: values in them, or the texts themselves if those are values."""
        what = f"values in {name.replace('_', ' ')} of database {dbname}"
        content = sql.SQL("convert_to(d.said, 'UTF8')")
        query = sql.SQL(
            "WITH d AS ({texts}) SELECT place, array_agg(DISTINCT h) FILTER (WHERE h = ANY (%(kept)s::bytea[]))"
            " AS hashes FROM d CROSS JOIN LATERAL (SELECT {hash} AS h FROM ({tokens}) v WHERE"
            " octet_length(x) >= {least} OFFSET 0) met WHERE octet_length(said) >= {least} GROUP BY 1"
        ).format(
            texts=sql.SQL(escaped(script(name))),
            hash=hashed(),
            tokens=split(content) if kind == "definition" else sql.SQL("SELECT {} AS x").format(content),
            least=sql.Literal(LEAST_BYTES),
        )
        found = await self._rows(session, seen, what, query, kept)
        if found is None:
            return
        self.told.append(
            Looked(what.partition(" of database")[0], seen.name, seen.region, f"database {dbname}", len(found))
        )
        for row in found:
            if row["hashes"]:
                self._met.append(_Met(seen, dbname, row["place"], kind, set(map(bytes, row["hashes"]))))

    async def _logs(self, session: Session, seen: Seen, every: str) -> None:
        paths = []
        try:
            found = await session.execute(
                "SELECT current_setting('log_directory') || '/' || name AS path FROM pg_ls_logdir()"
                " ORDER BY modification DESC LIMIT %s",
                [FILES],
            )
            paths = [r["path"] for r in await found.fetchall()]
        except psycopg.Error as error:
            if session.closed:
                raise
            if error.sqlstate not in ("58P01", "42501"):  # there is no such directory: the collector is off
                self._missed("the directory of log files", seen, said(error))
            elif error.sqlstate == "42501":
                self._missed("log files", seen, said(error))
                return
        if seen.data_directory is not None:
            log = log_of(seen.data_directory)
            paths += [str(log), *(str(p) for p in [before(log)] if p.exists())]
        elif seen.setting("logging_collector") == "off":
            self._missed("the server's log", seen, "it goes to the server's standard error, wherever that leads")
        await self._files(session, seen, paths, "log_values", every)

    async def _files(self, session: Session, seen: Seen, paths: Sequence[str], kind: str, every: str) -> None:
        noun, count = "log file" if kind == "log_values" else "file", 0
        for path in paths:
            try:
                if await self._file(session, seen, path, kind, f"{noun} {path}", every):
                    count += 1
                else:
                    self._missed(f"{noun} {path}", seen, "it is not there")
            except psycopg.Error as error:
                if session.closed:
                    raise
                self._missed(f"{noun} {path}", seen, said(error))
        if paths or kind == "log_values":
            self.told.append(Looked(f"{noun}s searched for pinned values", seen.name, seen.region, count=count))

    async def _file(self, session: Session, seen: Seen, path: str, kind: str, place: str, every: str) -> bool:
        if not await self._limit(session):
            raise psycopg.errors.QueryCanceled("the time for looking at values was up (--budget-s)")
        content = sql.SQL("f.content")
        query = sql.SQL(
            "WITH f AS MATERIALIZED (SELECT pg_read_binary_file(%(path)s, greatest(0, s.size - {size}), {size})"
            " AS content FROM pg_stat_file(%(path)s, true) s WHERE s.size IS NOT NULL)"
            " SELECT count(DISTINCT f.content) AS files,"
            " array_agg(DISTINCT h) FILTER (WHERE h = ANY (%(kept)s::bytea[])) AS hashes FROM f CROSS JOIN LATERAL"
            " (SELECT {hash} AS h FROM ({tokens}) v WHERE octet_length(x) >= {least} OFFSET 0) met"
        ).format(
            size=sql.Literal(FILE_BYTES),
            hash=hashed(),
            tokens=split(content),
            least=sql.Literal(LEAST_BYTES),
        )
        cursor = await session.execute(query, {"salt": self._salt, "kept": every, "path": path})
        row = await cursor.fetchone()
        if row and row["hashes"]:
            self._met.append(_Met(seen, "", place, kind, set(map(bytes, row["hashes"]))))
        return bool(row and row["files"])

    def matches(self) -> Iterator[Match]:
        """What was met where it may not be; values that a region's own rows hold too are left out there."""
        for seen, dbname, place, kind, hashes, pieces in self._met:
            logged = kind == "log_values"
            left = hashes if logged else hashes - self._own[seen.region]
            samples = [s for s in self._samples if logged or not s.pinned.allows(seen.node.label)]
            # A value that several shards have is counted for the one that most of the others are of.
            for s in sorted(samples, key=lambda s: len(s.lengths.keys() & left), reverse=True):
                found = s.lengths.keys() & left
                left = left - found
                proof = s.is_proof(found - pieces) or s.is_proof_in_pieces(found & pieces)
                if proof or found - pieces:  # a phrase or two of a longer text is chance
                    at = (seen.name, seen.region, dbname, place, kind)
                    yield Match(s.pinned, s.column, *at, len(found), proof, len(s.lengths))

    def shared(self) -> Iterator[Looked]:
        """How many values of the samples prove nothing in a region."""
        for region, hashes in self._own.items():
            yield Looked(
                "values that a region holds by right too: they prove nothing",
                None,
                region,
                count=len(hashes),
            )
