"""A server's processes as the operating system sees them: who they are, signals, the end.

A pid file alone proves nothing (pids are used again after a crash or reboot), so a pid counts only if its command line
is a ``postgres`` started on this data directory.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import LocalServerError

_PROC = Path("/proc")
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_PROGRAMS = frozenset({"postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind"})
_POLL_S = 0.02
_KILL_TIMEOUT_S = 20.0


class Postmaster:
    """The server process of one data directory, and its children. Needs no PostgreSQL programs.

    Without ``/proc`` (not Linux) a pid file whose pid is alive is believed, and children are not looked for.
    """

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()

    @property
    def pid_file(self) -> Path:
        """``postmaster.pid``: pid, data directory, start time, port, … and on line 8 the status."""
        return self.data / "postmaster.pid"

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, or None if it is not running."""
        lines = self._pid_file_lines()
        if not lines or not lines[0].strip().lstrip("-").isdigit():
            return None
        pid = abs(int(lines[0]))
        return pid if _alive(pid) and self._is_ours(pid) else None

    @property
    def status(self) -> str:
        """What the postmaster says of itself: ``starting``, ``ready``, ``standby``, ``stopping``; empty if unknown."""
        lines = self._pid_file_lines()
        return lines[7].strip() if len(lines) > 7 else ""

    @property
    def clock_set_s(self) -> float:
        """By how many seconds the clock has been set since the server noted when it started; 0 if it is down."""
        lines, pid = self._pid_file_lines(), self.pid
        started = None if pid is None else _started_at(pid)
        noted = lines[2].strip() if len(lines) > 2 else ""
        return started - int(noted) if started is not None and noted.isdigit() else 0.0

    def is_running(self) -> bool:
        """Whether the postmaster is alive (it may still be starting, stopping, or frozen)."""
        return self.pid is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the postmaster and all its children (SIGSTOP freezes the server, SIGCONT thaws it)."""
        for pid in self.family():
            _send(pid, number)

    def reload(self) -> None:
        """Let a server that accepts connections read its configuration and certificates anew, without a login."""
        pid = self.pid
        if pid is not None and self.status in ("ready", "standby"):
            _send(pid, signal.SIGHUP)

    def stop(self, mode: str = "fast", timeout_s: float = 30) -> None:
        """Shut down (``smart``, ``fast`` or ``immediate``) and wait; after ``timeout_s`` it is killed.

        A killed server loses nothing that it acknowledged: it replays its log at the next start. Raises
        LocalServerError if its processes survive even that. Source: PostgreSQL 18 manual, 18.5.
        """
        pid = self.pid
        if pid is not None:
            # The order matters: a frozen server finds the request waiting when it thaws.
            _send(pid, _SIGNALS[mode])
            self.signal(signal.SIGCONT)
            if _wait_gone([pid], timeout_s):
                return
        self.kill()

    def kill(self) -> None:
        """SIGKILL the postmaster and whatever is left of its children, and wait until all are gone."""
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        family = self.family()
        while family:
            for pid in family:
                _send(pid, signal.SIGKILL)
            if not _wait_gone(family, deadline - time.monotonic()):
                raise LocalServerError(
                    f"the server in {self.data} cannot be killed (pids {', '.join(map(str, family))})",
                    hint="processes that wait for a dead disk stay until it answers; look at `ps`",
                )
            family = self.family()  # a child that was being forked meanwhile

    def forget_stale_pid_file(self) -> None:
        """Remove a pid file whose pid now belongs to a program that is not this server.

        PostgreSQL itself sees to a pid that is nobody's; one that is used again would make it refuse to start.
        """
        if _PROC.exists() and not self.is_running() and self.pid_file.exists():
            self.pid_file.unlink(missing_ok=True)

    def _pid_file_lines(self) -> list[str]:
        try:
            return self.pid_file.read_text(errors="replace").splitlines()
        except OSError:
            return []

    def _is_ours(self, pid: int) -> bool:
        if not _PROC.exists():
            return True
        command = _command(pid)
        return Path(command[0]).name == "postgres" and str(self.data) in command

    def family(self) -> list[int]:
        """The postmaster, its children, and what else works on the data directory, postmaster first."""
        parent = self.pid
        found = [] if parent is None else [parent]
        others = (p for p in _server_programs() if p != parent)
        return found + [p for p in others if _stat(p)[2] == parent or _works_in(p, self.data)]


class Processes:
    """All that runs for one directory of a home: a node's Patroni, server and tools, or a member of etcd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    def pids(self) -> list[int]:
        """Those alive, with whatever they have started."""
        known = {pid: _stat(pid) for pid in _all()}
        children: dict[int, list[int]] = {}
        found = []
        for pid, (name, state, parent) in known.items():
            if state in "ZX":
                continue
            children.setdefault(parent, []).append(pid)
            # A server's own children come with it: to look at each of them closely takes long where many servers run.
            if name in _PROGRAMS and known.get(parent, ("", "", 0))[0] not in _PROGRAMS:
                if _works_in(pid, self.directory):
                    found.append(pid)
            elif self._is_keeper(name, pid):
                found.append(pid)
        for pid in found:
            found += [p for p in children.get(pid, ()) if p not in found]
        return found

    def run(self, *names: str) -> bool:
        """Whether a program of one of these names, a server's, is at work there."""
        return any(_stat(pid)[0] in names and _works_in(pid, self.directory) for pid in _server_programs())

    def keepers(self) -> list[int]:
        """Patroni, or etcd: without what they have started."""
        return [pid for pid in _all() if self._is_keeper(_stat(pid)[0], pid)]

    def kill_keepers(self) -> None:
        """SIGKILL Patroni, or etcd, and wait until they are gone; a server that Patroni runs goes on."""
        pids = self.keepers()
        for pid in pids:
            _send(pid, signal.SIGKILL)
        _wait_gone(pids, _KILL_TIMEOUT_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of them."""
        for pid in self.pids():
            _send(pid, number)

    def kill(self, timeout_s: float = _KILL_TIMEOUT_S) -> None:
        """SIGKILL all, and return when none is left. Raises LocalServerError if one survives."""
        kill_all(self.pids, f"processes of {self.directory}", timeout_s)

    def _is_keeper(self, name: str, pid: int) -> bool:
        """Whether it is etcd or Patroni, started for this directory."""
        if name != "etcd" and not name.startswith(("python", "patroni")):
            return False
        command = _command(pid)
        if name == "etcd":
            command = [a.partition("--data-dir=")[2] for a in command]
        elif "patroni" not in command:
            return False
        return any(a.startswith("/") and Path(a).is_relative_to(self.directory) for a in command)


def commanded(module: str, directory: Path) -> list[int]:
    """The living processes that run a Python module on a directory (``python -m module directory``)."""
    known = ((pid, _command(pid)) for pid in _all() if _stat(pid)[1] not in "ZX")
    found = ((pid, [Path(a) for a in command if a.startswith("/")]) for pid, command in known if module in command)
    return [pid for pid, paths in found if directory.resolve() in (p.resolve() for p in paths)]


def kill_all(find: Callable[[], list[int]], what: str, timeout_s: float = _KILL_TIMEOUT_S) -> None:
    """SIGKILL all that ``find`` finds, until there is none left; they are stopped first, so that none starts another.

    Raises LocalServerError, which says ``what`` could not be killed, if one survives.
    """
    deadline = time.monotonic() + timeout_s
    while pids := find():
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                _send(pid, number)
        if not _wait_gone(pids, deadline - time.monotonic()):
            raise LocalServerError(
                f"{what} cannot be killed ({', '.join(map(str, pids))})",
                hint="processes that wait for a dead disk stay until it answers; look at `ps`",
            )


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped (SIGSTOP) and has not been told to go on."""
    return _stat(pid)[1] == "T"


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    return _alive(pid)


def remove_tree(directory: Path, timeout_s: float = _KILL_TIMEOUT_S) -> None:
    """Remove a directory that a server, or an initdb that outlived its pgherd, may still be writing to.

    Raises LocalServerError if it is still there after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while directory.exists():
        Processes(directory).signal(signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)
        if time.monotonic() > deadline:
            raise LocalServerError(f"{directory} cannot be removed", hint="see who owns its files, and who uses them")


def _server_programs() -> Iterator[int]:
    """The living processes that are called like PostgreSQL's server programs."""
    for pid in _all():
        name, state, _ = _stat(pid)
        if name in _PROGRAMS and state not in "ZX":
            yield pid


def _all() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()] if _PROC.exists() else []  # noqa: PTH208  # speed


def _works_in(pid: int, directory: Path) -> bool:
    """Whether a process was started on a directory, or stays in it, as every server process does.

    Some containers let root see only its own processes' working directories; then the command line has to do.
    """
    if any(a.startswith("/") and Path(a).is_relative_to(directory) for a in _command(pid)):
        return True
    try:
        return (_PROC / str(pid) / "cwd").readlink().is_relative_to(directory)
    except OSError:
        return False


def _command(pid: int) -> list[str]:
    return _read(_PROC / str(pid) / "cmdline").split("\0")


def _stat(pid: int) -> tuple[str, str, int]:
    """(name, state, parent's pid) of a process; state X if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as f:  # noqa: PTH123  # read of all processes, when every moment counts
            text = f.read(512).decode(errors="replace")
    except OSError:
        return "", "X", 0
    # The name stands in parentheses and may hold any character, so the fields are counted from the last one.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return head.partition("(")[2], fields[0], int(fields[1])


def _started_at(pid: int) -> float | None:
    """When a process was started, in seconds of the epoch, by the clock as it is now. Source: Linux manual, proc(5)."""
    booted = re.search(r"^btime (\d+)$", _read(_PROC / "stat"), re.MULTILINE)
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    if booted is None or len(fields) < 20:
        return None
    return int(booted[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _alive(pid: int) -> bool:
    if _PROC.exists():
        return _stat(pid)[1] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as e:
        raise LocalServerError(
            f"process {pid} belongs to another user", hint="run as the user who made the herd"
        ) from e


def _wait_gone(pids: list[int], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(_alive(p) for p in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
