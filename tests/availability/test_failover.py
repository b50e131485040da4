"""A primary dies in every way there is; nothing that was acknowledged is lost, and clients don't notice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

import pgherd
from availability.replicated import Replicated, wait_until
from pgherd.availability import keys
from pgherd.availability.guard import SECOND_WATCHER
from pgherd.availability.recopy import recopy
from pgherd.availability.switchover import switchover
from pgherd.availability.takeover import takeover_state
from pgherd.cli.servers import read_status
from pgherd.dcs import NAMESPACE
from pgherd.errors import BadInput, InDoubt, LocalServerError, UnknownName
from pgherd.herdfile import HerdNode
from pgherd.local import machine
from pgherd.local.processes import Processes, commanded, is_alive
from pgherd.sync import Herd

pytestmark = pytest.mark.long


class Writer(threading.Thread):
    """Upserts rows with growing ids, one at a time, until told to stop; keeps what was acknowledged."""

    def __init__(self, replicated: Replicated, first: int) -> None:
        super().__init__()
        self._home = replicated.home
        self._next = first
        self._over = threading.Event()
        self.acknowledged: list[int] = []
        self.failures: list[BaseException] = []

    def run(self) -> None:
        try:
            with pgherd.connect(home=self._home, patience_s=90) as herd:
                table = herd.table("entry")
                while not self._over.is_set():
                    table.upsert({"id": self._next, "place": "here", "words": str(self._next)})
                    self.acknowledged.append(self._next)
                    self._next += 1
        except BaseException as error:  # the test says what it was
            self.failures.append(error)

    def more(self, count: int = 20) -> None:
        """Wait until that many more writes have been acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal or self.failures)

    def end(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def writer(replicated: Replicated, request: pytest.FixtureRequest) -> Iterator[Writer]:
    """A writer at work; afterwards no write that it was told of may be missing."""
    number = abs(hash(request.node.name)) % 1_000_000
    working = Writer(replicated, number * 1_000_000)
    working.start()
    try:
        working.more()
        yield working
        working.more()
    finally:
        working.end()
    assert working.failures == []
    with replicated.connect() as connection:
        found = {row[0] for row in connection.execute("SELECT id FROM entry_here").fetchall()}
    assert set(working.acknowledged) - found == set()


def killed_server(replicated: Replicated, node: HerdNode) -> None:
    pid = replicated.postmaster(node).pid
    assert pid is not None
    replicated.kill([pid])


def killed_node(replicated: Replicated, node: HerdNode) -> None:
    replicated.kill(replicated.processes(node).pids())


def frozen(replicated: Replicated, node: HerdNode) -> None:
    replicated.processes(node).signal(signal.SIGSTOP)


@pytest.mark.parametrize("broken", [killed_server, killed_node, frozen])
def test_a_standby_takes_over_and_the_old_primary_comes_back(
    replicated: Replicated, writer: Writer, broken: object
) -> None:
    old = replicated.primary()
    broken(replicated, old)  # type: ignore[operator]
    replicated.new_primary(old)
    writer.more()
    wait_until(replicated.in_step)
    with replicated.connect(old) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


def test_a_machine_that_is_gone_is_judged_by_the_others(replicated: Replicated, writer: Writer) -> None:
    old = replicated.primary()
    replicated.kill_machine(old)
    new = replicated.new_primary(old)
    writer.more()
    assert not replicated.processes(old).pids(), "nobody was there to start it again"
    logs = [replicated.machine(n) / "watcher.log" for n in replicated.nodes if n != old]
    assert any(f"dropped the leader key of {old.name}" in log.read_text() for log in logs)
    replicated.local.up()
    wait_until(replicated.in_step)
    assert replicated.primary() == new


def test_a_second_failure_right_after_the_first_loses_nothing(replicated: Replicated, writer: Writer) -> None:
    first = replicated.primary()
    killed_node(replicated, first)
    second = replicated.new_primary(first)
    writer.more(1)
    killed_node(replicated, second)
    writer.more()
    wait_until(replicated.in_step)


def test_a_planned_switchover(replicated: Replicated, writer: Writer) -> None:
    old = replicated.primary()
    to = [n for n in replicated.nodes if n != old][-1]  # not the one that would win a race of equals
    done = switchover(replicated.home, "main", to.name)
    assert (done.old, done.new) == (old.name, to.name)
    assert replicated.primary() == to
    writer.more()
    with pytest.raises(BadInput, match="already"):
        switchover(replicated.home, "main", to.name)
    with pytest.raises(BadInput, match="nothing to switch to"):
        switchover(replicated.home, "other")
    with pytest.raises(UnknownName, match="no node"):
        switchover(replicated.home, "main", "nobody")


def test_a_handover_to_a_standby_that_is_not_in_step_is_not_begun(replicated: Replicated, writer: Writer) -> None:
    old = replicated.primary()
    pid = replicated.postmaster(old).pid
    with closing(machine.read(replicated.machine(old)).store()) as store:
        keys.ask(store, "main", old.name, "nobody")  # it was in step when it was asked for
        wait_until(lambda: keys.asked(store, "main") is None)
    assert "nobody is not in step" in (replicated.machine(old) / "watcher.log").read_text()
    assert replicated.postmaster(old).pid == pid


def test_reads_go_on_through_a_failover(replicated: Replicated, client: Herd) -> None:
    table = client.table("entry")
    table.upsert([{"id": i, "place": p, "embedding": [i, 0, 0, 1]} for i in (1, 2) for p in ("here", "there")])
    old = replicated.primary()
    killed_node(replicated, old)
    assert len(table.search([1, 0, 0, 1], k=4, where="id < 3")) == 4
    assert table.get((1, "here")) is not None
    assert client.sql("SELECT count(*) AS n FROM entry WHERE id < 3 AND place = 'here'", region="other") == [{"n": 2}]


@contextmanager
def without_standbys(replicated: Replicated, primary: HerdNode) -> Iterator[None]:
    """The standbys are there, and receive nothing."""
    receivers = []
    for node in replicated.nodes:
        if node != primary:
            with replicated.connect(node) as connection:
                row = connection.execute("SELECT pid FROM pg_stat_wal_receiver").fetchone()
                assert row is not None
                receivers.append(int(row[0]))
    for pid in receivers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in receivers:
            if is_alive(pid):
                os.kill(pid, signal.SIGCONT)


def test_a_write_that_gave_up_waiting_for_its_standbys_is_in_doubt(replicated: Replicated, client: Herd) -> None:
    """PostgreSQL calls it a success, with a warning; the row is on one server only."""
    primary = replicated.primary()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            client.table("entry").insert({"id": 77, "place": "here"})
        except BaseException as error:
            failures.append(error)

    with without_standbys(replicated, primary):
        writing = threading.Thread(target=write)
        writing.start()
        with replicated.connect(primary) as connection:
            cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_until(lambda: connection.execute(cancel).fetchall())
        writing.join(60)
    assert [type(f) for f in failures] == [InDoubt]


def test_nobody_waits_for_ever_for_standbys_that_are_not_there(replicated: Replicated) -> None:
    """Not longer than the caller's own limit, nor without one; what was left to itself is done when they are back."""

    async def write() -> None:
        async with pgherd.connect_async(home=replicated.home, patience_s=1) as herd:
            table = herd.table("entry")
            with without_standbys(replicated, replicated.primary()):
                limited = asyncio.ensure_future(table.upsert({"id": 78, "place": "here", "words": "limited"}))
                await asyncio.wait([limited], timeout=2)
                limited.cancel()
                ended, _ = await asyncio.wait([limited], timeout=60)
                assert limited in ended
                assert limited.cancelled()
                assert await table.get((78, "here")) is None  # what no standby holds is shown to nobody
                with pytest.raises(InDoubt, match="none is in reach"):
                    await table.insert({"id": 79, "place": "here"})
                with pytest.raises(InDoubt, match="none is in reach"):
                    await herd.sql("INSERT INTO entry (id, place) VALUES (%s, 'here') RETURNING id", [80])
            for key in (78, 79, 80):
                async with asyncio.timeout(60):
                    while await table.get((key, "here")) is None:
                        await asyncio.sleep(0.1)

    asyncio.run(write())


def test_a_primary_whose_files_are_gone_is_copied_anew_by_itself(replicated: Replicated, writer: Writer) -> None:
    old = replicated.primary()
    data = replicated.postmaster(old).data
    shutil.rmtree(data / "global")
    killed_server(replicated, old)
    replicated.new_primary(old)
    wait_until(replicated.in_step)
    assert (data / "global" / "pg_control").exists()
    writer.more()


def test_a_standby_whose_wal_is_gone_is_copied_anew_by_itself(replicated: Replicated) -> None:
    """Patroni keeps the WAL of one that is away for half an hour; afterwards nothing does."""
    primary = replicated.primary()
    standby = next(n for n in replicated.nodes if n != primary)
    before = (replicated.postmaster(standby).data / "PG_VERSION").stat().st_ino
    replicated.kill_machine(standby)
    slot = standby.name.replace("-", "_")

    def forgotten() -> bool:
        with replicated.connect(primary) as connection:
            wal = replicated.postmaster(primary).data / "pg_wal"
            first = min(p.name for p in wal.iterdir() if len(p.name) == 24)
            for _ in range(10):  # beyond wal_keep_size
                connection.execute("INSERT INTO entry_here (id, place) VALUES (-3, 'here') ON CONFLICT DO NOTHING")
                connection.execute("SELECT pg_logical_emit_message(false, '', 'x'), pg_switch_wal()")
            connection.execute("CHECKPOINT")
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [slot]
            )
            connection.execute("CHECKPOINT")
            return first not in {p.name for p in wal.iterdir()}

    try:
        wait_until(forgotten)
    finally:
        replicated.local.up()
    wait_until(replicated.in_step)
    assert (replicated.postmaster(standby).data / "PG_VERSION").stat().st_ino != before


def test_a_standby_is_copied_anew_when_told(replicated: Replicated) -> None:
    primary = replicated.primary()
    standby = next(n for n in replicated.nodes if n != primary)
    before = (replicated.postmaster(standby).data / "PG_VERSION").stat().st_ino
    with pytest.raises(BadInput, match="is the primary"):
        recopy(replicated.home, primary.name, print)
    with pytest.raises(BadInput, match="nowhere else"):
        recopy(replicated.home, next(n.name for n in replicated.file.nodes if n.group == "other"), print)
    recopy(replicated.home, standby.name, print)
    wait_until(replicated.in_step)
    assert (replicated.postmaster(standby).data / "PG_VERSION").stat().st_ino != before


def test_a_member_of_etcd_that_lost_its_data_joins_the_others_again(replicated: Replicated) -> None:
    member = next(m for m in replicated.file.etcd if m.name != replicated.primary().machine)
    data = replicated.home / "machines" / member.name / "etcd" / "data"
    shutil.rmtree(data)
    replicated.local.up()

    store = machine.read(replicated.home / "machines" / member.name).store()
    wait_until(lambda: store.is_healthy((member.host, member.client_port)))
    assert (data / "member").exists()
    wait_until(replicated.in_step)


def test_a_failover_right_after_an_outage_of_etcd(replicated: Replicated, writer: Writer) -> None:
    """Standbys that a primary has told that it goes on without etcd take it for the leader for 20 s more."""
    old = replicated.primary()
    others = [n for n in replicated.nodes if n != old]
    members = [Processes(replicated.home / "machines" / m.name / "etcd") for m in replicated.file.etcd]

    def in_failsafe(node: HerdNode) -> bool:
        return "failsafe_mode_is_active" in replicated.rest(node).state()

    # A Patroni that is still starting answers no primary, which then does not go on without etcd.
    wait_until(lambda: all(replicated.rest(n).state().get("role") for n in replicated.nodes))
    for member in members:
        member.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: all(in_failsafe(n) for n in others))
        writer.more()
    finally:
        for member in members:
            member.signal(signal.SIGCONT)
    with closing(machine.read(replicated.machine(old)).store()) as store:
        wait_until(lambda: keys.leader(store, "main"))
    killed_server(replicated, old)
    replicated.new_primary(old)
    logs = [(replicated.machine(n) / "watcher.log").read_text() for n in others]
    assert any(f"takes {old.name} for the primary still" in log for log in logs)
    writer.more()
    wait_until(replicated.in_step)


def test_most_of_etcd_without_its_data_is_refused(replicated: Replicated) -> None:
    """Who may be primary is known nowhere else; a guess could lose what was acknowledged."""
    directories = [replicated.home / "machines" / m.name / "etcd" for m in replicated.file.etcd[1:]]
    for directory in directories:
        (directory / "data").rename(directory / "aside")
    try:
        with pytest.raises(LocalServerError, match="nobody knows who may be primary"):
            replicated.local.up()
    finally:
        for directory in directories:
            (directory / "aside").rename(directory / "data")


def test_a_machine_has_one_watcher(replicated: Replicated) -> None:
    directory = replicated.machine(replicated.nodes[0])
    argv = [sys.executable, "-m", "pgherd.availability.watcher", str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == SECOND_WATCHER
    assert "has a watcher already" in done.stderr


def test_a_watcher_that_dies_is_followed_by_another(replicated: Replicated) -> None:
    primary = replicated.primary()
    directory = replicated.machine(primary)
    old = machine.watcher_pid(directory)
    assert old is not None
    with replicated.connect(primary) as connection:
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: machine.watcher_pid(directory) not in (None, old))
        wait_until(replicated.in_step)
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), "its server goes on"
    assert replicated.primary() == primary
    wait_until(lambda: (found := takeover_state(replicated.home)) is not None and found["off"] == [])
    killed_server(replicated, primary)
    replicated.new_primary(primary)
    wait_until(replicated.in_step)


@pytest.mark.parametrize("role", ["primary", "standby"])
def test_a_server_that_patroni_would_not_know_since_the_clock_was_set_is_fenced(
    replicated: Replicated, role: str
) -> None:
    """As after the clock was put forward by a minute: the time in the pid file is no longer that of the process."""
    primary = replicated.primary()
    node = primary if role == "primary" else next(n for n in replicated.nodes if n != primary)
    server = replicated.postmaster(node)
    old = server.pid
    lines = server.pid_file.read_text().splitlines(keepends=True)
    lines[2] = f"{int(lines[2]) - 60}\n"
    with server.pid_file.open("r+") as f:  # the server goes on writing to this very file
        f.write("".join(lines))
    assert server.clock_set_s == pytest.approx(60, abs=2)
    replicated.kill(replicated.processes(node).keepers())
    wait_until(lambda: server.pid not in (None, old))
    wait_until(replicated.in_step)
    assert (replicated.primary() == primary) == (role == "standby")
    assert "the clock was set" in (replicated.machine(node) / "watcher.log").read_text()


def test_who_kills_a_machine_kills_its_watchers_guard(replicated: Replicated) -> None:
    directory = replicated.machine(replicated.nodes[1])
    try:
        replicated.kill_machine(replicated.nodes[1])
        assert commanded(machine.WATCHER_MODULE, directory) == []
        assert machine.watcher_pid(directory) is None
    finally:
        replicated.local.up()
    assert len(commanded(machine.WATCHER_MODULE, directory)) == 2
    wait_until(replicated.in_step)


def test_nothing_holds_a_password_that_others_may_read(replicated: Replicated) -> None:
    secret = replicated.local.password()
    for path in replicated.home.rglob("*"):
        if path.is_file() and "data" not in path.parts and path.stat().st_mode & 0o077:
            assert secret not in path.read_text(errors="replace"), path
    commands = [p.read_bytes() for p in _readable_commands()]
    assert not any(secret.encode() in c for c in commands)


def _readable_commands() -> Iterator[object]:
    from pathlib import Path

    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            entry.read_bytes()
        except OSError:
            continue
        yield entry


def test_status_tells_roles_lag_and_why(replicated: Replicated) -> None:
    old = replicated.primary()
    killed_server(replicated, old)
    new = replicated.new_primary(old)
    wait_until(replicated.in_step)

    document = asyncio.run(read_status(None, replicated.home))
    main = next(g for g in document["groups"] if g["name"] == "main")
    by_name = {n["name"]: n for n in main["nodes"]}
    assert by_name[new.name]["role"] == "primary"
    assert by_name[old.name]["role"] == "standby"
    assert {n["sync"] for n in main["nodes"] if n["role"] == "standby"} == {"sync"}
    assert len({n["timeline"] for n in main["nodes"]}) == 1
    assert main["promise_off"] is None
    assert (main["last_failover"]["from"], main["last_failover"]["to"]) == (old.name, new.name)
    assert "died" in main["last_failover"]["why"]
    assert document["takeover"]["off"] == []


def test_status_tells_how_far_a_standby_is_behind(replicated: Replicated) -> None:
    primary = replicated.primary()
    standby = next(n for n in replicated.nodes if n != primary)
    (replaying,) = (
        pid
        for pid in replicated.postmaster(standby).family()
        if b"startup" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(replaying, signal.SIGSTOP)
    try:
        with replicated.connect() as connection:
            connection.execute("INSERT INTO entry_here (id, place) VALUES (-2, 'here')")
        document = asyncio.run(read_status(None, replicated.home))
    finally:
        os.kill(replaying, signal.SIGCONT)
    main = next(g for g in document["groups"] if g["name"] == "main")
    found = next(n for n in main["nodes"] if n["name"] == standby.name)
    assert isinstance(found["lag_bytes"], int)
    assert found["lag_bytes"] > 0
    assert found["sync"] == "sync", "what it has received it will show"


def test_status_tells_what_a_takeover_would_lack(replicated: Replicated) -> None:
    node = next(n for n in replicated.nodes if n.machine in [m.name for m in replicated.file.etcd])
    etcd, watcher = Processes(replicated.machine(node) / machine.ETCD), machine.watcher_pid(replicated.machine(node))
    assert watcher is not None
    etcd.signal(signal.SIGSTOP)
    os.kill(watcher, signal.SIGSTOP)
    try:
        found = takeover_state(replicated.home)
    finally:
        os.kill(watcher, signal.SIGCONT)
        etcd.signal(signal.SIGCONT)
    assert found is not None
    assert [e["name"] for e in found["etcd"] if not e["up"]] == [node.machine]
    assert [w["name"] for w in found["watchers"] if not w["up"]] == [node.machine]
    assert "when one more is lost" in found["off"][0]
    assert node.machine in found["off"][1]


def test_status_tells_of_a_group_that_is_not_held_to_its_standbys(replicated: Replicated) -> None:
    """As when ``up`` is killed while it copies a group's first standbys; ``up`` ends it."""
    key = f"{NAMESPACE}main/config"
    with closing(machine.read(replicated.machine(replicated.primary())).store()) as store:
        before = store.get(key)
        assert before is not None
        store.put(key, json.dumps(json.loads(before.value) | {"synchronous_mode_strict": False}))
        try:
            found = takeover_state(replicated.home)
            assert found is not None
            assert [text for text in found["off"] if "group main is not held to its standbys" in text]
            replicated.local.up()
            found = takeover_state(replicated.home)
            assert found is not None
            assert found["off"] == []
        finally:
            store.put(key, before.value)


def test_a_standby_refuses_writes(replicated: Replicated) -> None:
    standby = next(n for n in replicated.nodes if n != replicated.primary())
    with replicated.connect(standby) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO entry_here (id, place) VALUES (-1, 'here')")
