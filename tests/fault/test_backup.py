"""A restored herd holds all that was acknowledged before the backup, transactions over several groups whole."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgherd
from pgherd import dialect, herdfile
from pgherd.backup import moment as moments
from pgherd.backup import take
from pgherd.backup.expire import Expired, expire
from pgherd.backup.keeper import POINT_PREFIX, Tool, setting_of
from pgherd.backup.manifest import choose, name_of, read_all
from pgherd.backup.moment import name_point
from pgherd.backup.place import Folder
from pgherd.backup.restore import restore
from pgherd.backup.take import stop_archiving, take_backup
from pgherd.backup.target import Target, parse_targets
from pgherd.backup.verify import verify
from pgherd.backup.wal import segments_between
from pgherd.client import connect_async
from pgherd.errors import BackupDamaged, BadInput, HerdError, ResidencyRefused, WouldOverwrite, WrongVersion
from pgherd.local.herd import LocalHerd
from pgherd.local.installation import find
from pgherd.local.user import server_user
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from twins import EAST, WEST, child, eventually

SCHEMA = """
CREATE TABLE doc (id bigint PRIMARY KEY, pair bigint NOT NULL);
SELECT create_distributed_table('doc', 'id', shard_count => 4);
CREATE TABLE kind (name text PRIMARY KEY);
SELECT create_reference_table('kind');
"""
PINNED = """
CREATE TABLESPACE east WITH (replica_placement = '{"num_replicas": 1, "placement_blocks":
    [{"cloud": "local", "region": "us-east", "zone": "*", "min_num_replicas": 1}]}');
CREATE TABLE patient (id bigint, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE patient_east PARTITION OF patient FOR VALUES IN ('east') TABLESPACE east;
"""
DYING = """
import os, pathlib, signal, sys
import pgherd
from pgherd.engines.servers.two_phase import TwoPhaseTransaction

async def dying(self, decider):
    os.kill(os.getpid(), signal.SIGKILL)

with pgherd.connect(home=pathlib.Path(sys.argv[1])) as herd:
    TwoPhaseTransaction._decide = dying
    herd.table("doc").insert([{"id": i, "pair": -1} for i in range(-20, 0)])
"""
PAIR = 1_000_000


@dataclass(frozen=True)
class Place:
    """A running herd and a directory beside it for backups and restored homes."""

    directory: Path
    local: LocalHerd

    @property
    def home(self) -> Path:
        return self.local.home

    def backup(self, label: str, *to: str) -> pgherd.backup.manifest.Backup:
        async def run() -> pgherd.backup.manifest.Backup:
            async with connect_async(home=self.home) as herd:
                targets = parse_targets(to or [str(self.directory / "backups")])
                return await take_backup(herd, self.home, targets, label, tool=Tool.PLAIN)

        return asyncio.run(run())

    @contextmanager
    def restored(self, label: str | None = None, to: datetime | str | None = None) -> Iterator[pgherd.sync.Herd]:
        to_time = to if isinstance(to, datetime) else None
        found = choose(read_all([Folder(self.directory / "backups")]), label, to_time)
        home = self.directory / "restored"
        asyncio.run(restore(found, home, to))
        try:
            with pgherd.connect(home=home) as herd:
                yield herd
        finally:
            LocalHerd(home).destroy()


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="pgherd-backup-"))
    directory.chmod(0o711)
    local = LocalHerd(directory / "home")
    try:
        local.up([Label.parse(EAST), Label.parse(WEST)], EngineName.FLEET)
        with pgherd.connect(home=local.home) as herd:
            herd.execute(herd.plan(dialect.parse(SCHEMA)))
            herd.table("kind").insert([{"name": "a"}, {"name": "b"}])
        yield Place(directory, local)
    finally:
        local.destroy()
        shutil.rmtree(directory)


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    """The herd with an empty table, and no backups yet."""
    with pgherd.connect(home=running.home) as herd:
        herd.table("doc").delete("true")
    yield running

    async def off() -> None:
        async with connect_async(home=running.home) as herd:
            await stop_archiving(herd)

    asyncio.run(off())
    shutil.rmtree(running.directory / "backups", ignore_errors=True)


class Writer(threading.Thread):
    """Writes rows that belong to several groups in pairs, until stopped: (n, n) and (n + PAIR, n) in one commit."""

    def __init__(self, home: Path, first: int) -> None:
        super().__init__()
        self.home, self.next = home, first
        self.acknowledged: list[int] = []
        self.problem: BaseException | None = None
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            with pgherd.connect(home=self.home) as herd:
                table = herd.table("doc")
                while not self.done.is_set():
                    n, self.next = self.next, self.next + 1
                    table.insert([{"id": i, "pair": n} for i in (n, n + PAIR, n + 2 * PAIR)])
                    self.acknowledged.append(n)
        except BaseException as error:
            self.problem = error

    def stop(self) -> None:
        self.done.set()
        self.join(240)
        assert not self.is_alive()
        assert self.problem is None, self.problem


@contextmanager
def writers(home: Path) -> Iterator[list[Writer]]:
    started = [Writer(home, 100_000 * i) for i in range(3)]
    try:
        yield started
    finally:
        for writer in started:
            writer.stop()


def pairs(herd: pgherd.sync.Herd) -> dict[int, int]:
    """How many rows there are of each commit."""
    return {r["pair"]: r["n"] for r in herd.sql("SELECT pair, count(*) AS n FROM doc GROUP BY pair")}


def far(started: list[Writer]) -> Callable[[], bool]:
    """Whether every writer has come further than now."""
    goals = [len(w.acknowledged) + 20 for w in started]
    return lambda: all(len(w.acknowledged) > n or w.problem for w, n in zip(started, goals, strict=True))


def test_what_was_acknowledged_is_restored_and_every_commit_is_whole(place: Place) -> None:
    with writers(place.home) as started:
        eventually(far(started), "writing")
        before = [n for w in started for n in list(w.acknowledged)]
        made = place.backup("one")
        after = [w.next for w in started]
        eventually(far(started), "writing on")
    with place.restored() as herd:
        found = pairs(herd)
        assert set(found.values()) == {3}, "a commit over several groups was torn"
        assert set(before) <= set(found)
        assert all(n <= after[n // 100_000] for n in found)
        assert [r["name"] for r in herd.sql("SELECT name FROM kind ORDER BY 1")] == ["a", "b"]
        if made.quiet:
            assert sum(c.rows for g in made.groups for c in g.counts if "doc" in c.relation) == 3 * len(found)
        herd.table("doc").insert([{"id": i, "pair": -5} for i in range(-9, 0)])
        assert pairs(herd)[-5] == 9
    with pgherd.connect(home=place.home) as herd:
        assert -5 not in pairs(herd), "the copy wrote to the original"


def test_no_commit_over_several_groups_falls_between_the_points(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a long transaction keeps the backup from holding the tables."""
    with pgherd.connect(home=place.home) as herd:
        shard = herd.topology.shards(herd.topology.table("doc"))[0]
    point, between = moments._point, []

    async def pointed(connection: Any, group: str, name: str) -> Any:
        if group == EAST:
            return await point(connection, group, name)
        thread = threading.Thread(target=commit)
        thread.start()
        between.append(thread)
        await asyncio.to_thread(eventually, blocked, "the commit to be held back")
        return await point(connection, group, name)

    def commit() -> None:
        with pgherd.connect(home=place.home) as herd:
            herd.table("doc").insert([{"id": i, "pair": -7} for i in range(-40, -20)])

    def blocked() -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pgherd.decision'::regclass"
        with psycopg.connect(herdfile.read(place.home).dsn(place.home, EAST)) as connection:
            return connection.execute(query).fetchone() != (0,)

    monkeypatch.setattr(moments, "ATTEMPTS", 1)
    monkeypatch.setattr(moments, "_point", pointed)
    reach = herdfile.read(place.home).dsn(place.home, str(shard.home))
    with psycopg.connect(reach) as long, writers(place.home) as started:
        long.execute(f"LOCK TABLE {shard.relation.sql} IN ROW EXCLUSIVE MODE")
        eventually(far(started), "writing")
        before = [n for w in started for n in list(w.acknowledged)]
        made = place.backup("busy")
        eventually(far(started), "writing on")
    between[0].join(240)
    assert not made.quiet
    assert all(g.counts == () for g in made.groups)
    with pgherd.connect(home=place.home) as herd:
        assert pairs(herd)[-7] == 20
    with place.restored() as herd:
        found = pairs(herd)
        assert -7 not in found
        assert set(found.values()) == {3}, "a commit over several groups was torn"
        assert set(before) <= set(found)


def test_to_any_time_after_the_backup(place: Place) -> None:
    place.backup("base")
    with writers(place.home) as started:
        eventually(far(started), "writing")
        before = [n for w in started for n in list(w.acknowledged)]
        then = datetime.now(UTC)
        after = [w.next for w in started]
        eventually(far(started), "writing on")
    with pytest.raises(BadInput, match="does not reach"), place.restored(to=datetime.now(UTC)):
        pass
    assert not (place.directory / "restored").exists()
    place.backup("later")
    with place.restored(to=then) as herd:
        found = pairs(herd)
        assert set(found.values()) <= {3}, "a commit over several groups was torn"
        assert set(before) <= set(found)
        assert all(n <= after[n // 100_000] for n in found)


def test_to_a_moment_that_was_named_later(place: Place) -> None:
    async def named() -> None:
        async with connect_async(home=place.home) as herd:
            made = await name_point(herd.engine, POINT_PREFIX + "later")
            assert set(made.points) == {EAST, WEST}

    place.backup("one")
    with pgherd.connect(home=place.home) as herd:
        herd.table("doc").insert([{"id": i, "pair": 1} for i in range(20)])
        asyncio.run(named())
        herd.table("doc").insert([{"id": i, "pair": 2} for i in range(100, 120)])
    place.backup("two")
    with pytest.raises(BadInput, match="no restore point"), place.restored("two", "later"):
        pass
    assert not (place.directory / "restored").exists()
    with place.restored("one", "later") as herd:
        assert pairs(herd) == {1: 20}


@pytest.mark.long
def test_old_backups_go_and_what_is_left_can_be_restored_to_any_moment(place: Place) -> None:
    backups = Folder(place.directory / "backups")

    def wal() -> set[str]:
        return {p.name for p in backups.path.rglob("wal/*") if p.is_file()}

    def expired(keep: int) -> Expired:
        user = server_user()
        return asyncio.run(expire([backups], keep, setting_of(find(user), user, place.home)))

    with pgherd.connect(home=place.home) as herd:
        for number, label in enumerate(("one", "two", "three")):
            place.backup(label)
            herd.table("doc").insert({"id": number, "pair": number})
            herd.sql("SELECT pg_switch_wal()")

        async def named() -> None:
            async with connect_async(home=place.home) as other:
                await name_point(other.engine, POINT_PREFIX + "later")

        asyncio.run(named())
        herd.table("doc").insert({"id": 7, "pair": 7})
    place.backup("four")
    with pytest.raises(BadInput, match="0 backups"):
        expired(0)
    before = wal()
    assert expired(9) == Expired((), ("one", "two", "three", "four"), ())
    assert wal() <= before  # before the first backup begins, WAL is of no use
    assert expired(2) == Expired(("one", "two"), ("three", "four"), ())
    assert {n[8:] for n in wal()} < {n[8:] for n in before}
    assert [f.backup.label for f in read_all([backups])] == ["three", "four"]
    assert {p.name for p in backups.path.glob("*/*/base/*")} == {"three", "four"}
    with place.restored("three", "later") as herd:
        assert {r["id"] for r in herd.sql("SELECT id FROM doc")} == {0, 1, 2}
    # Killed between a base backup and the word of it: the same again goes on.
    shutil.rmtree(next(backups.path.glob("*/*/base/three")))
    assert expired(1).kept == ("four",)
    with place.restored() as herd:
        assert {r["id"] for r in herd.sql("SELECT id FROM doc")} == {0, 1, 2, 7}


def test_what_a_killed_copy_left_in_a_server_spoils_no_backup(place: Place) -> None:
    for node in herdfile.read(place.home).nodes:
        (Path(node.data_directory or "") / "backup_manifest.tmp").write_text("half of it")
    place.backup("one")
    user = server_user()
    found = choose(read_all([Folder(place.directory / "backups")]), "one")
    asyncio.run(verify(found, setting_of(find(user), user, place.home)))


def test_a_backup_with_a_group_elsewhere_stays(place: Place) -> None:
    east, west = place.directory / "backups", place.directory / "west"
    place.backup("apart", f"{EAST}={east}", f"{WEST}={west}")
    place.backup("together")
    user = server_user()
    found = asyncio.run(expire([Folder(east)], 1, setting_of(find(user), user, place.home)))
    assert found == Expired((), ("together",), ("apart",))
    asyncio.run(verify(choose(read_all([Folder(east), Folder(west)]), "apart"), setting_of(find(user), user, east)))


def test_what_a_killed_writer_left_is_settled_in_the_copy(place: Place) -> None:
    """The commit is prepared and undecided at the moment, so it must be in no group of the copy."""
    reach = herdfile.read(place.home).dsn(place.home)
    process = child(DYING, place.home)
    process.communicate(timeout=240)
    with psycopg.connect(reach, autocommit=True) as connection:
        idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"
        eventually(lambda: connection.execute(idle).fetchone() == (0,), "the writer's sessions to end")

    async def unsettled() -> Any:
        async with connect_async(home=place.home) as herd:
            targets = parse_targets([str(place.directory / "backups")])
            return await take_backup(herd, place.home, targets, "left", tool=Tool.PLAIN)

    asyncio.run(unsettled())
    with place.restored() as herd:
        assert pairs(herd) == {}


def damaged(backups: Path, what: str) -> str:
    """Damage the backup in ``backups``; what the error must say."""
    group = choose(read_all([Folder(backups)]), "one").backup.group(WEST)
    names = segments_between(group.start_lsn, group.point_lsn, group.timeline, group.segment_bytes)
    segment = backups / group.wal / names[0]
    match what:
        case "wal missing":
            segment.unlink()
            return names[0]
        case "wal short":
            segment.write_bytes(segment.read_bytes()[:1000])
        case "wal changed":
            start = int(group.start_lsn.split("/")[1], 16) % group.segment_bytes
            content = bytearray(segment.read_bytes())
            content[start : start + 64] = bytes(64)
            segment.write_bytes(content)
        case "file changed":
            changed = next((backups / group.base / "base").rglob("1259"))
            changed.write_bytes(changed.read_bytes()[::-1])
        case "group missing":
            manifest = backups / name_of("one")
            document = json.loads(manifest.read_text())
            document["groups"] = [g for g in document["groups"] if g["name"] != WEST]
            manifest.write_text(json.dumps(document))
    return WEST


def test_a_damaged_backup_is_named_and_nothing_is_restored(place: Place) -> None:
    place.backup("one")
    backups, original = place.directory / "backups", place.directory / "original"
    backups.rename(original)
    setting = setting_of(find(server_user()), server_user(), place.home)
    asyncio.run(verify(choose(read_all([Folder(original)]), "one"), setting))
    try:
        for what in ("wal missing", "wal short", "wal changed", "file changed", "group missing"):
            shutil.copytree(original, backups)
            expected = damaged(backups, what)
            with pytest.raises(BackupDamaged, match=expected), place.restored():
                pass
            assert not (place.directory / "restored").exists(), what
            shutil.rmtree(backups)
    finally:
        shutil.rmtree(original)


def test_what_is_refused(place: Place) -> None:
    place.backup("one")
    backups = place.directory / "backups"
    found = choose(read_all([Folder(backups)]), None)
    with pytest.raises(WouldOverwrite):
        asyncio.run(restore(found, place.home))
    with pgherd.connect(home=place.home) as herd:
        assert herd.sql("SELECT count(*) AS n FROM kind") == [{"n": 2}]
    with pytest.raises(BadInput, match="already"):
        place.backup("one")
    with pytest.raises(BadInput, match="no backup"):
        choose([found], "two")
    with pytest.raises(BadInput, match="oldest backup"):
        choose([found], None, datetime(2020, 1, 1, tzinfo=UTC))
    manifest = backups / name_of("one")
    manifest.write_text(manifest.read_text().replace('"postgres_version": "18', '"postgres_version": "15'))
    with pytest.raises(WrongVersion, match="15"), place.restored():
        pass
    for owner in backups.rglob("owner.json"):
        owner.write_text(owner.read_text().replace(str(place.home), "/elsewhere"))
    with pytest.raises(BadInput, match="another herd"):
        place.backup("two")


def test_a_backup_that_was_killed_does_not_exist_and_is_made_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise HerdError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(take.manifest, "write", dies)
        with pytest.raises(HerdError, match="killed"):
            place.backup("one")
    with pytest.raises(BadInput, match="no backup"):
        read_all([Folder(place.directory / "backups")])
    assert place.backup("one").label == "one"


def test_an_archive_that_takes_nothing_loses_nothing(place: Place) -> None:
    """The servers keep what can't be archived, and never replace what is there by something else."""
    made = place.backup("one")
    wal = place.directory / "backups" / made.group(EAST).wal
    reach = herdfile.read(place.home).dsn(place.home, EAST)
    with psycopg.connect(reach, autocommit=True) as connection:
        current = connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchone()
        assert current is not None
        foreign = wal / current[0]
        foreign.write_bytes(b"something else")
        connection.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
        connection.execute("SELECT pg_switch_wal()")
        failed = "SELECT failed_count > 0 AND last_failed_wal = %s FROM pg_stat_archiver"
        eventually(lambda: connection.execute(failed, current).fetchone() == (True,), "a failure")
        assert foreign.read_bytes() == b"something else"
        foreign.unlink()
        eventually(lambda: foreign.exists() and foreign.stat().st_size > 1000, "the segment", 120)
    eventually(lambda: not [p for p in wal.iterdir() if p.name.startswith(".")], "nothing half copied to be left")


def test_pinned_rows_go_nowhere_but_to_their_region(place: Place) -> None:
    with pgherd.connect(home=place.home) as herd:
        herd.execute(herd.plan(dialect.parse(PINNED)))
    east, west = place.directory / "backups" / "e", place.directory / "backups" / "w"
    for to in ([str(east)], [f"us-west={west}", str(east)], [f"us-west={east}", f"us-east={east}"]):
        with pytest.raises(ResidencyRefused, match=r"patient|two regions"):
            place.backup("one", *to)
        assert not east.exists()
    place.backup("one", f"us-east={east}", f"us-west={west}")
    assert {p.name for p in east.iterdir()} == {"backups", "pgpass", "us-east"}
    with pytest.raises(BackupDamaged, match="us-east"):
        choose(read_all([Folder(west)]), None)
    assert len(choose(read_all([Folder(west), Folder(east)]), None).places) == 2


def test_targets() -> None:
    assert parse_targets(["us-east=/a", "/b"]) == (
        Target(Folder(Path("/a")), EAST, EAST),
        Target(Folder(Path("/b"))),
    )
    assert parse_targets(["/b"], "us-east") == (Target(Folder(Path("/b")), EAST),)
    for bad in ([], ["/a", "/b"], ["x=/a", "x=/b"]):
        with pytest.raises(BadInput):
            parse_targets(bad)
    with pytest.raises(BadInput):
        parse_targets(["x=/a"], "x")
