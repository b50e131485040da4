"""The file: which format it is in, and what tells it from every other file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..errors import BadInput
from ..model.names import Name

FINGERPRINT_BYTES = 1 << 20
_SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_GZIP = b"\x1f\x8b"


class Format(StrEnum):
    """How rows are written in a file."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class Source:
    """A file to load. ``identity`` changes when the file does: path, size, time of change, first and last MB."""

    path: Path
    format: Format
    gzipped: bool
    size: int
    identity: str

    def load_id(self, table: Name) -> str:
        """What this file's load into ``table`` is known by."""
        return hashlib.sha256(f"{table.sql}\n{self.identity}".encode()).hexdigest()


def open_source(path: Path, format_name: str | None = None) -> Source:
    """Look at a file. Raises BadInput when it can't be read, is empty, or is not what it is said to be."""
    path = path.expanduser().absolute()
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            head = file.read(FINGERPRINT_BYTES)
            file.seek(max(0, status.st_size - FINGERPRINT_BYTES))
            tail = file.read(FINGERPRINT_BYTES)
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}", hint="check the path and its permissions") from error
    if not head:
        raise BadInput(f"{path} is empty", hint="give a file with rows")
    gzipped = head.startswith(_GZIP)
    form = _format(path, format_name)
    _check(path, form, head, gzipped)
    told = f"{path}\n{status.st_size}\n{status.st_mtime_ns}\n".encode()
    identity = hashlib.sha256(told + hashlib.sha256(head).digest() + hashlib.sha256(tail).digest()).hexdigest()
    return Source(path, form, gzipped, status.st_size, identity)


def _format(path: Path, wanted: str | None) -> Format:
    if wanted is not None:
        try:
            return Format(wanted)
        except ValueError as error:
            raise BadInput(f"{wanted!r} is not a format", hint="formats: " + ", ".join(Format)) from error
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    found = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if found is None:
        known = ", ".join(_SUFFIXES)
        raise BadInput(f"the format of {path.name} can't be told from its name", hint=f"known suffixes: {known}")
    return Format(found)


def _check(path: Path, form: Format, head: bytes, gzipped: bool) -> None:
    looks = _looks_like(head)
    if form in (Format.PARQUET, Format.ARROW):
        if form is Format.PARQUET and looks is not Format.PARQUET:
            hint = f"it looks like {looks}" if looks else "write the file again; a copy may have been cut short"
            raise BadInput(f"{path.name} is not a parquet file", hint=hint)
        return
    if looks is not None:
        raise BadInput(f"{path.name} is not {form} but {looks}", hint=f"rename it, or say that its format is {looks}")
    if not gzipped and b"\0" in head[:4096]:
        raise BadInput(f"{path.name} is not UTF-8 text", hint="convert it: iconv -f UTF-16 -t UTF-8")


def _looks_like(head: bytes) -> Format | None:
    if head.startswith(b"PAR1"):
        return Format.PARQUET
    return Format.ARROW if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) else None
