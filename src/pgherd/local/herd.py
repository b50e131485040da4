"""A herd of real servers on this machine: made from nothing, started, stopped, repaired, removed.

``herd.toml`` is written before the first server is made, and gets its ``postgres_version`` once all are: whenever a
command is killed, ``up`` finishes its work and ``destroy`` undoes it. A data directory that is missing after that is an
error, never quietly made anew: it held rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGCONT
from typing import TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from .. import herdfile
from ..errors import BadInput, LocalServerError, NoSuchHerd
from ..herdfile import HerdFile, HerdNode, TwoNode
from ..model.placement import Label
from ..model.tls import SslMode, Tls
from ..model.topology import EngineName
from . import homelock, layout, passfile, wiring
from .certificates import CA_KEY
from .certified import Certified
from .installation import Installation, find
from .layout import DEFAULT_REGIONS, USER, Groups
from .layout import NODES as _NODES
from .layout import PASSFILE as _PASSFILE
from .processes import Postmaster, Processes, remove_tree
from .replicas import MACHINES, Replicas
from .server import LocalServer, PortTaken, os_hint, port_is_free
from .user import ServerUser, server_user

_READER_FILE = rf"\.?reader-.+\.{_PASSFILE}"  # llm/reader.py writes them
_AUDIT_FILE = r"audit\.(?:key|pub)\Z|\.audit\.(?:key|pub)\."  # audit/signing.py does
_OWN = re.compile(
    rf"{homelock.FILE_NAME}\Z|{re.escape(homelock.DRILL_NAME)}\Z|{re.escape(homelock.BACKUP_NAME)}\Z|{_PASSFILE}\Z|\.{_PASSFILE}\.|\.{re.escape(herdfile.FILE_NAME)}\.|{_READER_FILE}"
    rf"|{_AUDIT_FILE}"
    r"|ca\.(key|crt)\Z|\.ca\.(key|crt)\."  # local/certificates.py
    rf"|{layout.ARCHIVING}\Z"
)
_PORT_ATTEMPTS = 5
_STOP_TIMEOUT_S = 30.0
_RELOAD_S = 30.0
_POLL_S = 0.1

T = TypeVar("T")
Progress = Callable[[str], None]


class LocalHerd:
    """The herd whose home is ``home``; ``lock_wait_s`` is how long to wait for another command to end."""

    def __init__(self, home: Path, *, lock_wait_s: float = 15) -> None:
        self.home = home.expanduser().resolve()
        self.lock_wait_s = lock_wait_s

    def up(
        self,
        labels: Sequence[Label] | None = None,
        engine: EngineName | None = None,
        pg_config: str | None = None,
        progress: Progress | None = None,
        *,
        replicas: int | None = None,
        groups: Groups | None = None,
        two_node: TwoNode | None = None,
        tls: bool | None = None,
    ) -> HerdFile:
        """Make the herd if there is none, repair what is half made, start what is not running.

        A new herd has a group per label (three regions by default, one for engine ``single``) of ``replicas`` nodes, in
        zones of their own; or ``groups``, each with a node at each of its places. ``tls`` None: a new herd has TLS, one
        that exists goes on as it was, but one from before there was TLS gets it once it is down. A server whose port
        was taken meanwhile gets another one, so callers read the ports from the result. Raises BadInput if ``labels``
        or ``engine`` are not the existing herd's, or if the home is a directory of something else; AlreadyRunning;
        WrongVersion; LocalServerError.
        """
        say = progress or (lambda _: None)
        user = server_user()
        self._make_home(user)
        with _os_errors_named(self.home), homelock.locked(self.home, self.lock_wait_s):
            herd = self._agreed(labels, engine, replicas, groups, two_node, tls)
            user.check_reach(self.home, "choose another home (--home), or open that directory (chmod o+x)")
            say("finding the PostgreSQL programs")
            installation = find(user, pg_config)
            if herd is None:
                herd = self._plan_new(labels, engine, replicas, groups, two_node, tls)
            self._tidy(herd, installation, user)
            herd = self._secured(herd, tls, user, say)
            if herd.replicated:
                herd = self._start_replicated(herd, installation, user, say)
            else:
                self._init_missing(herd, self._kept(herd), installation, user, say)
                herd = self._start(herd, installation, user, say)
            if herd.postgres_version != installation.version:
                herd = replace(herd, postgres_version=installation.version)
                herd.write(self.home)
            return herd

    def add(self, label: Label, pg_config: str | None = None, progress: Progress | None = None) -> HerdFile:
        """Start one more group at ``label``, as large as the others; it joins the herd when that is next opened.

        Killed halfway, ``up`` goes on with it. Raises NoSuchHerd, BadInput for a single server or attached ones.
        """
        herdfile.read(self.home)
        with homelock.locked(self.home, self.lock_wait_s):
            herd = self._agreed()
            assert herd is not None
            if herd.engine is EngineName.SINGLE:
                raise BadInput(
                    "a single server takes no others", hint="make a fleet (pgherd up --regions …) and load it"
                )
            for nodes in _groups(self._kept(herd)).values():
                if not any((self._directory(n.name) / "data").exists() for n in nodes):
                    raise LocalServerError(f"the data directory of {nodes[0].name} is gone", hint="see pgherd up")
            self._write(replace(layout.grown(self.home, herd, label), postgres_version=None), self.password())
        return self.up(None, None, pg_config, progress)

    def enlarge(self, replicas: int, two_node: TwoNode | None) -> None:
        """Give each group ``replicas`` nodes in all. Servers are stopped for it; ``up`` starts them with Patroni.

        Patroni takes a group's server over as it is, and copies it to the new nodes. Killed halfway, calling it again,
        or ``up``, goes on. Raises BadInput, see :func:`layout.enlarged`.
        """
        layout.enlarged(self.home, herdfile.read(self.home), replicas, two_node)
        self.down()
        with _os_errors_named(self.home), homelock.locked(self.home, self.lock_wait_s):
            herd = layout.enlarged(self.home, herdfile.read(self.home), replicas, two_node)
            self._write(herd, self.password())

    def remove(self, group: str) -> None:
        """Stop a group's local servers, remove their data, and take them out of the home's files.

        Killed halfway, calling it again goes on. Raises NoSuchHerd, AlreadyRunning, LocalServerError.
        """
        with _os_errors_named(self.home), homelock.locked(self.home, self.lock_wait_s):
            herd = herdfile.read(self.home)
            gone = [n for n in herd.nodes if n.group == group]
            local = [n for n in gone if n.data_directory is not None]
            rest = replace(herd, nodes=tuple(n for n in herd.nodes if n.group != group))
            if herd.replicated and local:
                user = server_user()
                replicas = Replicas(self.home, self._staying(rest), self.password())
                replicas.describe(find(user, None), user)
                replicas.retire(local, _STOP_TIMEOUT_S)
            else:
                _each(lambda n: self.postmaster(n.name).stop("fast", _STOP_TIMEOUT_S), local)
            for n in local:
                remove_tree(self._directory(n.name))
            rest.write(self.home)
            if herd.passfile is not None and Path(herd.passfile).parent == self.home:
                for n in gone:
                    passfile.put(Path(herd.passfile), n.host, n.port, herd.user, None)

    def has_data(self, group: str) -> bool:
        """Whether the group's local servers still have their data; they lose it one after the other."""
        nodes = [n for n in _local(herdfile.read(self.home)) if n.group == group]
        return bool(nodes) and all((self._directory(n.name) / "data").exists() for n in nodes)

    def down(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """Stop every server cleanly; data stays. Raises NoSuchHerd, AlreadyRunning, LocalServerError."""
        herdfile.read(self.home)
        with _os_errors_named(self.home), homelock.locked(self.home, self.lock_wait_s):
            herd = herdfile.read(self.home)
            if herd.replicated:
                Replicas(self.home, herd, self.password()).stop(timeout_s)
            else:
                _each(lambda n: self.postmaster(n.name).stop("fast", timeout_s), _local(herd))

    def destroy(self) -> None:
        """Stop every server at once and remove all that pgherd made; files of others stay, and then the directory too.

        Attached servers are only forgotten. Raises NoSuchHerd if this is no herd's home: then nothing is touched.
        """
        if not self._is_home():
            raise NoSuchHerd(f"{self.home} is not a herd's home: nothing was removed", hint="check --home")
        with _os_errors_named(self.home), homelock.locked(self.home, self.lock_wait_s):
            herd = self._existing()
            nodes = _local(herd) if herd else ()
            if herd and herd.replicated:
                replicas = Replicas(self.home, herd, "")
                replicas.kill()
                replicas.remove()
                _remove_if_empty(self.home / MACHINES)
            _each(lambda n: self.postmaster(n.name).stop("immediate", 5), nodes)
            for n in nodes:
                remove_tree(self._directory(n.name))
            _remove_if_empty(self.home / _NODES)
            remove_tree(self.home / layout.ARCHIVING)
            # herd.toml goes after what it describes, the lock last of all.
            for path in sorted(self.home.iterdir(), key=lambda p: p.name != _PASSFILE):
                if _OWN.match(path.name) and path.name != homelock.FILE_NAME:
                    path.unlink()
            (self.home / herdfile.FILE_NAME).unlink(missing_ok=True)
            (self.home / homelock.FILE_NAME).unlink()
        _remove_if_empty(self.home)

    def running(self) -> dict[str, bool]:
        """Whether each of this machine's servers runs, by node name. Raises NoSuchHerd."""
        return {n.name: self.postmaster(n.name).is_running() for n in _local(herdfile.read(self.home))}

    def postmaster(self, name: str) -> Postmaster:
        """A server's processes, to look at, signal, stop or kill."""
        return Postmaster(self._directory(name) / "data")

    def log(self, name: str) -> Path:
        """A server's log file."""
        return log_of(self._directory(name) / "data")

    def password(self) -> str:
        """The password of the herd's user, which servers need to reach each other. Raises LocalServerError if lost."""
        herd = herdfile.read(self.home)
        node = next(iter(_local(herd)), herd.nodes[0])
        found = passfile.lookup(self.home / _PASSFILE, node.host, node.port, herd.dbname, herd.user)
        if found is None:
            raise LocalServerError(
                f"{self.home / _PASSFILE} has no password for {node.name}", hint="put the file back from a backup"
            )
        return found

    def _kept(self, herd: HerdFile) -> tuple[HerdNode, ...]:
        """The local nodes but those that have left the herd and whose group's data is removed already."""
        return tuple(n for n in _local(herd) if not n.leaving or self.has_data(n.group))

    def _staying(self, herd: HerdFile) -> HerdFile:
        return replace(herd, nodes=self._kept(herd))

    def _directory(self, name: str) -> Path:
        return self.home / _NODES / name

    def _existing(self) -> HerdFile | None:
        try:
            return herdfile.read(self.home)
        except NoSuchHerd:
            return None

    def _is_home(self) -> bool:
        """Whether pgherd made this: it has a herd.toml, or nothing but what is written before that."""
        if (self.home / herdfile.FILE_NAME).exists():
            return True
        names = [p.name for p in self.home.iterdir()] if self.home.is_dir() else []
        return bool(names) and all(_OWN.match(n) for n in names)

    def _make_home(self, user: ServerUser) -> None:
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._is_home() and any(self.home.iterdir()):
                raise BadInput(
                    f"{self.home} holds files that are not a herd's", hint="name an empty or new directory (--home)"
                )
            # Others may pass through, to the servers' own directories, but see no list of what is here.
            if user.drops and self.home.stat().st_uid == 0:
                self.home.chmod(self.home.stat().st_mode & 0o777 | 0o011)
        except OSError as e:
            raise LocalServerError(
                f"{self.home} cannot be used as a home: {e.strerror}", hint="name a directory of yours (--home)"
            ) from e

    def _agreed(
        self,
        labels: Sequence[Label] | None = None,
        engine: EngineName | None = None,
        replicas: int | None = None,
        groups: Groups | None = None,
        two_node: TwoNode | None = None,
        tls: bool | None = None,
    ) -> HerdFile | None:
        herd = self._existing()
        if herd is None:
            return None
        if not _local(herd):
            raise BadInput(
                f"the herd in {self.home} is made of attached servers, which pgherd does not start",
                hint="name another home (--home) for a local herd",
            )
        here = {name: [n.label for n in nodes] for name, nodes in _groups(_local(herd)).items()}
        mine = [n.label for n in _local(herd)] if not herd.replicated else [labels[0] for labels in here.values()]
        if labels is not None and sorted(labels) != sorted(mine):
            raise BadInput(
                f"the herd in {self.home} has other regions: {', '.join(map(str, mine))}",
                hint="leave --regions out to start it, or name another home (--home) for another herd",
            )
        sizes = sorted({len(nodes) for nodes in here.values()})
        if (replicas is not None and sizes != [replicas]) or (groups is not None and groups != here):
            told = "; ".join(f"{name}: {', '.join(map(str, nodes))}" for name, nodes in here.items())
            raise BadInput(
                f"the herd in {self.home} has other groups: {told}",
                hint="leave --replicas and --group out to start it, or name another home (--home) for another herd",
            )
        if two_node is not None and two_node is not herd.two_node:
            raise BadInput(
                f"the herd in {self.home} was made with --two-node {herd.two_node or 'left out'}",
                hint="leave it out to start it, or name another home (--home) for another herd",
            )
        if tls is False and herd.has_ca:
            raise BadInput(
                f"the herd in {self.home} has TLS, and keeps it",
                hint="leave --no-tls out to start it, or name another home (--home) for another herd",
            )
        if engine is not None and engine is not herd.engine:
            raise BadInput(
                f"the herd in {self.home} has engine {herd.engine}, not {engine}",
                hint="leave --engine out to start it, or name another home (--home) for another herd",
            )
        return herd

    def _plan_new(
        self,
        labels: Sequence[Label] | None,
        engine: EngineName | None,
        replicas: int | None,
        groups: Groups | None,
        two_node: TwoNode | None,
        tls: bool | None,
    ) -> HerdFile:
        """Decide names and ports and write them down, the password first: herd.toml names its file."""
        engine = engine or EngineName.FLEET
        count = 1 if engine is EngineName.SINGLE else len(DEFAULT_REGIONS)
        places = [Label.parse(r) for r in DEFAULT_REGIONS[:count]] if labels is None else list(labels)
        wanted = groups or layout.groups_of(places, replicas or 1)
        herd = layout.new_herd(self.home, engine, wanted, two_node, tls=tls is not False)
        self._write(herd, passfile.new_password())
        return herd

    def certified(self, herd: HerdFile, user: ServerUser) -> Certified:
        """Whose certificates are made here: local nodes, and the machines of those with standbys."""
        return Certified(self.home, self._staying(herd), user)

    def _secured(self, herd: HerdFile, tls: bool | None, user: ServerUser, say: Progress) -> HerdFile:
        """Make what certificates are missing or end soon, also for a herd that has no TLS yet and may get it now."""
        wanted = herd.has_ca or tls or (herd.tls is None and tls is None)
        if not wanted:
            if herd.tls is None:
                herd = replace(herd, tls=Tls(SslMode.DISABLE))
                herd.write(self.home)
            return herd
        runs = any(Processes(self._directory(n.name)).pids() for n in _local(herd))
        if runs and herd.mutual_tls and not (self.home / CA_KEY).exists():
            raise LocalServerError(
                f"{self.home / CA_KEY} is gone, and nodes that run trust its CA only",
                hint="put it back from a backup; or pgherd down, then pgherd up, which makes another CA",
            )
        if not herd.has_ca and runs:
            if tls:
                raise BadInput("the herd's servers run without TLS", hint="pgherd down, then pgherd up --tls")
            return herd  # status says so
        changed = self.certified(herd, user).ensure()
        if not herd.has_ca:
            others = Tls(SslMode.PREFER)  # as libpq does by itself
            nodes = tuple(n if n.data_directory else replace(n, tls=n.tls or others) for n in herd.nodes)
            herd = replace(herd, nodes=nodes, tls=layout.with_ca(self.home))
            herd.write(self.home)
        elif changed:
            say(f"new certificates for {', '.join(changed)}")
        if wiring.may_begin(self.home, herd):
            say("giving etcd and Patroni certificates")
            certify = partial(self.certified, user=user)
            herd = wiring.secured(self.home, herd, self.password(), user, certify)
        return herd

    def _write(self, herd: HerdFile, password: str) -> None:
        path = self.home / _PASSFILE
        attached = [n for n in herd.nodes if n.data_directory is None]
        others = [(n, passfile.lookup(path, n.host, n.port, herd.dbname, herd.user)) for n in attached]
        passfile.write(path, [(n.host, n.port) for n in _local(herd)], USER, password)
        for n, theirs in others:
            passfile.put(path, n.host, n.port, herd.user, theirs)
        herd.write(self.home)

    def renew_certificates(self, *, ca: bool = False) -> int:
        """A new certificate for each local server and machine, without a restart; with ``ca``, of a new CA.

        A former CA stays trusted until this is called again without ``ca``: how many are forgotten now. Killed halfway,
        calling it again goes on. Raises NoSuchHerd, AlreadyRunning, BadInput without TLS, UnsafeSetting,
        LocalServerError.
        """
        herd = herdfile.read(self.home)
        if not herd.has_ca:
            raise BadInput(
                f"the herd in {self.home} has no certificates of its own",
                hint="a local herd gets them by `pgherd down` and `pgherd up --tls`; attached servers have theirs",
            )
        with _os_errors_named(self.home), homelock.locked(self.home, self.lock_wait_s):
            herd, user = herdfile.read(self.home), server_user()
            return self.certified(herd, user).renew(ca=ca)

    def _server(self, node: HerdNode, herd: HerdFile, installation: Installation, user: ServerUser) -> LocalServer:
        data, log = self._directory(node.name) / "data", self.log(node.name)
        return LocalServer(installation, user, data, node.port, log, share=len(herd.nodes), tls=herd.has_ca)

    def _tidy(self, herd: HerdFile, installation: Installation, user: ServerUser) -> None:
        """Remove what a killed command left half written; it may hold the password."""
        for path in self.home.glob(".*"):
            if _OWN.match(path.name):
                path.unlink()
        for n in self._kept(herd):
            self._server(n, herd, installation, user).tidy()

    def _init_missing(
        self,
        herd: HerdFile,
        nodes: Iterable[HerdNode],
        installation: Installation,
        user: ServerUser,
        say: Progress,
    ) -> None:
        missing = [n for n in nodes if not (self._directory(n.name) / "data").exists()]
        if not missing:
            return
        if herd.postgres_version is not None:
            raise LocalServerError(
                f"the data directory of {missing[0].name} is gone: {self._directory(missing[0].name) / 'data'}",
                hint="put it back from a backup, or `pgherd destroy` and begin anew: its rows are nowhere else",
            )
        (self.home / _NODES).mkdir(exist_ok=True)
        (self.home / _NODES).chmod(0o711 if user.drops else 0o700)
        password = self.password()

        def make(node: HerdNode) -> str:
            directory = self._directory(node.name)
            directory.mkdir(mode=0o700, exist_ok=True)
            user.give(directory)
            self._server(node, herd, installation, user).init(USER, password)
            return f"made {node.name}"

        _each(make, missing, say)

    def _start_replicated(
        self, herd: HerdFile, installation: Installation, user: ServerUser, say: Progress
    ) -> HerdFile:
        """Start groups with standbys; a group's first node is made here, Patroni copies it to the others."""
        replicas = Replicas(self.home, self._staying(herd), self.password())
        replicas.thaw()
        taken = {n.name for n in self._kept(herd) if not self._listens(n)}
        for _ in range(_PORT_ATTEMPTS):
            if taken:
                replicas.stop(_STOP_TIMEOUT_S)  # who runs has been told the old ports
                herd = _moved(herd, taken)
                say(f"other ports for {', '.join(sorted(taken))}: theirs are taken")
                self._write(herd, self.password())
            taken = self._start_groups(herd, installation, user, say)
            if not taken:
                self._create_databases(self._staying(herd))
                return herd
            replicas = Replicas(self.home, self._staying(herd), self.password())
        raise _no_free_port(taken)

    def _start_groups(self, herd: HerdFile, installation: Installation, user: ServerUser, say: Progress) -> set[str]:
        """Start all; the nodes whose ports turned out to be taken, usually none."""
        herd = self._staying(herd)
        replicas = Replicas(self.home, herd, self.password())
        for node in herd.nodes:
            if (self._directory(node.name) / "data" / "PG_VERSION").exists():
                self._server(node, herd, installation, user).check_version()
        (self.home / _NODES).mkdir(exist_ok=True)
        replicas.describe(installation, user)
        replicas.rejoin_etcd(say)
        replicas.tell_watchers()
        empty = [
            nodes[0]
            for nodes in _groups(herd.nodes).values()
            if not any((self._directory(n.name) / "data").exists() for n in nodes)
        ]
        self._init_missing(herd, empty, installation, user, say)
        say("opening etcd")
        replicas.open_store()
        unlucky = replicas.wait_ready(say)
        if not unlucky:
            replicas.open_store(ready=True)
        return unlucky

    def _create_databases(self, herd: HerdFile) -> None:
        _each(lambda n: self._create_database(n, herd), [nodes[0] for nodes in _groups(herd.nodes).values()])

    def _listens(self, node: HerdNode) -> bool:
        """Whether a node has its ports, or could have them."""
        if Processes(self._directory(node.name)).pids():
            return True
        return port_is_free(node.port) and port_is_free(node.rest_port or node.port)

    def _start(self, herd: HerdFile, installation: Installation, user: ServerUser, say: Progress) -> HerdFile:
        """Start what is not running; a server whose port is taken gets another one, written down before it is used."""
        password = self.password()

        def start(node: HerdNode) -> tuple[str, bool]:
            server = self._server(node, herd, installation, user)
            server.check_version()
            if server.is_running():
                server.signal(SIGCONT)  # perhaps frozen by a drill that was killed
                if server.status == "stopping":
                    server.stop("fast", _STOP_TIMEOUT_S)
            try:
                server.start()
            except PortTaken:
                return node.name, False
            server.wait_ready()
            self._create_database(node, herd)
            return f"{node.name} is up on port {node.port}", True

        for _ in range(_PORT_ATTEMPTS):
            outcomes = _each(start, self._kept(herd))
            unlucky = {said for said, done in outcomes if not done}
            for said in (s for s, done in outcomes if done):
                say(said)
            if not unlucky:
                return herd
            herd = _moved(herd, unlucky)
            say(f"other ports for {', '.join(sorted(unlucky))}: theirs are taken")
            self._write(herd, password)
        raise _no_free_port(unlucky)

    def _create_database(self, node: HerdNode, herd: HerdFile) -> None:
        nodes = _groups(herd.nodes)[node.group]
        server = make_conninfo(
            host=",".join(n.host for n in nodes),
            port=",".join(str(n.port) for n in nodes),
            target_session_attrs="read-write",
            user=herd.user,
            dbname="postgres",
            password=self.password(),  # a password file alone would yield to the caller's PGPASSWORD
            connect_timeout=10,
            **herd.tls_parameters(),
        )
        try:
            with psycopg.connect(server, autocommit=True) as connection:
                found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [herd.dbname]).fetchone()
                if found is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(herd.dbname)))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return  # a killed `up` had its server still working on it: now it is there
        except psycopg.Error as e:
            raise LocalServerError(
                f"{node.name} runs on port {node.port} but cannot be used: {str(e).strip()}",
                hint=f"see {self.log(node.name)}; the password is the one in {self.home / _PASSFILE}",
            ) from e


def log_of(data: Path) -> Path:
    """The log file of the server whose data directory is ``data``."""
    return data.parent / "server.log"


@contextmanager
def _os_errors_named(home: Path) -> Iterator[None]:
    """A full disk or a missing permission as a LocalServerError that names the file."""
    try:
        yield
    except OSError as e:
        raise LocalServerError(f"{e.filename or home}: {e.strerror}", hint=os_hint(str(e))) from e


def _local(herd: HerdFile) -> tuple[HerdNode, ...]:
    """The nodes that pgherd started, on this machine."""
    return tuple(n for n in herd.nodes if n.data_directory is not None)


def _no_free_port(names: Iterable[str]) -> LocalServerError:
    return LocalServerError(
        f"found no free port for {', '.join(sorted(names))} in {_PORT_ATTEMPTS} attempts",
        hint="other programs take ports as fast as they become free: call again",
    )


def _groups(nodes: Iterable[HerdNode]) -> dict[str, list[HerdNode]]:
    """The nodes of each group, the preferred primary first."""
    found: dict[str, list[HerdNode]] = {}
    for node in nodes:
        found.setdefault(node.group, []).append(node)
    return found


def _moved(herd: HerdFile, names: Iterable[str]) -> HerdFile:
    chosen = set(names)
    taken = layout.ports_of(herd.nodes)
    ports = iter(layout.node_ports(len(chosen), herd.replicated, taken))
    rest = iter(layout.free_rest_ports(len(chosen) if herd.replicated else 0, taken))
    return replace(
        herd,
        nodes=tuple(
            replace(n, port=next(ports), rest_port=n.rest_port and next(rest)) if n.name in chosen else n
            for n in herd.nodes
        ),
    )


def _each(work: Callable[[HerdNode], T], nodes: Sequence[HerdNode], say: Callable[[T], None] | None = None) -> list[T]:
    """Do ``work`` for all nodes at once; when all have ended, raise the first failure. Results in the nodes' order."""
    if not nodes:
        return []
    with ThreadPoolExecutor(len(nodes)) as pool:
        futures = [pool.submit(work, n) for n in nodes]
        for f in as_completed(futures):
            if say is not None and f.exception() is None:
                say(f.result())
    return [f.result() for f in futures]


def _remove_if_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
