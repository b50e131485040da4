"""Connections on which a question is under way that nobody waits for any more: used again, but not too early."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psycopg
import pytest

from pgherd.engines.asking import Question, is_under_way, wait_for
from pgherd.engines.immediate import Immediate, run
from pgherd.engines.open import open_home
from pgherd.engines.servers.engine import ServersEngine
from pgherd.engines.servers.pool import MAX_LATE

SLOW = b"SELECT 1.0::float8, pg_sleep(%(pause)s)::text"


def ask(connection: psycopg.Connection, pause: float) -> Question:
    return Question(connection, SLOW, {"pause": pause}, binary=False)


@pytest.fixture
def engine(single_db: Path) -> ServersEngine:
    return asyncio.run(open_home(single_db))  # type: ignore[return-value]  # its pools are used by nobody


@pytest.mark.parametrize("prepared", [True, False])
def test_a_connection_left_behind_is_used_again_when_its_answer_has_come(engine: ServersEngine, prepared: bool) -> None:
    lender, group = Immediate(engine.connect_now), engine.topology.groups[0].name
    try:
        first = run(lender.take(group))
        if prepared:
            wait_for([ask(first, 0.0)])
        ask(first, 0.5)
        run(lender.give(group, None, first))
        assert is_under_way(first)
        second = run(lender.take(group))
        assert second is not first

        for _ in range(500):
            if not is_under_way(first):
                break
            time.sleep(0.01)
        assert run(lender.take(group)) is first
        again = ask(first, 0.0)
        wait_for([again])
        assert [row[0] for row in again.rows] == [1.0]
        assert again.error is None
    finally:
        first.close()
        second.close()
        lender.close()


def test_only_so_many_are_left_behind(engine: ServersEngine) -> None:
    lender, group = Immediate(engine.connect_now), engine.topology.groups[0].name
    taken = [run(lender.take(group)) for _ in range(MAX_LATE + 1)]
    try:
        for connection in taken:
            ask(connection, 30.0)
        for connection in taken:
            run(lender.give(group, None, connection))
        assert [c.closed for c in taken] == [False] * MAX_LATE + [True]
    finally:
        for connection in taken:
            connection.close()
        lender.close()


def test_a_connection_in_the_middle_of_anything_else_is_closed(engine: ServersEngine) -> None:
    lender, group = Immediate(engine.connect_now), engine.topology.groups[0].name
    try:
        connection = run(lender.take(group))
        wait_for([ask(connection, 0.0)])
        connection.execute("BEGIN")
        run(lender.give(group, None, connection))
        assert connection.closed

        broken = run(lender.take(group))
        ask(broken, 30.0)
        run(lender.give(group, None, broken))
        with engine.connect_now(group) as other:
            other.autocommit = True
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [broken.info.backend_pid])
        assert run(lender.take(group)) is not broken
        assert broken.closed
    finally:
        lender.close()
