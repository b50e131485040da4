"""The file that says which servers make up a herd: ``<home>/herd.toml``, for local and attached herds alike.

It holds no secret and may be read by anyone: passwords stay in the libpq password file that ``passfile`` names. Paths
are absolute in memory; in the file they are relative to the home where they lie inside it, so that a home can be moved.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tomli_w

from .errors import BadInput, NoSuchHerd, UnknownName, UnsafeSetting, WrongVersion
from .exchange import Identity
from .model.placement import Label
from .model.tls import HERD_CA, SYSTEM, SslMode, Tls, is_loopback
from .model.topology import EngineName, Group, GroupId, Node, NodeId, Role

FORMAT = 1
"""Format of the file that this version writes, and the only one it reads."""
FILE_NAME = "herd.toml"

_REQUIRED = object()
_TLS_KEYS = ("sslmode", "sslrootcert")
_REST_KEYS = ("rest_cacert", "rest_certificate")
_TOP_KEYS = (
    *("format", "engine", "dbname", "user", "passfile", "postgres_version", "two_node", "nodes", "etcd"),
    "regions",
)
_NODE_KEYS = ("name", "group", "host", "port", "cloud", "region", "zone", "data_directory", "leaving", "rest_port")
_ETCD_KEYS = ("name", "host", "client_port", "peer_port", "tls")


class TwoNode(StrEnum):
    """What a group of two nodes does when one of them is lost; three keep both promises."""

    DURABLE = "durable"
    """writes stop until it is back: nothing that was acknowledged is ever on one node only"""
    AVAILABLE = "available"
    """writes go on: what is acknowledged meanwhile is lost if the other node is lost as well"""


@dataclass(frozen=True, slots=True)
class HerdNode:
    """One server; ``data_directory`` is None for a server that pgherd did not start.

    ``leaving``: its group is to leave the herd, or has left it; whoever finishes that takes the entry away.
    """

    name: str
    group: str
    host: str
    port: int
    label: Label
    data_directory: str | None = None
    rest_port: int | None = None
    """Patroni's REST API, of a node that has standbys beside it"""
    leaving: bool = False
    tls: Tls | None = None
    """How it is reached, where that is not as the herd's other nodes are."""
    rest: Identity | None = None
    """How Patroni's REST API is, likewise; of a node that pgherd did not start"""

    @property
    def machine(self) -> str:
        """The machine it is on; on a local herd each zone of a region counts as one."""
        return str(self.label)


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """A member of the store through which replicated groups elect; ``name`` is the machine it is on."""

    name: str
    host: str
    client_port: int
    peer_port: int
    tls: bool = False
    """Whether it, and the REST API of every Patroni, talk to those only who have a certificate of the herd's CA"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint in a region; ``model`` is the model's name there, if it differs. No key."""

    url: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class HerdFile:
    """A herd's servers and how to reach them; of a group's nodes the first in the file is preferred as primary.

    ``postgres_version`` is None while a local herd is being made, and for attached herds.
    """

    engine: EngineName
    dbname: str
    user: str
    passfile: str | None
    nodes: tuple[HerdNode, ...]
    format: int = FORMAT
    postgres_version: str | None = None
    etcd: tuple[EtcdMember, ...] = ()
    two_node: TwoNode | None = None
    tls: Tls | None = None
    """How clients reach the nodes; None, in homes of before there was TLS: as libpq does by itself"""
    rest: Identity | None = None
    """Whom to trust at the REST API of attached nodes' Patroni, and what to show there"""
    embedding: Mapping[str, Endpoint] = field(default_factory=dict)
    """by region, the endpoint that embeds texts that are pinned to it"""
    llm: Mapping[str, Endpoint] = field(default_factory=dict)
    """by region, the endpoint that answers from rows that are pinned to it; ``model`` is never None"""

    @property
    def replicated(self) -> bool:
        """Whether groups have standbys that pgherd runs."""
        return bool(self.etcd)

    @property
    def mutual_tls(self) -> bool:
        """Whether etcd and Patroni's REST API talk to those only who have a certificate of the herd's CA."""
        return self.replicated and all(member.tls for member in self.etcd)

    def groups(self) -> tuple[Group, ...]:
        """The groups in the file's order, numbered from 1."""
        members: dict[str, list[Node]] = {}
        for n in self.nodes:
            role = Role.STANDBY if n.group in members else Role.PRIMARY
            node = Node(NodeId(n.name), n.host, n.port, n.label, role, self._tls_of_links(n))
            members.setdefault(n.group, []).append(node)
        return tuple(Group(GroupId(g), i, tuple(nodes)) for i, (g, nodes) in enumerate(members.items(), 1))

    def tls_of(self, node: HerdNode) -> Tls | None:
        """How clients reach a node."""
        return node.tls or self.tls

    def _tls_of_links(self, node: HerdNode) -> Tls | None:
        """How other servers reach it."""
        tls = self.tls_of(node)
        if tls is not None and tls.sslrootcert and node.data_directory is not None:
            return replace(tls, sslrootcert=HERD_CA)
        return tls

    @property
    def has_ca(self) -> bool:
        """Whether pgherd made certificates for the servers that it started."""
        is_local = any(n.data_directory is not None for n in self.nodes)
        return is_local and self.tls is not None and self.tls.sslrootcert is not None

    def parameters(self, user: str) -> dict[str, Any]:
        """libpq's parameters that all nodes share; sslmode is each node's own, see :meth:`groups`."""
        base = {"user": user, "dbname": self.dbname}
        return {**base, "sslrootcert": self.tls.sslrootcert} if self.tls and self.tls.sslrootcert else base

    def tls_parameters(self) -> dict[str, str]:
        """libpq's TLS parameters for the servers that pgherd started."""
        return (self.tls or Tls(SslMode.DISABLE)).parameters()

    def refuse_plain(self) -> None:
        """Raise UnsafeSetting if passwords and rows would go to another machine without TLS."""
        for node in self.nodes:
            tls = self.tls_of(node)
            refuse_plain(node.host, tls.sslmode if tls else None, f"node {node.name}")

    def dsn(self, home: Path, region: str | None = None, passfile: bool = True) -> str:
        """A libpq URI of all nodes, or of those in ``region`` (or the group of that name); it holds no password.

        A URI has one way of TLS: nodes that are reached otherwise than the first are left out.

        Raises UnknownName for a region without nodes. Source: PostgreSQL 18 manual, 32.1.1.2 "Connection URIs".
        """
        nodes = [n for n in self.nodes if region is None or region in (n.label.region, n.group)]
        if not nodes:
            known = ", ".join(dict.fromkeys(n.label.region for n in self.nodes))
            raise UnknownName(f"there is no region {region!r} in this herd", hint=f"regions: {known}")
        tls = self.tls_of(nodes[0])
        nodes = [n for n in nodes if self.tls_of(n) == tls]
        hosts = ",".join(f"{_uri_host(n.host)}:{n.port}" for n in nodes)
        options = [f"passfile={quote(str(home.absolute() / self.passfile))}"] if passfile and self.passfile else []
        if len({n.group for n in nodes}) < len(nodes):
            options += ["target_session_attrs=read-write", "connect_timeout=2"]
        options += [f"{k}={quote(v)}" for k, v in (tls.parameters() if tls else {}).items()]
        query = "?" + "&".join(options) if options else ""
        return f"postgresql://{quote(self.user, safe='')}@{hosts}/{quote(self.dbname, safe='')}{query}"

    def write(self, home: Path) -> None:
        """Replace ``<home>/herd.toml`` by this, all or nothing, also through a power cut."""
        document: dict[str, Any] = {"format": self.format, "engine": self.engine.value}
        document |= {"dbname": self.dbname, "user": self.user}
        if self.passfile is not None:
            document["passfile"] = _relative(self.passfile, home)
        if self.postgres_version is not None:
            document["postgres_version"] = self.postgres_version
        if self.two_node is not None:
            document["two_node"] = self.two_node.value
        document |= _tls_document(self.tls, home) | _rest_document(self.rest, home)
        document["nodes"] = [_node_document(n, home) for n in self.nodes]
        if self.etcd:
            document["etcd"] = [asdict(member) for member in self.etcd]
        regions: dict[str, dict[str, Any]] = {}
        for key, endpoints in (("embedding", self.embedding), ("llm", self.llm)):
            for region, endpoint in endpoints.items():
                entry = {k: v for k, v in asdict(endpoint).items() if v is not None}
                regions.setdefault(region, {})[key] = entry
        if regions:
            document["regions"] = regions
        write_atomically(home / FILE_NAME, tomli_w.dumps(document), mode=0o644)


def refuse_plain(host: str, sslmode: str | None, what: str) -> None:
    """Raise UnsafeSetting unless ``host`` is this machine, or everything that is sent to it is encrypted.

    ``sslmode`` None: libpq's own, from ``PGSSLMODE``.
    """
    mode = sslmode or os.environ.get("PGSSLMODE") or SslMode.PREFER.value
    if not is_loopback(host) and not (mode in SslMode.__members__.values() and SslMode(mode).encrypts):
        raise UnsafeSetting(
            f"{what} is on another machine, {host}, and sslmode {mode} does not keep what is sent there from others",
            hint="set sslmode = 'verify-full' and sslrootcert (herd.toml, or the DSN); 'require' encrypts, but is"
            " fooled by whoever answers in the server's place",
        )


def tls_of_environment() -> Tls | None:
    """What libpq's environment says of TLS: an attached herd keeps it, for its links and for those who come later."""
    mode, root = os.environ.get("PGSSLMODE"), os.environ.get("PGSSLROOTCERT")
    return Tls(SslMode(mode), root) if mode and mode in SslMode.__members__.values() else None


def default_home() -> Path:
    """``PGHERD_HOME``, else ``/var/lib/pgherd`` for root and ``~/.pgherd`` for anyone else."""
    chosen = os.environ.get("PGHERD_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path("/var/lib/pgherd") if os.geteuid() == 0 else Path("~/.pgherd").expanduser()


def read(home: Path) -> HerdFile:
    """The herd whose home is ``home``.

    Raises NoSuchHerd without the file, WrongVersion for another format, BadInput when it is malformed.
    """
    path = home.absolute() / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchHerd(
            f"there is no herd in {home}", hint="make one with `pgherd up`, or name its home with --home or PGHERD_HOME"
        ) from None
    except OSError as e:
        raise BadInput(f"{path} cannot be read: {e.strerror}", hint="run as the user who made the herd") from e
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 text", hint="write it again") from e
    return _herd(_document(text, str(path)), str(path), path.parent)


def parse_toml(text: str, where: str) -> HerdFile:
    """Read an attach file written by a person; ``where`` is its path, named in errors.

    A node needs ``host`` and ``region``; ``port`` is 5432, ``cloud`` local and ``zone`` a if left out, ``group`` the
    region's name (numbered when the region repeats), ``name`` the group's. Raises BadInput, WrongVersion.
    """
    document = _document(text, where)
    document.setdefault("format", FORMAT)
    document.setdefault("engine", EngineName.FLEET.value)
    nodes = document.get("nodes")
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, dict):
            if "data_directory" in node:
                raise BadInput(f"{where}: data_directory is not for attached servers", hint="leave it out")
            for key, value in (("port", 5432), ("cloud", "local"), ("zone", "a")):
                node.setdefault(key, value)
    return _herd(document, where, Path(where).absolute().parent)


def names_for(regions: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """A name for each region: its own, numbered from the second on (``us-east``, ``us-east-2``); never one twice."""
    used, found = set(taken), []
    for region in regions:
        name, n = region, 1
        while name in used or (n > 1 and name in regions):
            n += 1
            name = f"{region}-{n}"
        used.add(name)
        found.append(name)
    return found


def write_atomically(path: Path, text: str, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Write ``text`` to ``path`` so that a reader, or a crash, sees the old file or the new one.

    The rename also replaces a symbolic link instead of following it: the directory may belong to a less trusted user.
    """
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fchmod(f.fileno(), mode)
            if owner is not None:
                os.fchown(f.fileno(), *owner)
            os.fsync(f.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the renames in ``directory`` survive a power cut."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _document(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise BadInput(f"{where}: not valid TOML: {e}", hint="see https://toml.io") from e


def _herd(document: Mapping[str, Any], where: str, base: Path) -> HerdFile:
    version = _get(document, "format", int, where, "")
    if version != FORMAT:
        raise WrongVersion(
            f"{where} has format {version}, this pgherd reads format {FORMAT}",
            hint="use the pgherd that wrote it, or another home (--home)",
        )
    _refuse_unknown(document, (*_TOP_KEYS, *_TLS_KEYS, *_REST_KEYS), where, "")
    engine = _get(document, "engine", str, where, "")
    if engine not in EngineName.__members__.values():
        raise BadInput(f"{where}: engine {engine!r} is not known", hint="engines: " + ", ".join(EngineName))
    passfile = _get(document, "passfile", str, where, "", None)
    entries = _get(document, "nodes", list, where, "")
    nodes = _nodes(entries, where, base)
    known = {n.label.region for n in nodes}
    endpoints = _endpoints(_get(document, "regions", dict, where, "", {}), known, where)
    if engine == EngineName.SINGLE and len(nodes) > 1:
        raise BadInput(f"{where}: engine single has one node, not {len(nodes)}", hint="write engine = 'fleet'")
    return HerdFile(
        engine=EngineName(engine),
        dbname=_get(document, "dbname", str, where, ""),
        user=_get(document, "user", str, where, ""),
        passfile=None if passfile is None else str(base / Path(passfile).expanduser()),
        nodes=nodes,
        postgres_version=_get(document, "postgres_version", str, where, "", None),
        etcd=tuple(_member(e, where, i) for i, e in enumerate(_get(document, "etcd", list, where, "", []), 1)),
        two_node=_two_node(_get(document, "two_node", str, where, "", None), where),
        tls=_tls(document, where, "", base),
        rest=_rest(document, where, "", base),
        embedding=endpoints["embedding"],
        llm=endpoints["llm"],
    )


def _tls(table: Mapping[str, Any], where: str, at: str, base: Path) -> Tls | None:
    mode, root = (_get(table, key, str, where, at, None) for key in _TLS_KEYS)
    if mode is None and root is None:
        return None
    if mode not in SslMode.__members__.values():
        raise BadInput(f"{where}: {at}sslmode {mode!r} is not known", hint="one of " + ", ".join(SslMode))
    if root is not None and root != SYSTEM:
        root = str(base / Path(root).expanduser())
    return Tls(SslMode(mode), root)


def _tls_document(tls: Tls | None, home: Path) -> dict[str, str]:
    if tls is None:
        return {}
    root = tls.sslrootcert
    return replace(tls, sslrootcert=root and (root if root == SYSTEM else _relative(root, home))).parameters()


def _rest(table: Mapping[str, Any], where: str, at: str, base: Path) -> Identity | None:
    ca, own = (_get(table, key, str, where, at, None) for key in _REST_KEYS)
    if own is not None and ca is None:
        raise BadInput(f"{where}: {at}rest_cacert is missing", hint=f"name the CAs to trust, or write {SYSTEM!r}")
    if ca is None:
        return None
    ca, own = (p and (p if p == SYSTEM else str(base / Path(p).expanduser())) for p in (ca, own))
    return Identity(certificate=own, trust=None if ca == SYSTEM else ca)


def _rest_document(rest: Identity | None, home: Path) -> dict[str, str]:
    if rest is None:
        return {}
    paths = zip(_REST_KEYS, (rest.trust or SYSTEM, rest.certificate), strict=True)
    return {key: path if path == SYSTEM else _relative(path, home) for key, path in paths if path is not None}


def _endpoints(regions: Mapping[str, Any], known: set[str], where: str) -> dict[str, dict[str, Endpoint]]:
    """By purpose, then by region."""
    found: dict[str, dict[str, Endpoint]] = {"embedding": {}, "llm": {}}
    for region, entry in regions.items():
        at = f"regions.{region}."
        if region not in known:
            hint = f"regions: {', '.join(sorted(known))}"
            raise BadInput(f"{where}: {at[:-1]}: no node is in that region", hint=hint)
        if not isinstance(entry, dict):
            raise BadInput(f"{where}: {at[:-1]} is not a table", hint=f"write [{at}embedding]")
        _refuse_unknown(entry, tuple(found), where, at)
        for purpose in entry:
            said, place = _get(entry, purpose, dict, where, at), f"{at}{purpose}."
            _refuse_unknown(said, ("url", "model"), where, place)
            url, model = (_get(said, key, str, where, place, None) for key in ("url", "model"))
            if url is None:
                raise BadInput(f"{where}: {place}url is missing", hint='add url = "https://host/v1"')
            if purpose == "llm" and not model:
                raise BadInput(f"{where}: {place}model is missing", hint="add the model's name there")
            found[purpose][region] = Endpoint(url, model)
    return found


def _two_node(value: str | None, where: str) -> TwoNode | None:
    if value is not None and value not in TwoNode.__members__.values():
        raise BadInput(f"{where}: two_node {value!r} is not known", hint="one of " + ", ".join(TwoNode))
    return None if value is None else TwoNode(value)


def _member(entry: Any, where: str, number: int) -> EtcdMember:
    at = f"etcd[{number}]."
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: etcd[{number}] is not a table", hint="write an [[etcd]] table for each member")
    _refuse_unknown(entry, _ETCD_KEYS, where, at)
    name, host = (_get(entry, key, str, where, at) for key in ("name", "host"))
    client, peer = (_get(entry, key, int, where, at) for key in ("client_port", "peer_port"))
    return EtcdMember(name, host, client, peer, _get(entry, "tls", bool, where, at, False))


def _nodes(entries: list[Any], where: str, base: Path) -> tuple[HerdNode, ...]:
    if not entries:
        raise BadInput(f"{where}: nodes is empty", hint="write a [[nodes]] table for each server")
    found: list[tuple[HerdNode, bool, bool]] = []
    for i, entry in enumerate(entries, 1):
        at = f"nodes[{i}]."
        if not isinstance(entry, dict):
            raise BadInput(f"{where}: nodes[{i}] is not a table", hint="write a [[nodes]] table for each server")
        _refuse_unknown(entry, (*_NODE_KEYS, *_TLS_KEYS, *_REST_KEYS), where, at)
        found.append((_node(entry, where, at, base), "name" in entry, "group" in entry))
    groups = iter(
        names_for([n.label.region for n, _, has in found if not has], [n.group for n, _, has in found if has])
    )
    grouped = [(replace(n, group=n.group if has_group else next(groups)), has_name) for n, has_name, has_group in found]
    names = iter(names_for([n.group for n, has in grouped if not has], [n.name for n, has in grouped if has]))
    nodes = tuple(n if has else replace(n, name=next(names)) for n, has in grouped)
    for key, values in (
        ("name", [n.name for n in nodes]),
        ("host and port", [f"{n.host}:{n.port}" for n in nodes]),
    ):
        twice = next((v for v in values if values.count(v) > 1), None)
        if twice is not None:
            raise BadInput(f"{where}: two nodes have the {key} {twice!r}", hint="each server is written once")
    return nodes


def _node(entry: Mapping[str, Any], where: str, at: str, base: Path) -> HerdNode:
    port = _get(entry, "port", int, where, at)
    if not 0 < port < 65536:
        raise BadInput(f"{where}: {at}port is {port}", hint="a port is 1 to 65535")
    place = {key: _get(entry, key, str, where, at) for key in ("cloud", "region", "zone")}
    for key, value in place.items():
        if not value or "." in value or "*" in value:
            raise BadInput(f"{where}: {at}{key} {value!r} is not a place", hint="no dot, no * and not empty")
    data = _get(entry, "data_directory", str, where, at, None)
    return HerdNode(
        name=_get(entry, "name", str, where, at, ""),
        group=_get(entry, "group", str, where, at, ""),
        host=_get(entry, "host", str, where, at),
        port=port,
        label=Label(**place),
        data_directory=None if data is None else str(base / data),
        leaving=_get(entry, "leaving", bool, where, at, False),
        rest_port=_get(entry, "rest_port", int, where, at, None),
        tls=_tls(entry, where, at, base),
        rest=_rest(entry, where, at, base),
    )


def _get(table: Mapping[str, Any], key: str, kind: type, where: str, at: str, default: Any = _REQUIRED) -> Any:
    if key not in table:
        if default is not _REQUIRED:
            return default
        raise BadInput(f"{where}: {at}{key} is missing", hint=f"add {key} = …")
    value = table[key]
    if type(value) is not kind or value == "":
        wanted = {
            str: "text",
            int: "a whole number",
            list: "a list of tables",
            bool: "true or false",
            dict: "a table",
        }[kind]
        raise BadInput(f"{where}: {at}{key} is {value!r}, not {wanted}", hint=f"correct {key}")
    return value


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], where: str, at: str) -> None:
    for key in table:
        if key == "password":
            # The value must not be quoted, and the file is world-readable.
            raise BadInput(f"{where}: {at}password does not belong here", hint="put it in a file named by passfile")
        if key not in known:
            raise BadInput(f"{where}: {at}{key} is not known", hint="keys: " + ", ".join(known))


def _node_document(node: HerdNode, home: Path) -> dict[str, Any]:
    document: dict[str, Any] = {"name": node.name, "group": node.group, "host": node.host, "port": node.port}
    document |= {"cloud": node.label.cloud, "region": node.label.region, "zone": node.label.zone}
    if node.data_directory is not None:
        document["data_directory"] = _relative(node.data_directory, home)
    if node.leaving:
        document["leaving"] = True
    if node.rest_port is not None:
        document["rest_port"] = node.rest_port
    return document | _tls_document(node.tls, home) | _rest_document(node.rest, home)


def _relative(path: str, home: Path) -> str:
    p, base = Path(path), home.absolute()
    return str(p.relative_to(base)) if p.is_relative_to(base) else path


def _uri_host(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")
