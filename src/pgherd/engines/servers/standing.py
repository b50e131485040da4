"""How the nodes of a group stand right now: who is up, who is primary, how far behind the others are.

Asked of every node itself, at the same time; lag is a difference of positions in the log, not of clocks.
Source: PostgreSQL 18 manual, 27.2.4 "pg_stat_replication", 9.28 "System Administration Functions".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from ...model.topology import Group, Node, Role
from ..base import Connection
from .whereabouts import Whereabouts, in_recovery

ANSWER_TIMEOUT_S = 2.0
"""How long a node may take to answer before it counts as down."""

_OWN = """
SELECT (CASE WHEN pg_is_in_recovery()
            THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_lsn() END - '0/0')::bigint AS lsn,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint
            AS replayed,
       CASE WHEN pg_is_in_recovery()
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END AS timeline,
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS age_s
"""
_STANDBYS = """
SELECT application_name AS name, sync_state, state, coalesce(extract(epoch FROM replay_lag), 0)::float8 AS lag_s
FROM pg_stat_replication
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """One node. ``role`` is None when it is down; ``lag_bytes`` and ``lag_s`` when they can't be known.

    ``sync`` is what the primary says of a standby: ``sync`` (every write waits for it), ``potential`` or ``async``;
    None for a primary, and for a standby that isn't connected.
    """

    name: str
    up: bool
    role: Role | None = None
    timeline: int | None = None
    lsn: int | None = None
    lag_bytes: int | None = None
    lag_s: float | None = None
    sync: str | None = None


@dataclass(frozen=True, slots=True)
class _Own:
    lsn: int | None
    replayed: int | None
    timeline: int | None
    age_s: float | None


async def standing_of(whereabouts: Whereabouts, group: Group) -> list[Standing]:
    """How each node of ``group`` stands, in the group's order; takes two seconds when one does not answer."""
    answers = await asyncio.gather(*(_ask(whereabouts, node) for node in group.nodes))
    primary = max(
        (s for s, _, _ in answers if s.role is Role.PRIMARY), key=lambda s: (s.timeline or 0, s.lsn or 0), default=None
    )
    sent = next((sent for s, _, sent in answers if primary is not None and s is primary), {})
    return [_compared(s, own, primary, sent.get(s.name)) for s, own, _ in answers]


def _compared(node: Standing, own: _Own | None, primary: Standing | None, sent: tuple[str, float] | None) -> Standing:
    if own is None:
        return node
    if node.role is Role.PRIMARY:
        return replace(node, lag_bytes=0, lag_s=0.0)
    if primary is None or primary.lsn is None or own.replayed is None:
        return node
    lag_bytes = max(0, primary.lsn - own.replayed)
    age_s = own.age_s if own.age_s is not None and own.age_s >= 0 else None  # below 0 the clocks don't agree
    lag_s = 0.0 if lag_bytes == 0 else (sent[1] if sent else age_s)
    return replace(node, lag_bytes=lag_bytes, lag_s=lag_s, sync=sent[0] if sent else None)


async def _ask(whereabouts: Whereabouts, node: Node) -> tuple[Standing, _Own | None, dict[str, tuple[str, float]]]:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            connection = await AsyncConnection.connect(**whereabouts.conninfo_of(node), autocommit=True)
            try:
                return await _answer(connection, node)
            finally:
                await connection.close()
    except (TimeoutError, psycopg.Error):
        return Standing(node.name, up=False), None, {}


async def _answer(connection: Connection, node: Node) -> tuple[Standing, _Own | None, dict[str, tuple[str, float]]]:
    role = Role.STANDBY if in_recovery(connection) else Role.PRIMARY
    own = await (await connection.cursor(row_factory=class_row(_Own)).execute(_OWN)).fetchone()
    assert own is not None
    sent = {}
    if role is Role.PRIMARY:
        cursor = connection.cursor(row_factory=dict_row)
        for row in await (await cursor.execute(_STANDBYS)).fetchall():
            if row["state"] == "streaming":
                sent[str(row["name"])] = (str(row["sync_state"]), float(row["lag_s"]))
    return Standing(node.name, True, role, own.timeline, int(own.lsn or 0)), own, sent
