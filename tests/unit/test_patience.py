"""What is tried again while a group has no primary, and what is not."""

from __future__ import annotations

import asyncio

import pytest

from pgherd.errors import BadInput, GroupUnavailable, HerdError, InDoubt
from pgherd.patience import patiently, patiently_now
from pgherd.rows.statements import Effect, effect_of, is_about_rows


class Failing:
    """Fails as told, then succeeds."""

    def __init__(self, *errors: type[HerdError]) -> None:
        self.errors = list(errors)
        self.calls = 0

    def now(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)("no")
        return self.calls

    async def later(self) -> int:
        return self.now()


async def _nothing() -> None:
    return None


def test_what_has_not_happened_is_tried_again() -> None:
    call = Failing(GroupUnavailable, GroupUnavailable)
    assert asyncio.run(patiently(call.later, 5)) == 3
    assert patiently_now(Failing(GroupUnavailable).now, 5) == 2


def test_what_may_have_happened_is_tried_again_only_if_it_may_happen_twice() -> None:
    with pytest.raises(InDoubt):
        asyncio.run(patiently(Failing(InDoubt).later, 5))
    assert asyncio.run(patiently(Failing(InDoubt).later, 5, settle=_nothing)) == 2


def test_other_errors_are_raised_at_once_and_patience_ends() -> None:
    call = Failing(BadInput)
    with pytest.raises(BadInput):
        asyncio.run(patiently(call.later, 5))
    assert call.calls == 1
    impatient = Failing(GroupUnavailable)
    with pytest.raises(GroupUnavailable):
        asyncio.run(patiently(impatient.later, 0))
    assert impatient.calls == 1


@pytest.mark.parametrize(
    ("query", "effect"),
    [
        ("SELECT * FROM t WHERE id = %s", Effect.NONE),
        ("SELECT count(*) FROM t", Effect.NONE),
        ("SHOW work_mem", Effect.NONE),
        ("SELECT charge_card(1)", Effect.UNLIKELY),
        ("SELECT nextval('s')", Effect.UNLIKELY),
        ("INSERT INTO t VALUES (1)", Effect.POSSIBLE),
        ("WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone", Effect.POSSIBLE),
        ("SELECT * INTO u FROM t", Effect.POSSIBLE),
        ("SELECT 1; DROP TABLE t", Effect.POSSIBLE),
        ("not SQL", Effect.POSSIBLE),
    ],
)
def test_what_a_statement_may_have_changed_when_its_connection_breaks(query: str, effect: Effect) -> None:
    assert effect_of(query) is effect


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("INSERT INTO t VALUES (%s) RETURNING id", True),
        ("WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone; UPDATE t SET a = %(a)s", True),
        ("MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE", True),
        ("VACUUM t", False),
        ("INSERT INTO t VALUES (1); COMMIT", False),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", False),
        ("not SQL", False),
    ],
)
def test_what_may_be_run_in_a_transaction(query: str, rows: bool) -> None:
    assert is_about_rows(query) is rows
