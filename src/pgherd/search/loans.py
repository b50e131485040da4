"""The connections of one search: taken as it comes to need them, and all given back at its end."""

from __future__ import annotations

from ..engines.asking import AnyConnection
from ..engines.base import Lender


class Loans:
    """What was taken from ``lender``; :meth:`end` gives it back, whatever happened meanwhile."""

    __slots__ = ("_taken", "lender")

    def __init__(self, lender: Lender) -> None:
        self.lender = lender
        self._taken: list[tuple[str, str | None, AnyConnection]] = []

    async def take(self, group: str, node: str | None) -> AnyConnection:
        """A connection to the group's primary, or to ``node``. GroupUnavailable."""
        connection = await self.lender.take(group, node)
        self._taken.append((group, node, connection))
        return connection

    async def end(self) -> None:
        """Give everything back."""
        while self._taken:
            try:
                await self.lender.give(*self._taken.pop())
            except BaseException:
                await self.end()
                raise
