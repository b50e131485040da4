"""Connections on which a question is under way that nobody waits for any more: used again, but not too early."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pgherd
from availability.replicated import wait_until
from pgherd.engines.asking import Question, is_under_way, wait_for
from pgherd.engines.base import Engine
from pgherd.engines.immediate import Immediate, run
from pgherd.engines.servers.pool import MAX_LATE

SLOW = b"SELECT 1.0::float8, pg_sleep(%(pause)s)::text"


def ask(connection: psycopg.Connection, pause: float) -> Question:
    return Question(connection, SLOW, {"pause": pause}, binary=False)


@pytest.fixture
def engine(single_db: Path) -> Iterator[Engine]:
    with pgherd.connect(home=single_db) as herd:
        yield herd._inner.engine


def prepared(lender: Immediate, group: str) -> psycopg.Connection:
    """A connection on which the statement is prepared already."""
    connection = run(lender.take(group))
    wait_for([ask(connection, 0.0)])
    return connection


def test_a_connection_left_behind_is_used_again_when_its_answer_has_come(engine: Engine) -> None:
    lender, group = Immediate(engine.connect_now), engine.topology.groups[0].name
    first = prepared(lender, group)
    ask(first, 0.5)
    run(lender.give(group, None, first))
    assert is_under_way(first)
    second = run(lender.take(group))
    try:
        assert second is not first
        wait_until(lambda: not is_under_way(first))
        assert run(lender.take(group)) is first
        again = ask(first, 0.0)
        wait_for([again])
        assert again.error is None
        assert [row[0] for row in again.rows] == [1.0]
    finally:
        first.close()
        second.close()
        lender.close()


def test_one_left_behind_while_a_statement_is_prepared_prepares_it_again(engine: Engine) -> None:
    lender, group = Immediate(engine.connect_now), engine.topology.groups[0].name
    try:
        connection = run(lender.take(group))
        ask(connection, 0.0)
        run(lender.give(group, None, connection))
        wait_until(lambda: not is_under_way(connection))
        assert run(lender.take(group)) is connection
        again = ask(connection, 0.0)
        wait_for([again])
        assert again.error is None
        run(lender.give(group, None, connection))
    finally:
        lender.close()


def test_only_so_many_are_left_behind(engine: Engine) -> None:
    lender, group = Immediate(engine.connect_now), engine.topology.groups[0].name
    taken = [prepared(lender, group) for _ in range(MAX_LATE + 1)]
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


def test_a_connection_in_the_middle_of_anything_else_is_closed(engine: Engine) -> None:
    lender, group = Immediate(engine.connect_now), engine.topology.groups[0].name
    try:
        connection = prepared(lender, group)
        connection.execute("BEGIN")
        run(lender.give(group, None, connection))
        assert connection.closed

        broken = prepared(lender, group)
        ask(broken, 30.0)
        run(lender.give(group, None, broken))
        with engine.connect_now(group) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [broken.info.backend_pid])
        whole = run(lender.take(group))
        assert whole is not broken
        assert broken.closed
        run(lender.give(group, None, whole))
    finally:
        lender.close()
