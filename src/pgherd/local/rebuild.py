"""A new local herd from data directories that exist elsewhere: laid out, recovered, started. What a restore does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import WouldOverwrite
from ..herdfile import HerdFile, HerdNode, TwoNode, sync_directory, write_atomically
from ..model.topology import EngineName
from . import certificates, homelock, layout
from . import herd as herds
from .certificates import Holder
from .herd import LocalHerd
from .installation import find
from .layout import Groups
from .server import LocalServer, PortTaken
from .user import ServerUser, server_user

RECOVERY_TIMEOUT_S = 24 * 3600.0
_OLD_SERVERS = ("archive_command", "archive_timeout", "restore_command", "recovery_", "primary_", "synchronous_standby")
"""Settings in postgresql.auto.conf that are the copied server's own: a copy must not write into its archive."""
_SAFE = "max_logical_replication_workers = 0  # no subscription of the old server may wake up here\n"
_PATRONIS = ("patroni.dynamic.json", "standby.signal", "postgresql.conf.backup", "postgresql.base.conf.backup")

Progress = Callable[[str], None]


def begin(home: Path) -> None:
    """Make the home of a herd that is to be rebuilt. Raises WouldOverwrite if anything is there, LocalServerError."""
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise WouldOverwrite(
            f"{home} is not empty: nothing was restored", hint="name an empty or new directory (--home)"
        )
    LocalHerd(home)._make_home(server_user())


def rebuild(
    home: Path,
    engine: EngineName,
    password: str,
    groups: Groups,
    lay_out: Callable[[str, Path], None],
    recovery: Callable[[str], str],
    progress: Progress,
) -> HerdFile:
    """Make a herd in ``home``, see :func:`begin`, of the first node of each group, started once all have recovered.

    ``lay_out`` makes a copy of a group's data directory under a path; ``recovery`` gives the settings of its recovery.
    Killed before its end, ``pgherd up`` refuses what is there, and ``pgherd destroy`` removes it. Raises WrongVersion,
    LocalServerError with the end of a server's log.
    """
    local, owner = LocalHerd(home), server_user()
    with homelock.locked(local.home, local.lock_wait_s):
        owner.check_reach(local.home, "choose another home (--home), or open that directory (chmod o+x)")
        installation = find(owner)
        alone = layout.new_herd(local.home, engine, {name: labels[:1] for name, labels in groups.items()}, None)
        herd = replace(alone, postgres_version=installation.version)
        local._write(herd, password)
        (local.home / layout.NODES).mkdir(mode=0o711 if owner.drops else 0o700)

        def recover(node: HerdNode) -> HerdNode:
            server = local._server(node, herd, installation, owner)
            _lay_out(server, node.group, lay_out, owner)
            certificates.ensure(local.home, [Holder(node.name, node.host, server.data.parent)], owner)
            server.recovery = f"\n# Until the next start.\n{recovery(node.group)}{_SAFE}"
            _start(server, herd)
            progress(f"recovered {node.name}")
            return replace(node, port=server.port)

        recovered = replace(herd, nodes=tuple(herds._each(recover, herd.nodes)))
        if recovered != herd:
            local._write(recovered, password)
    return recovered


def _start(server: LocalServer, herd: HerdFile) -> None:
    """Start a server that recovers; other programs may have taken the port that was free when it was chosen."""
    for last in (False, False, False, True):
        try:
            server.start(RECOVERY_TIMEOUT_S)
            break
        except PortTaken:
            if last:
                raise
            server.port = layout.free_ports(1, layout.ports_of(herd.nodes))[0]
    server.wait_ready(RECOVERY_TIMEOUT_S)


def start_whole(home: Path, groups: Groups, two_node: TwoNode | None, progress: Progress) -> HerdFile:
    """Start what :func:`rebuild` made as any herd is started, with the standbys that its groups should have."""
    local = LocalHerd(home)
    local.down()
    with homelock.locked(local.home, local.lock_wait_s):
        alone = local._existing()
        assert alone is not None
        if any(len(labels) > 1 for labels in groups.values()):
            whole = layout.new_herd(local.home, alone.engine, groups, two_node)
            for group in groups:
                made, wanted = (next(n for n in h.nodes if n.group == group).name for h in (alone, whole))
                if made != wanted:
                    (local.home / layout.NODES / made).rename(local.home / layout.NODES / wanted)
            local._write(replace(whole, postgres_version=alone.postgres_version), local.password())
    return local.up(progress=progress)


def _lay_out(server: LocalServer, group: str, lay_out: Callable[[str, Path], None], owner: ServerUser) -> None:
    """Bring a data directory to where the server wants it, under another name until all of it is there."""
    parent = server.data.parent
    parent.mkdir(mode=0o700)
    owner.give(parent)
    work = parent / "new-restored"
    lay_out(group, work)
    base = work / "postgresql.base.conf"
    if base.exists():  # Patroni's own postgresql.conf names the old server's port; it is written anew
        base.replace(work / "postgresql.conf")
    for name in _PATRONIS:
        (work / name).unlink(missing_ok=True)
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
