"""Calibrations as they are kept in the herd: ``pgherd.calibration``, each on the home of its shard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from ..engines.base import Connection
from .curve import Curve

STALE_SHARE = 0.2
"""When so much of the rows has changed, recall is measured again."""
Key = tuple[str, str, str, str]
"""Relation as SQL, column, metric, type of the index's entries."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of one shard's index on ``column``, when, with how many questions, over how many rows.

    ``definition`` is the index as PostgreSQL prints it; ``changes_at`` counts the row changes its table had seen.
    ``given``: the questions were somebody's own, not made of rows. ``recent``: it was measured within a minute.
    """

    relation: str
    column: str
    metric: str
    stored: str
    curve: Curve
    definition: str
    sample: int
    rows_at: int
    changes_at: int
    given: bool = False
    calibrated_at: datetime | None = None
    recent: bool = True

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.relation, self.column, self.metric, self.stored

    def is_stale(self, changes: int, definition: str, share: float = STALE_SHARE) -> bool:
        """Whether the index is another one now, or more than ``share`` of the rows have changed since.

        ``changes`` are as the statistics have them now. Those come seconds after the rows: so soon after measuring,
        less than was counted then says nothing. Later it says that they began anew, as after a crash.
        """
        since = changes - self.changes_at
        if since < 0:
            since = 0 if self.recent else changes
        return definition != self.definition or since > share * max(self.rows_at, 1)


_EXISTS = (
    "SELECT EXISTS (SELECT FROM pg_attribute"
    " WHERE attrelid = to_regclass('pgherd.calibration') AND attname = 'stored' AND NOT attisdropped)"
)
_READ = (
    "SELECT relation, column_name, metric, stored, document, rows_at, changes_at, calibrated_at,"
    " calibrated_at > now() - interval '1 minute'"
    " FROM pgherd.calibration ORDER BY relation, column_name, metric, stored"
)
_WRITE = (
    "INSERT INTO pgherd.calibration (relation, column_name, metric, stored, document, rows_at, changes_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (relation, column_name, metric, stored) DO UPDATE"
    " SET document = excluded.document, rows_at = excluded.rows_at, changes_at = excluded.changes_at,"
    " calibrated_at = now()"
)


async def read_calibrations(connection: Any) -> list[Calibration]:
    """All calibrations of a server, over a connection of either kind; none in a herd of an older version."""
    if not (await _rows(connection, _EXISTS))[0][0]:
        return []
    return [
        Calibration(
            relation,
            column,
            metric,
            stored,
            Curve.from_json(document["curve"]),
            document["definition"],
            document["sample"],
            rows,
            changes,
            document.get("given", False),
            when,
            recent,
        )
        for relation, column, metric, stored, document, rows, changes, when, recent in await _rows(connection, _READ)
    ]


async def _rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    done = connection.execute(query)
    if hasattr(done, "fetchall"):
        return list(done.fetchall())
    return list(await (await done).fetchall())


async def write_calibration(connection: Connection, found: Calibration) -> None:
    """Keep a calibration in the place of the one before."""
    document = {
        "curve": found.curve.as_json(), "definition": found.definition, "sample": found.sample, "given": found.given
    }  # fmt: skip
    values = [*found.key, Jsonb(document), found.rows_at, found.changes_at]
    await connection.execute(_WRITE, values)
