"""Doing one thing in several groups at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; when one fails, the others end before its error is raised, so that none goes on after a rollback."""
    every = list(coroutines)
    if len(every) == 1:
        return [await every[0]]
    results = await asyncio.gather(*every, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
