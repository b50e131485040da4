"""One PostgreSQL server on this machine: its data directory, start, readiness, log."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from pathlib import Path

from ..errors import LocalServerError, WrongVersion
from ..herdfile import sync_directory, write_atomically
from . import settings
from .installation import Installation
from .processes import Postmaster, remove_tree
from .user import ServerUser

HOST = "127.0.0.1"
_POLL_S = 0.02
_WORK = "new-"
_LOCALES = ("C.UTF-8", "C")


class PortTaken(LocalServerError):
    """Another program listens on the server's port: give the server another one."""


class LocalServer(Postmaster):
    """A server with its programs. ``share`` is how many servers have this machine among them.

    ``tls``: nobody logs in without it; key and certificate lie beside the data directory (local/certificates.py).
    """

    def __init__(
        self,
        installation: Installation,
        user: ServerUser,
        data: Path,
        port: int,
        log: Path,
        *,
        share: int = 1,
        tls: bool = False,
    ) -> None:
        super().__init__(data)
        self.installation = installation
        self.user = user
        self.port = port
        self.log = log
        self.share = share
        self.tls = tls
        self.recovery = ""
        """settings of a recovery, until the next start without"""

    def init(self, user: str, password: str) -> None:
        """Make the data directory with superuser ``user``.

        It is made under another name and renamed at the end, so a directory of the right name is always complete.
        Raises LocalServerError. Source: PostgreSQL 18 manual, initdb.
        """
        parent = self.data.parent
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=parent))
        self.user.give(work)
        secret = work / "password"
        write_atomically(secret, password + "\n", mode=0o600, owner=self.user.owner)
        try:
            self._initdb(work / "data", user, secret)
            secret.unlink()
            conf = work / "data" / "postgresql.conf"
            write_atomically(conf, conf.read_text() + settings.INCLUDE, mode=0o600, owner=self.user.owner)
            self._write_settings(work / "data")
            (work / "data").rename(self.data)
            sync_directory(parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what an interrupted :meth:`init` or :meth:`start` left half made."""
        for work in self.data.parent.glob(f"{_WORK}*"):
            remove_tree(work)
        for temporary in self.data.glob(f".{settings.FILE_NAME}.*"):
            temporary.unlink(missing_ok=True)

    def start(self, timeout_s: float = 60) -> None:
        """Start the server if it is not running, and wait until it answers; it outlives this process.

        Raises PortTaken, WrongVersion for another major version's data, LocalServerError with the end of the log.
        """
        if self.is_running():
            return
        self.check_version()
        self.kill()  # what outlived its postmaster, or an `up` that was killed, would be in the way
        self.forget_stale_pid_file()
        if not port_is_free(self.port):
            raise PortTaken(f"port {self.port} is taken by another program", hint="`pgherd up` chooses another port")
        self._write_settings(self.data)
        before = self.log.stat().st_size if self.log.exists() else 0
        done = self.user.run(
            [self._program("pg_ctl"), "start", "-D", self.data, "-l", self.log, "-w", "-s", "-t", str(int(timeout_s))],
            self.installation.env,
            timeout_s=timeout_s + 30,
        )
        if done.returncode != 0:
            raise self._why_not(self._log_since(before), done.stderr)

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Wait until a running server accepts connections. Raises LocalServerError with the end of its log."""
        deadline = time.monotonic() + timeout_s
        while self.status != "ready" or not self.is_running():
            if not self.is_running() or time.monotonic() > deadline:
                raise LocalServerError(
                    f"the server in {self.data} is not ready\n" + self.log_tail(),
                    hint=f"see {self.log}; a server that replays its log after a crash needs time: call again",
                )
            time.sleep(_POLL_S)

    def check_version(self) -> None:
        """Raise WrongVersion if the data directory was made by another major version of PostgreSQL."""
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != str(self.installation.major):
            raise WrongVersion(
                f"{self.data} was made by PostgreSQL {found}, the programs are {self.installation.version}",
                hint=f"set PGHERD_PG_CONFIG to PostgreSQL {found}'s pg_config, or use a new home (--home)",
            )

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the server's log; empty without one."""
        return "\n".join(self._log_since(0).splitlines()[-lines:])

    def _initdb(self, data: Path, user: str, secret: Path) -> None:
        said = ""
        for locale in _LOCALES:  # some systems have no C.UTF-8
            argv: list[str | Path] = [
                self._program("initdb"),
                "-D",
                data,
                "-U",
                user,
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
            ]
            argv += ["--encoding=UTF8", f"--locale={locale}", "--data-checksums", "--no-instructions"]
            if self.installation.major >= 17:
                # PostgreSQL's own collation: a new C library cannot change the order that indexes rely on.
                argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            done = self.user.run(argv, self.installation.env)
            if done.returncode == 0:
                return
            said = done.stderr.strip()
            if "locale" not in said:
                break
        raise LocalServerError(f"initdb failed in {data.parent}: {said[-800:]}", hint=os_hint(said))

    def _write_settings(self, data: Path) -> None:
        more = settings.audited(data) if self.installation.pgaudit else {}
        text = settings.text(self.port, self.share, self.tls, more) + self.recovery
        write_atomically(data / settings.FILE_NAME, text, mode=0o600, owner=self.user.owner)
        if self.tls:
            write_atomically(data / settings.HBA_FILE, settings.hba_text(), mode=0o600, owner=self.user.owner)

    def _program(self, name: str) -> Path:
        return self.installation.program(name)

    def _log_since(self, offset: int) -> str:
        try:
            with self.log.open("rb") as f:
                f.seek(max(offset, self.log.stat().st_size - 65536))
                return f.read().decode(errors="replace")
        except OSError:
            return ""

    def _why_not(self, log: str, said: str) -> LocalServerError:
        tail = "\n".join(log.splitlines()[-15:]) or said.strip()
        if "Address already in use" in log or not (self.is_running() or port_is_free(self.port)):
            return PortTaken(f"port {self.port} is taken by another program\n{tail}", hint="call `pgherd up` again")
        what = "did not become ready in time" if self.is_running() else "did not start"
        return LocalServerError(f"the server in {self.data} {what}\n{tail}", hint=os_hint(tail, f"see {self.log}"))


def port_is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on this port of ``host``, a loopback address, now."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does: TIME_WAIT is no obstacle
        try:
            s.bind((host, port))
        except OSError:
            return False
    return True


def os_hint(said: str, otherwise: str = "see the message, and who owns the files") -> str:
    """What to do about a message of the operating system."""
    if "No space left on device" in said:
        return "the disk is full: make room, or use another home (--home)"
    if "could not map anonymous shared memory" in said or "Cannot allocate memory" in said:
        return "there is too little memory for this many servers: use fewer regions"
    return otherwise
