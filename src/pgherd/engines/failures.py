"""PostgreSQL's errors as pgherd's: unreachable servers and refused statements. Row values are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ..errors import GroupUnavailable, HerdError, ResidencyRefused, ServerRefused, StaleTopology
from ..planning.strict import REFUSED

STALE = "PH001"
"""What a node says to a client whose topology is not the newest (engines/sql/fleet.sql)."""
LEAK = "PH002"
"""What a node says to a statement that would let pinned rows out (engines/sql/guard.sql)."""
_LINK = re.compile('"pgherd_([^"]+)"')
"""How a server names its link to a group that it cannot reach."""
_BARRIER = re.compile(f'"([^"]+{re.escape(REFUSED)})"')
"""How it names what stands in the place of rows that it may not lead to."""


def is_connection_loss(error: BaseException) -> bool:
    """Whether the server could not be reached or went away, as opposed to refusing something."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    state = error.sqlstate
    return state is None or state.startswith(("08", "57P"))


def translate(error: BaseException, group: str, what: str = "") -> HerdError:
    """The pgherd error for what a driver raised while talking to ``group``."""
    doing = f" while {what}" if what else ""
    link = _LINK.search(error.diag.message_primary or "") if isinstance(error, psycopg.Error) else None
    if link and is_connection_loss(error):
        return GroupUnavailable(
            f"group {link[1]} does not answer group {group}{doing}",
            hint="pgherd status shows who is up; pgherd up starts local servers",
        )
    if is_connection_loss(error):
        return GroupUnavailable(
            f"group {group} does not answer{doing}",
            hint="pgherd status shows who is up; pgherd up starts local servers",
        )
    if isinstance(error, psycopg.Error) and error.sqlstate == STALE:
        return StaleTopology(str(error.diag.message_primary), hint="run it again: the client reads the herd anew")
    if isinstance(error, psycopg.Error) and error.sqlstate == LEAK:
        message = f"group {group} refused{doing}: {error.diag.message_primary}"
        return ResidencyRefused(message, hint=error.diag.message_hint or "")
    barrier = _BARRIER.search(error.diag.message_primary or "") if isinstance(error, psycopg.Error) else None
    if barrier:
        return ResidencyRefused(
            f"group {group} refused{doing}: tablespace {barrier[1]}",
            hint="connect to a server of its region (pgherd dsn --region …), or leave those rows out with a condition"
            " on the partition key",
        )
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
        hint = error.diag.message_hint or ""
        return ServerRefused(f"group {group} refused{doing}: {error.diag.message_primary}{state}", hint=hint)
    return ServerRefused(f"group {group} failed{doing}: {type(error).__name__}: {error}")


@contextmanager
def talking_to(group: str, what: str = "") -> Iterator[None]:
    """Raise pgherd's errors instead of the driver's inside this block."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, group, what) from error
