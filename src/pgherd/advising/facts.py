"""What was measured of a database: plain data, no row's values among it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ..model.schema import VectorType
from ..model.vectors import Metric


@dataclass(frozen=True, slots=True)
class Probe:
    """What searches cost as the server is configured, by questions made of the table's rows.

    Times and blocks are the server's own (EXPLAIN ANALYZE). ``recall`` of the 10 nearest, None where it was not
    measured; ``recall_by`` says how, or why not.
    """

    questions: int
    p50_ms: float
    p95_ms: float
    blocks_hit: float
    blocks_read: float
    index: str | None
    recall: float | None = None
    recall_error: float | None = None
    recall_by: str = ""


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """pgvector's index on a column, or those of a partitioned table's leaves together.

    ``kind`` and ``dim`` of what it holds; ``names`` of all parts.
    """

    name: str
    names: tuple[str, ...]
    method: str
    metric: Metric | None
    kind: VectorType
    dim: int | None
    parameters: dict[str, str]
    expression: bool
    partial: bool
    valid: bool
    bytes: int
    scans: int
    hit: int
    read: int


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """A column of vectors with its table; bytes are of the whole table, rows as its statistics or a count have them."""

    table: str
    column: str
    relation: tuple[str, str]
    oid: int
    kind: VectorType
    dim: int | None
    type: str
    parts: int
    foreign_parts: int
    rows: int
    heap_bytes: int
    toast_bytes: int
    indexes_bytes: int
    other_width: int | None
    dead: int
    inserted: int
    deleted: int
    heap_hit: int
    heap_read: int
    toast_hit: int
    toast_read: int
    nullable: bool = True
    indexes: tuple[VectorIndex, ...] = ()
    probe: Probe | None = None

    @property
    def name(self) -> str:
        """``table.column``."""
        return f"{self.table}.{self.column}"

    @property
    def index(self) -> VectorIndex | None:
        """The index that searches use: the one seen in their plan, else the first valid one of all rows."""
        usable = [i for i in self.indexes if i.valid and not i.partial]
        seen = [i for i in usable if self.probe and self.probe.index in i.names]
        return next(iter(seen or usable), None)


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a table grows and is searched, per day and per second, and how far that is to be trusted."""

    rows_a_day: float | None
    searches_a_s: float | None
    source: str
    weakness: str


@dataclass(frozen=True, slots=True)
class Server:
    """The server; None where this user may not see it. Bytes, but for ``cores`` and ``max_connections``."""

    version: str
    pgvector: str
    shared_buffers: int | None
    effective_cache_size: int | None
    memory: int | None
    cores: int | None
    disk: int | None
    disk_taken: int
    database_bytes: int
    max_connections: int
    standby: bool
    measured_at: datetime
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Survey:
    """All of it; ``rates`` by column name; ``unseen``: what could not be looked at, and why."""

    server: Server
    columns: tuple[VectorColumn, ...]
    rates: dict[str, Rates]
    search_ms: float | None = None
    unseen: tuple[str, ...] = field(default=())
