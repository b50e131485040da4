"""Positions in the WAL and the segments that hold them. Source: PostgreSQL 18 manual, 28.6 "WAL Internals"."""

from __future__ import annotations

import re

_ARCHIVED = re.compile(r"[0-9A-F]{24}(\.|\Z)")


def position(lsn: str) -> int:
    """``16/B374D848`` as a number of bytes."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def segments_between(start_lsn: str, end_lsn: str, timeline: int, segment_bytes: int) -> list[str]:
    """The segments that a recovery reads from ``start_lsn`` up to ``end_lsn``."""
    first, last = position(start_lsn) // segment_bytes, max(position(end_lsn) - 1, 0) // segment_bytes
    return [_name(n, timeline, segment_bytes) for n in range(first, last + 1)]


def first_segment(start_lsn: str, timeline: int, segment_bytes: int) -> str:
    """The first segment that a recovery from ``start_lsn`` reads."""
    return _name(position(start_lsn) // segment_bytes, timeline, segment_bytes)


def is_before(name: str, segment: str) -> bool:
    """Whether the archived file ``name`` (a segment, or what belongs to one, compressed or not) lies before
    ``segment``, on whatever timeline. Timelines' histories do not. Source: PostgreSQL 18 manual, pg_archivecleanup.
    """
    return bool(_ARCHIVED.match(name)) and name[8:24] < segment[8:24]


def _name(number: int, timeline: int, segment_bytes: int) -> str:
    each = (1 << 32) // segment_bytes
    return f"{timeline:08X}{number // each:08X}{number % each:08X}"
