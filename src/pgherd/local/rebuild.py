"""A new local herd from data directories that exist elsewhere: laid out, recovered, started. What a restore does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import WouldOverwrite
from ..herdfile import HerdFile, HerdNode, sync_directory, write_atomically
from ..model.placement import Label
from ..model.topology import EngineName
from . import homelock
from .herd import _PASSFILE, DATABASE, USER, LocalHerd, _each, _free_ports
from .installation import find
from .server import HOST, LocalServer
from .user import ServerUser, server_user

RECOVERY_TIMEOUT_S = 24 * 3600.0
_OLD_SERVERS = (
    "archive_command",
    "archive_timeout",
    "restore_command",
    "recovery_",
    "primary_",
    "synchronous_standby_names",
)
"""Settings in postgresql.auto.conf that are the copied server's own: a copy must not write into its archive."""
_SAFE = "max_logical_replication_workers = 0  # no subscription of the old server may wake up here\n"


def rebuild(
    home: Path,
    engine: EngineName,
    password: str,
    groups: Sequence[tuple[str, Label]],
    data: Mapping[str, Path],
    recovery: Callable[[str], str],
    progress: Callable[[str], None],
) -> HerdFile:
    """Make a herd in ``home`` (empty or new) of one server a group, and start it once all have recovered.

    ``data`` names a copy of each group's data directory; ``recovery`` gives the settings of its recovery. Killed before
    its end, ``pgherd up`` refuses what is there, and ``pgherd destroy`` removes it. Raises WouldOverwrite,
    WrongVersion, LocalServerError with the end of a server's log.
    """
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise WouldOverwrite(
            f"{home} is not empty: nothing was restored", hint="name an empty or new directory (--home)"
        )
    local, owner = LocalHerd(home), server_user()
    local._make_home(owner)
    with homelock.locked(local.home, local.lock_wait_s):
        owner.check_reach(local.home, "choose another home (--home), or open that directory (chmod o+x)")
        installation = find(owner)
        nodes = tuple(
            HerdNode(name, name, HOST, port, label, str(local._directory(name) / "data"))
            for (name, label), port in zip(groups, _free_ports(len(groups)), strict=True)
        )
        file = str(local.home / _PASSFILE)
        herd = HerdFile(engine, DATABASE, USER, file, nodes, postgres_version=installation.version)
        local._write(herd, password)
        (local.home / "nodes").mkdir(mode=0o711 if owner.drops else 0o700)

        def recover(node: HerdNode) -> str:
            server = local._server(node, herd, installation, owner)
            _lay_out(server, data[node.group], owner)
            server.recovery = f"\n# Until the next start.\n{recovery(node.group)}{_SAFE}"
            server.start(RECOVERY_TIMEOUT_S)
            server.wait_ready(RECOVERY_TIMEOUT_S)
            return f"recovered {node.name}"

        _each(recover, nodes, progress)
    return herd


def _lay_out(server: LocalServer, source: Path, owner: ServerUser) -> None:
    """Copy a data directory to where the server wants it, under another name until all of it is there."""
    parent = server.data.parent
    parent.mkdir(mode=0o700)
    owner.give(parent)
    work = parent / "new-restored"
    shutil.copytree(source, work, symlinks=True)
    auto = work / "postgresql.auto.conf"
    lines = auto.read_text(encoding="utf-8").splitlines()
    kept = "".join(f"{line}\n" for line in lines if not line.lstrip().startswith(_OLD_SERVERS))
    write_atomically(auto, kept, mode=0o600)
    (work / "recovery.signal").touch(mode=0o600)
    for path in (work, *work.rglob("*")):
        owner.give(path)
    work.chmod(0o700)
    work.rename(server.data)
    sync_directory(parent)
