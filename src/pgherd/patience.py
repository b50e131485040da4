"""Trying again while a group has no primary: with growing pauses, for as long as the caller has patience.

Only what has not happened, or may happen twice with the same outcome, is tried again: a transaction that failed before
its commit, a read, an upsert. A caller's own limit (``asyncio.timeout``) ends it earlier.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from .errors import GroupUnavailable, HerdError, InDoubt

T = TypeVar("T")
PATIENCE_S = 20.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
LONGEST_SETTLING_S = 10.0


def pauses(patience_s: float) -> Iterator[float]:
    """How long to wait before each further attempt, until ``patience_s`` are over."""
    deadline = time.monotonic() + patience_s
    pause_s = FIRST_PAUSE_S
    while time.monotonic() + pause_s < deadline:
        yield pause_s
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


async def patiently(
    call: Callable[[], Awaitable[T]],
    patience_s: float,
    *,
    settle: Callable[[], Awaitable[object]] | None = None,
) -> T:
    """The result of ``call``, tried again on GroupUnavailable.

    ``settle`` says that ``call`` may happen twice, and what to do first when it may have happened already (InDoubt).
    """
    waits = pauses(patience_s)
    while True:
        try:
            return await call()
        except (GroupUnavailable, InDoubt) as error:
            doubt = isinstance(error, InDoubt)
            if (doubt and settle is None) or (pause_s := next(waits, None)) is None:
                raise
        await asyncio.sleep(pause_s)
        if doubt and settle is not None:
            try:
                async with asyncio.timeout(LONGEST_SETTLING_S):
                    await settle()
            except (HerdError, TimeoutError):
                continue  # the next attempt says whether it still matters


def patiently_now(call: Callable[[], T], patience_s: float) -> T:
    """As :func:`patiently`, for a read that waits in the caller's thread."""
    waits = pauses(patience_s)
    while True:
        try:
            return call()
        except GroupUnavailable:
            pause_s = next(waits, None)
            if pause_s is None:
                raise
        time.sleep(pause_s)
