"""The reject file: bad rows as JSON lines, neither lost nor doubled when a load is killed and goes on."""

from __future__ import annotations

import base64
import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .records import Reject


class RejectFile:
    """The file at ``path``, of which ``size`` bytes count; what a killed load wrote after them is cut off."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        try:
            present = path.stat().st_size if path.exists() else 0
            if present < size:
                raise BadInput(
                    f"{path} holds less than the load had written to it",
                    hint="put it back (or name the right reject file), or load again from the start (restart)",
                )
            if present and not size:
                path.unlink()
            elif present > size:
                os.truncate(path, size)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._size = size

    def append(self, rejects: Sequence[Reject]) -> int:
        """Write rows durably; the file's size from now on."""
        if not rejects:
            return self._size
        data = b"".join(_line(r) for r in rejects)
        try:
            with self.path.open("r+b" if self._size else "wb") as file:
                file.truncate(self._size)  # a commit that failed may have left its rows
                file.seek(self._size)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return self._size + len(data)

    def keep(self, size: int) -> None:
        """The load's state says ``size`` now."""
        self._size = size

    def cut(self) -> None:
        """Remove rows that were written for a commit that did not happen."""
        if self.path.exists() and self.path.stat().st_size > self._size:
            if self._size:
                os.truncate(self.path, self._size)
            else:
                self.path.unlink()


def _unwritable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"the reject file {path} can't be written: {error.strerror}", hint="name another reject file")


def _line(reject: Reject) -> bytes:
    document = {"line": reject.line, "error": reject.code, "message": reject.message, "row": reject.row}
    return (json.dumps(document, default=_as_json) + "\n").encode()


def _as_json(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return value.tolist() if hasattr(value, "tolist") else str(value)
