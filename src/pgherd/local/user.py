"""Who runs the servers: PostgreSQL refuses root, so root hands them to an unprivileged user; others run their own.

Programs get a small environment of their own: the caller's may hold keys that a database superuser could read back.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LocalServerError

NOBODY_UID = 65534
_PASSED_ON = ("PATH", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user that servers run as; ``drops`` says that it is another one than the caller's (who then is root)."""

    uid: int
    gid: int
    drops: bool

    @property
    def owner(self) -> tuple[int, int] | None:
        """(uid, gid) for files that the servers write; None: the caller's own."""
        return (self.uid, self.gid) if self.drops else None

    def run(
        self, argv: Sequence[str | Path], env: Mapping[str, str], *, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user and wait for it; stdout and stderr come back as text.

        It gets a session of its own, so that Ctrl-C reaches pgherd alone, which then ends in an orderly way.
        Raises LocalServerError if it cannot be run or does not end in time.
        """
        name = Path(argv[0]).name
        inherited = {k: os.environ[k] for k in _PASSED_ON if k in os.environ}
        # The caller's working directory may be closed to the server user; `/` never is.
        options: dict[str, object] = {"env": {**inherited, **env}, "cwd": "/", "start_new_session": True}
        if self.drops:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        try:
            return subprocess.run(  # type: ignore[call-overload,no-any-return]
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
                **options,
            )
        except subprocess.TimeoutExpired as e:
            raise LocalServerError(
                f"{name} did not end within {timeout_s:g} s", hint="is the disk full or slow?"
            ) from e
        except OSError as e:
            raise LocalServerError(
                f"{argv[0]} cannot be run as uid {self.uid}: {e.strerror}",
                hint="check that this user may reach the file and that root may change users here",
            ) from e

    def give(self, path: Path) -> None:
        """Make ``path`` (not what is in it) this user's."""
        if self.drops:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def check_reach(self, path: Path, hint: str) -> None:
        """Raise LocalServerError naming the first directory on the way to ``path`` that this user may not pass."""
        if not self.drops:
            return
        resolved = path.resolve()
        for directory in (*reversed(resolved.parents), resolved):
            if not directory.exists():
                return
            if not self._may_pass(directory.stat()):
                name = pwd.getpwuid(self.uid).pw_name
                raise LocalServerError(
                    f"user {name}, who runs the servers, may not pass through {directory}", hint=hint
                )

    def _may_pass(self, info: os.stat_result) -> bool:
        if info.st_uid == self.uid:
            return bool(info.st_mode & stat.S_IXUSR)
        if info.st_gid == self.gid:
            return bool(info.st_mode & stat.S_IXGRP)
        return bool(info.st_mode & stat.S_IXOTH)


def server_user() -> ServerUser:
    """The caller, or ``nobody`` (uid 65534) if the caller is root. Raises LocalServerError without such a user."""
    if os.geteuid() != 0:
        return ServerUser(os.geteuid(), os.getegid(), drops=False)
    try:
        entry = pwd.getpwuid(NOBODY_UID)
    except KeyError:
        raise LocalServerError(
            f"PostgreSQL does not run as root, and there is no user with uid {NOBODY_UID}",
            hint=f"run pgherd as an ordinary user, or add `nobody` with uid {NOBODY_UID} to /etc/passwd",
        ) from None
    return ServerUser(entry.pw_uid, entry.pw_gid, drops=True)
