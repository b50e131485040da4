"""Groups with replicas on this machine: files for Patroni, etcd and watchers; starting and stopping them together.

Watchers (one for each machine of the herd, see local/machine.py) run the programs; here they are told what, started,
waited for and told to end. All other secrets are derived from the herd's one password.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from ..dcs import NAMESPACE, Store
from ..errors import LocalServerError, StoreUnavailable
from ..herdfile import EtcdMember, HerdFile, HerdNode, TwoNode, write_atomically
from . import etcd, machine, patroni, runtime
from .certificates import Holder
from .installation import Installation
from .layout import ETCD_MEMBERS, NODES
from .machine import Machine, Program, WatchedNode
from .processes import Postmaster, Processes, remove_tree
from .server import HOST
from .user import ServerUser, server_user

MACHINES = "machines"
PATRONI_FILE = "patroni.yml"
_POLL_S = 0.05
_LOGS = ("patroni.log", "server.log")
_PORT_TAKEN = ("Couldn't start a service on", "Address already in use")
_PASSED_ON = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")

Progress = Callable[[str], None]


def derived(password: str, purpose: str) -> str:
    """A secret of its own for ``purpose``, of which nothing about others follows."""
    return hmac.new(password.encode(), purpose.encode(), hashlib.sha256).hexdigest()[:40]


def limit_files(pids: Sequence[int], size: str) -> None:
    """How large the files may get that the servers' processes write (``unlimited``, or bytes); what is beyond fails.

    A drill makes disks full in this way. Done as the servers' user, since root may lack the right.
    """
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/limits").read_text()
        except OSError:
            continue
        limits = next((line.split() for line in text.splitlines() if line.startswith("Max file size")), [])
        if limits and limits[3] != size:
            server_user().run(["prlimit", f"--pid={pid}", f"--fsize={size}:"], {}, timeout_s=10)


class Replicas:
    """The machines, Patronis and etcd of one local herd whose groups have standbys."""

    def __init__(self, home: Path, herd: HerdFile, password: str) -> None:
        self.home = home
        self.herd = replace(herd, nodes=tuple(n for n in herd.nodes if n.data_directory is not None))
        self.password = password
        self._read: dict[Path, int] = {}

    @property
    def machines(self) -> list[str]:
        """All machines: those of nodes, and witnesses that have a member of etcd only."""
        return list(dict.fromkeys([*(n.machine for n in self.herd.nodes), *(m.name for m in self.herd.etcd)]))

    def groups(self) -> dict[str, list[HerdNode]]:
        """The nodes of each group."""
        found: dict[str, list[HerdNode]] = {}
        for node in self.herd.nodes:
            found.setdefault(node.group, []).append(node)
        return found

    def directory(self, name: str) -> Path:
        """A machine's directory."""
        return self.home / MACHINES / name

    def holders(self) -> list[Holder]:
        """The machines that have certificates: for their etcd, and for whoever asks on them."""
        hosts = {m.name: m.host for m in self.herd.etcd}
        names = self.machines if self.herd.mutual_tls else []
        return [Holder(name, hosts.get(name, HOST), self.directory(name) / machine.TLS) for name in names]

    def describe(self, installation: Installation, user: ServerUser) -> None:
        """Write all files anew. Watchers and Patronis that run go on with what they have read."""
        programs = runtime.find(user)
        self._read = {
            path: len(_text(path))
            for n in self.herd.nodes
            for name in _LOGS
            if (path := self.home / NODES / n.name / name)
        }
        (self.home / MACHINES).mkdir(exist_ok=True)
        for directory in (self.home / MACHINES, self.home / NODES):
            directory.chmod(0o711 if user.drops else 0o700)
        for name in self.machines:
            self.directory(name).mkdir(mode=0o711, exist_ok=True)
            self._spec(name, programs, installation, user).write(self.directory(name))
        for group in self.groups().values():
            for place, node in enumerate(group):
                self._write_patroni(node, len(group) - place, installation, user)
        for member in self.herd.etcd:
            directory = self.directory(member.name) / machine.ETCD
            directory.mkdir(mode=0o700, exist_ok=True)
            user.give(directory)
            write_atomically(directory / etcd.KEY, derived(self.password, "tokens"), mode=0o600, owner=user.owner)

    def rejoin_etcd(self, say: Progress) -> None:
        """Let a member of etcd whose data is gone join the others again; their watchers are started for it.

        Raises LocalServerError when most members have lost theirs: who held all acknowledged writes is forgotten then.
        """
        lost = [m for m in self.herd.etcd if not self.has_etcd_data(m)]
        if self.herd.postgres_version is None or len(lost) in (0, len(self.herd.etcd)):
            return
        names = ", ".join(m.name for m in lost)
        if 2 * len(lost) >= len(self.herd.etcd):
            raise LocalServerError(
                f"the data of most members of etcd is gone ({names}): nobody knows who may be primary",
                hint=f"put machines/*/{machine.ETCD} back from a backup, or pgherd restore a backup into a new home",
            )
        for member in lost:
            directory = self.directory(member.name)
            if (pid := machine.watcher_pid(directory)) is not None:
                os.kill(pid, signal.SIGKILL)  # it was told otherwise; its servers go on meanwhile
            Processes(directory).kill()
        self.start_watchers(besides=[m.name for m in lost])
        say(f"etcd: {names} lost its data and joins again")
        with closing(self._any_machine().store(2.0)) as store:
            for member in lost:
                self.await_etcd(partial(store.replace_member, etcd.peer_url(member)), 30)

    def has_etcd_data(self, member: EtcdMember) -> bool:
        """Whether a member of etcd knows what it knew."""
        return etcd.has_data(self.directory(member.name))

    def start_watchers(self, besides: Sequence[str] = ()) -> None:
        """Start the watchers that are not running. Raises LocalServerError with the end of a log."""
        started = []
        for name in (m for m in self.machines if m not in besides):
            directory = self.directory(name)
            if (pid := machine.watcher_pid(directory)) is not None:
                os.kill(pid, signal.SIGCONT)  # perhaps frozen by a drill that was killed
                continue
            env = {k: os.environ[k] for k in _PASSED_ON if k in os.environ}
            with (directory / machine.LOG).open("ab") as log:
                argv = [sys.executable, "-m", machine.WATCHER_MODULE, str(directory)]
                started.append(
                    (
                        directory,
                        subprocess.Popen(
                            argv,
                            env=env,
                            cwd="/",
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                            start_new_session=True,
                        ),
                    )
                )
        for directory, process in started:
            if process.wait(timeout=60) not in (0, 3):  # 3: another one was quicker
                raise LocalServerError(
                    f"the watcher of {directory.name} did not start\n{_tail(directory / machine.LOG)}",
                    hint=f"see {directory / machine.LOG}",
                )

    def tell_watchers(self) -> None:
        """Have the watchers read again which nodes there are; those that don't run are started."""
        self._signal_watchers(signal.SIGHUP)
        self.start_watchers()

    def retire(self, gone: Sequence[HerdNode], timeout_s: float) -> None:
        """End the nodes of groups that have left, and have watchers and etcd forget them.

        ``describe`` has written all files without them. A machine that has nothing else to do is removed.
        """
        idle = [self.directory(m) for m in {n.machine for n in gone} - set(self.machines)]
        for ending in filter(None, map(machine.watcher_pid, idle)):
            os.kill(ending, signal.SIGCONT)
            os.kill(ending, signal.SIGTERM)
        self._signal_watchers(signal.SIGHUP)
        running = [Processes(self.home / NODES / n.name) for n in gone]
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and (
            any(p.pids() for p in running) or any(machine.watcher_pid(d) for d in idle)
        ):
            time.sleep(_POLL_S)
        for directory in idle:
            machine.kill_watcher(directory)
            Processes(directory).kill()
            if directory.exists():
                remove_tree(directory)
        for processes in running:  # they have no watcher, or hang
            processes.kill()
        self.start_watchers()
        with closing(self._any_machine().store(2.0)) as store:
            for group in dict.fromkeys(n.group for n in gone):
                self.await_etcd(partial(_forget, store, group), timeout_s)

    def open_store(self, *, ready: bool = False, timeout_s: float = 30) -> None:
        """Wait for etcd, close it to those without the password, and give each group its settings.

        A group that gets its very first standbys need not wait for them: until all are copied, as long as that takes,
        it promises what it did before. Called again once all are ``ready``, it holds it to all of its settings.
        """
        with closing(self._any_machine().store(2.0)) as store:
            self.await_etcd(lambda: self._open(store, ready), timeout_s)

    def _open(self, store: Store, ready: bool) -> None:
        store.secure()
        for name, nodes in self.groups().items():
            settings = patroni.group_settings(len(nodes), len(self.herd.nodes), self.herd.two_node)
            text = json.dumps(settings, separators=(",", ":"))
            key = f"{NAMESPACE}{name}/config"
            known = store.get(key)
            lenient = json.dumps(settings | {"synchronous_mode_strict": False}, separators=(",", ":"))
            if not ready and _begins(nodes) and (known is None or known.value == lenient):
                text = lenient
            if known is None or known.value != text:
                store.put(key, text)

    def await_etcd(self, work: Callable[[], None], timeout_s: float) -> None:
        """Do ``work``, again and again until etcd answers. Raises LocalServerError with the ends of its logs."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return work()
            except StoreUnavailable as e:
                if time.monotonic() > deadline:
                    logs = "\n".join(_tail(etcd.log_of(self.directory(m.name)), 5) for m in self.herd.etcd)
                    raise LocalServerError(
                        f"etcd did not start: {e}\n{logs}", hint=f"see {self.home / MACHINES}"
                    ) from e
            time.sleep(_POLL_S)

    def wait_ready(self, say: Progress, timeout_s: float = 120) -> set[str]:
        """Wait until each group has a primary and as many standbys as a write must reach; usually none is returned.

        ``timeout_s`` does not end it while a node is being copied.
        What is returned are nodes that can't start because another program has taken a port of theirs meanwhile.
        Raises LocalServerError that names the group and quotes Patroni's log.
        """
        deadline = time.monotonic() + timeout_s
        waiting = self.groups()
        while waiting:
            for name, nodes in list(waiting.items()):
                if self._is_ready(nodes):
                    say(f"group {name} is up with {len(nodes)} nodes")
                    del waiting[name]
            if unlucky := {n.name for nodes in waiting.values() for n in nodes if self._found_port_taken(n)}:
                return unlucky
            if waiting and time.monotonic() > deadline and not self._copies(waiting):
                name, nodes = next(iter(waiting.items()))
                logs = "\n".join(_tail(self.home / NODES / n.name / "patroni.log", 4) for n in nodes)
                raise LocalServerError(
                    f"group {name} is not ready after {timeout_s:.0f} s\n{logs}",
                    hint="see patroni.log and server.log there; one that does not come up: pgherd node recopy NODE",
                )
            time.sleep(_POLL_S)
        return set()

    def _copies(self, groups: Mapping[str, Sequence[HerdNode]]) -> bool:
        """Whether a node is being copied, which takes as long as its rows do."""
        nodes = (n for group in groups.values() for n in group)
        return any(Processes(self.home / NODES / n.name).run("pg_basebackup", "pg_rewind") for n in nodes)

    def _found_port_taken(self, node: HerdNode) -> bool:
        directory = self.home / NODES / node.name
        return any(
            any(words in text[self._read.get(directory / name, 0) :] for words in _PORT_TAKEN)
            for name in _LOGS
            if (text := _text(directory / name))
        )

    def stop(self, timeout_s: float) -> None:
        """Stop all cleanly: the nodes of all machines, then etcd and the watchers; whatever is slower is killed."""
        nodes = [Processes(self.home / NODES / n.name) for n in self.herd.nodes]
        pids = self._signal_watchers(signal.SIGUSR1)
        deadline = time.monotonic() + timeout_s
        if not pids:
            for n in self.herd.nodes:
                Processes(self.home / NODES / n.name).signal(signal.SIGCONT)
        while (running := [n for n in nodes if n.pids()]) and pids and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._signal_watchers(signal.SIGTERM)
        if running:  # they have no watcher, or hang
            for n in self.herd.nodes:
                Processes(self.home / NODES / n.name).kill_keepers()
                Postmaster(self.home / NODES / n.name / "data").stop("fast", timeout_s)
        while any(machine.watcher_pid(self.directory(m)) for m in self.machines) and time.monotonic() < deadline + 5:
            time.sleep(_POLL_S)
        self.kill()

    def kill(self) -> None:
        """End watchers first, then all that they kept, at once."""
        for name in self.machines:
            machine.kill_watcher(self.directory(name))
        for name in self.machines:
            Processes(self.directory(name)).kill()
        for n in self.herd.nodes:
            Processes(self.home / NODES / n.name).kill()

    def remove(self) -> None:
        """Remove what the machines keep; all has been killed before."""
        for name in self.machines:
            if self.directory(name).exists():
                remove_tree(self.directory(name))

    def thaw(self) -> None:
        """Let go on what a drill that was killed has frozen."""
        for n in self.herd.nodes:
            processes = Processes(self.home / NODES / n.name)
            processes.signal(signal.SIGCONT)
            limit_files(processes.pids(), "unlimited")
        for name in self.machines:
            Processes(self.directory(name)).signal(signal.SIGCONT)
            self._bring_back(name)

    def _bring_back(self, name: str) -> None:
        """End a machine that a drill has left in a network of its own, whose way out is gone; it is started anew."""
        pid = machine.watcher_pid(self.directory(name))
        try:
            if pid is None or Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
                return
        except OSError:
            return
        machine.kill_watcher(self.directory(name))
        for node in (n for n in self.herd.nodes if n.machine == name):
            Processes(self.home / NODES / node.name).kill()
        Processes(self.directory(name)).kill()

    def _signal_watchers(self, number: signal.Signals) -> list[int]:
        pids = [pid for m in self.machines if (pid := machine.watcher_pid(self.directory(m))) is not None]
        for pid in pids:
            with suppress(ProcessLookupError):  # it has just died
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, number)
        return pids

    def _any_machine(self) -> Machine:
        return machine.read(self.directory(self.machines[0]))

    def _is_ready(self, nodes: Sequence[HerdNode]) -> bool:
        conninfo = make_conninfo(
            host=",".join(n.host for n in nodes),
            port=",".join(str(n.port) for n in nodes),
            user=self.herd.user,
            password=self.password,
            dbname="postgres",
            connect_timeout=2,
            target_session_attrs="read-write",
            **self.herd.tls_parameters(),
        )
        query = (
            "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND state = 'streaming'"
        )
        needed = 0 if self.herd.two_node is TwoNode.AVAILABLE else min(2, len(nodes) - 1)
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                row = connection.execute(query).fetchone()
                return row is not None and int(row[0]) >= needed
        except psycopg.OperationalError:
            return False

    def _spec(self, name: str, programs: runtime.Runtime, installation: Installation, user: ServerUser) -> Machine:
        mine = [n for n in self.herd.nodes if n.machine == name]
        witnesses = self._witnesses()
        groups = {n.group for n in mine} | {g for g, names in witnesses.items() if name in names}
        members = sorted(self.herd.etcd, key=lambda m: m.name != name)
        return Machine(
            name=name,
            etcd=self.etcd_of(name, programs),
            endpoints=tuple((m.host, m.client_port) for m in members),
            etcd_user=patroni.ETCD_USER,
            etcd_password=derived(self.password, "etcd"),
            nodes=tuple(self._watched(n, programs, installation) for n in mine),
            peers=tuple(_seen(n) for n in self.herd.nodes if n.group in groups and n not in mine),
            witnesses={g: names for g, names in witnesses.items() if g in groups},
            strict=() if self.herd.two_node is TwoNode.AVAILABLE else tuple(sorted(groups)),
            sql_user=self.herd.user,
            sql_password=self.password,
            owner=user.owner,
            identity=etcd.identity_of(self.directory(name)) if self.herd.mutual_tls else None,
        )

    def _witnesses(self) -> dict[str, tuple[str, ...]]:
        """Machines of etcd that judge groups with too few machines of their own for a majority."""
        found = {}
        for group, nodes in self.groups().items():
            own = {n.machine for n in nodes}
            others = [m.name for m in self.herd.etcd if m.name not in own]
            found[group] = tuple(others[: max(0, ETCD_MEMBERS - len(own))])
        return found

    def _watched(self, node: HerdNode, programs: runtime.Runtime, installation: Installation) -> WatchedNode:
        directory = self.home / NODES / node.name
        libraries = ":".join(e["LD_LIBRARY_PATH"] for e in (programs.env, installation.env) if "LD_LIBRARY_PATH" in e)
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(directory)}
        env |= programs.env | installation.env | ({"LD_LIBRARY_PATH": libraries} if libraries else {})
        argv = (str(programs.python), "-c", patroni.RUN, "patroni", str(directory / PATRONI_FILE))
        seen = _seen(node)
        return WatchedNode(
            seen.name,
            seen.group,
            seen.machine,
            seen.host,
            seen.port,
            seen.rest_port,
            Program(argv, env, str(directory / "server.log"), str(directory)),
            node.data_directory,
        )

    def etcd_of(self, name: str, programs: runtime.Runtime) -> Program | None:
        """The machine's member of etcd, if it has one."""
        member = next((m for m in self.herd.etcd if m.name == name), None)
        if member is None:
            return None
        joins = self.herd.postgres_version is not None and any(map(self.has_etcd_data, self.herd.etcd))
        token = derived(self.password, "cluster")[:12]
        return etcd.program(programs.etcd, member, self.herd.etcd, self.directory(name), token, joins=joins)

    def _write_patroni(self, node: HerdNode, preference: int, installation: Installation, user: ServerUser) -> None:
        directory = self.home / NODES / node.name
        directory.mkdir(mode=0o700, exist_ok=True)
        user.give(directory)
        members = sorted(self.herd.etcd, key=lambda m: m.name != node.machine)
        settings = patroni.node_settings(
            node,
            user=self.herd.user,
            password=self.password,
            rest_password=derived(self.password, "rest"),
            etcd=[(m.host, m.client_port) for m in members],
            etcd_password=derived(self.password, "etcd"),
            bindir=installation.bindir,
            preference=preference,
            tls=self.herd.has_ca,
            mutual_tls=self.herd.mutual_tls,
            pgaudit=installation.pgaudit,
        )
        text = json.dumps(settings, indent=1) + "\n"
        write_atomically(directory / PATRONI_FILE, text, mode=0o600, owner=user.owner)


def _begins(nodes: Sequence[HerdNode]) -> bool:
    """Whether one of a group's nodes may have rows already."""
    return any((Path(n.data_directory or "") / "PG_VERSION").exists() for n in nodes)


def _forget(store: Store, group: str) -> None:
    for entry in store.under(f"{NAMESPACE}{group}/"):
        store.delete(entry.key)


def _seen(node: HerdNode) -> WatchedNode:
    assert node.rest_port is not None
    return WatchedNode(node.name, node.group, node.machine, node.host, node.port, node.rest_port)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _tail(path: Path, lines: int = 10) -> str:
    return "\n".join(_text(path).splitlines()[-lines:])
