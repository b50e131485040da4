"""A text file's lines, numbered as an editor numbers them, whatever bytes they hold."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, BinaryIO, cast

from ..errors import BadInput

MAX_LINE_BYTES = 256 << 20


class Lines:
    """Iterates over lines, ends kept. A line that is not UTF-8 comes with bytes escaped, and is in ``undecoded``."""

    def __init__(self, path: Path, gzipped: bool) -> None:
        self._path = path
        self._raw: BinaryIO = path.open("rb")
        self._file = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw)) if gzipped else self._raw
        self.number = 0
        self.undecoded: set[int] = set()

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._read()
        if not line:
            raise StopIteration
        self.number += 1
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError:
            self.undecoded.add(self.number)
            return line.decode("utf-8", "backslashreplace")

    def skip_to(self, number: int) -> None:
        """Go on after line ``number``."""
        while self.number < number and self._read():
            self.number += 1

    @property
    def bytes_done(self) -> int:
        """How much of the file has been read; compressed bytes of a compressed one."""
        return self._raw.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()

    def _read(self) -> bytes:
        try:
            line = self._file.readline(MAX_LINE_BYTES)
        except (OSError, EOFError) as error:
            raise BadInput(
                f"{self._path} can't be read after line {self.number}: {error}", hint="the file may be cut short"
            ) from error
        if len(line) == MAX_LINE_BYTES:
            raise BadInput(
                f"{self._path}: line {self.number + 1} is longer than {MAX_LINE_BYTES >> 20} MB", hint="is it text?"
            )
        return line
