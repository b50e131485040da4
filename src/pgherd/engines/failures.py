"""PostgreSQL's errors as pgherd's: unreachable servers and refused statements. Row values are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg

from ..errors import CertificateRefused, GroupUnavailable, HerdError, ResidencyRefused, ServerRefused, StaleTopology
from ..local.presented import presented
from ..planning.strict import REFUSED

STALE = "PH001"
"""What a node says to a client whose topology is not the newest (engines/sql/fleet.sql)."""
LEAK = "PH002"
"""What a node says to a statement that would let pinned rows out (engines/sql/guard.sql)."""
_UNTRUSTED = re.compile(
    r"""connection to server at "([^"]+)"(?: \([^)]*\))?, port (\d+) failed: (?:SSL error: )?"""
    r"""(certificate verify failed|server certificate for .* does not match host name[^\n]*"""
    r"""|root certificate file [^\n]*|server does not support SSL[^\n]*)"""
)
"""How libpq says that it does not trust a server, or that there is no TLS."""
_LINK = re.compile('"pgherd_([^"]+)"')
"""How a server names its link to a group that it cannot reach."""
_UNNAMED = re.compile('user mapping not found for "[^"]*"')
_BARRIER = re.compile(f'"([^"]+{re.escape(REFUSED)})"')
"""How it names what stands in the place of rows that it may not lead to."""


def is_connection_loss(error: BaseException) -> bool:
    """Whether the server could not be reached or went away, as opposed to refusing something."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    state = error.sqlstate
    return state is None or state.startswith(("08", "57P"))


def is_untrusted(error: psycopg.Error) -> bool:
    """Whether a server was not trusted, or had no TLS."""
    return _complaint(error) is not None


def _complaint(error: psycopg.Error) -> re.Match[str] | None:
    return _UNTRUSTED.search(f"{error}\n{error.diag.message_detail or ''}")


def translate(error: BaseException, group: str, what: str = "") -> HerdError:
    """The pgherd error for what a driver raised while talking to ``group``."""
    doing = f" while {what}" if what else ""
    if untrusted := _untrusted(error):
        return untrusted
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
    if barrier := _barrier(error):
        return ResidencyRefused(
            f"group {group} refused{doing}: {barrier}",
            hint="connect to a server of its region (pgherd dsn --region …), or leave those rows out with a condition"
            " on the partition key",
        )
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
        hint = error.diag.message_hint or ""
        return ServerRefused(f"group {group} refused{doing}: {error.diag.message_primary}{state}", hint=hint)
    return ServerRefused(f"group {group} failed{doing}: {type(error).__name__}: {error}")


def _barrier(error: BaseException) -> str | None:
    """What keeps rows out of reach, if that is a barrier."""
    said = error.diag.message_primary or "" if isinstance(error, psycopg.Error) else ""
    if named := _BARRIER.search(said):
        return f"tablespace {named[1]}"
    if _UNNAMED.fullmatch(said):
        return (
            "rows that this needs are out of reach: their tablespace is strict, or the role has no login where they are"
            " (PostgreSQL says which from version 17 on)"
        )
    return None


def _untrusted(error: BaseException) -> CertificateRefused | None:
    """What is wrong with a server's certificate, if that failed: here, or on the way from one server to another."""
    found = _complaint(error) if isinstance(error, psycopg.Error) else None
    if found is None:
        return None
    host, port, said = found[1], int(found[2]), found[3]
    where = f"the server at {host}:{port}"
    if said != "certificate verify failed":
        hint = "sslmode and sslrootcert in herd.toml or the DSN must fit the server: see pgherd certificates"
        return CertificateRefused(f"{where} is not trusted: {said}", hint=hint)
    shown, now = presented(host, port), datetime.now(UTC)
    if shown is not None and shown.not_valid_after_utc < now:
        return CertificateRefused(
            f"the certificate of {where} has expired, on {shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            hint="pgherd certificates renew makes new ones; a server of yours needs one from whoever signs its own",
        )
    if shown is not None and shown.not_valid_before_utc > now:
        return CertificateRefused(
            f"the certificate of {where} is good from {shown.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only",
            hint="look at the clocks of both machines",
        )
    return CertificateRefused(
        f"the certificate of {where} is not signed by a CA that is trusted here",
        hint="this may be another server in its place; if it is the right one, name its CA with sslrootcert, or see"
        " pgherd certificates",
    )


@contextmanager
def talking_to(group: str, what: str = "") -> Iterator[None]:
    """Raise pgherd's errors instead of the driver's inside this block."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, group, what) from error
