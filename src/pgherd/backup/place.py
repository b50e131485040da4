"""Where backups are: a directory, or a bucket of an object store; here the small documents that pgherd keeps there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import BackupFailed
from ..herdfile import write_atomically

SCHEME = "s3://"


class Place(Protocol):
    """Holds documents under names like ``backups/LABEL.json``; ``str`` of it is how it is written.

    Raises BackupFailed when it doesn't answer, BadInput when it can't be used.
    """

    @property
    def site(self) -> str:
        """What is in one region only: two places with the same site are in the same region."""

    def where(self) -> str | None:
        """The AWS region that it says it is in; None if it doesn't say. Raises if it can't be used."""

    def names(self, directory: str) -> list[str]:
        """The names of the documents in a directory, sorted; none if there is no such directory."""

    def read(self, name: str) -> str | None:
        """A document's text; None if there is none."""

    def write(self, name: str, text: str) -> None:
        """Write a document, the whole of it or nothing, for the owner only."""

    def remove(self, name: str) -> None:
        """Remove a document, if it is there."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def site(self) -> str:
        return str(self.path.resolve())

    def where(self) -> str | None:
        return None

    def names(self, directory: str) -> list[str]:
        found = self.path / directory
        try:
            return sorted(p.name for p in found.iterdir()) if found.is_dir() else []
        except OSError as error:
            raise BackupFailed(f"{found} can't be read: {error.strerror}", hint="see who owns it") from error

    def read(self, name: str) -> str | None:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is not text"
            raise BackupFailed(f"{self.path / name} can't be read: {said}", hint="see who owns it") from error

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        try:
            path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            write_atomically(path, text, mode=0o600)
        except OSError as error:
            raise BackupFailed(
                f"{error.filename or path}: {os.strerror(error.errno or 0)}", hint="name a directory of yours"
            ) from error

    def remove(self, name: str) -> None:
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise BackupFailed(
                f"{self.path / name} can't be removed: {error.strerror}", hint="see who owns it"
            ) from error


def place_of(text: str) -> Place:
    """The place that ``text`` names: ``s3://[PROFILE@]BUCKET[/PREFIX]``, or a directory. Raises BadInput."""
    if text.startswith(SCHEME):
        from .bucket import Bucket  # boto3 takes half a second to import

        return Bucket.parse(text)
    return Folder(Path(text).expanduser().absolute())
