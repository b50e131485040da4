"""Backups by Barman in the buckets of an object store, and by pgBackRest where it is installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.session
import psycopg
import pytest

import pgherd
from pgherd import dialect, herdfile
from pgherd.backup.bucket import Bucket
from pgherd.backup.expire import Expired, expire
from pgherd.backup.keeper import Tool, setting_of
from pgherd.backup.manifest import Backup, choose, read_all
from pgherd.backup.place import place_of
from pgherd.backup.recognise import archiving_of
from pgherd.backup.restore import Restored, Until, restore
from pgherd.backup.take import stop_archiving, take_backup
from pgherd.backup.target import parse_targets
from pgherd.client import connect_async
from pgherd.errors import BackupDamaged, BackupFailed, BadInput, HerdError, ResidencyRefused
from pgherd.local.herd import LocalHerd
from pgherd.local.installation import find
from pgherd.local.user import server_user
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from twins import EAST, WEST, eventually

SECRET = "not-for-anybody-else-to-see"
SCHEMA = """
CREATE TABLESPACE east WITH (replica_placement = '{"num_replicas": 1, "placement_blocks":
    [{"cloud": "local", "region": "us-east", "zone": "*", "min_num_replicas": 1}]}');
CREATE TABLE patient (id bigint, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE patient_east PARTITION OF patient FOR VALUES IN ('east') TABLESPACE east;
CREATE TABLE doc (id bigint PRIMARY KEY);
SELECT create_distributed_table('doc', 'id', shard_count => 4);
"""
TO = ("us-east=s3://east@herd-east/of/herd", "us-west=s3://west@herd-west")
PROFILE = """
[profile {name}]
region = us-east-1
endpoint_url = {url}
aws_access_key_id = AKIAEXAMPLE
aws_secret_access_key = {secret}
"""


@dataclass(frozen=True)
class Ground:
    """A running herd of two regions, a store, and a directory for what is restored."""

    directory: Path
    local: LocalHerd
    url: str

    @property
    def home(self) -> Path:
        return self.local.home

    def backup(self, *to: str, label: str | None = None, tool: Tool | None = None) -> Backup:
        async def run() -> Backup:
            async with connect_async(home=self.home) as herd:
                return await take_backup(herd, self.home, parse_targets(to), label, tool=tool)

        return asyncio.run(run())

    def restored(self, *to: str, label: str | None = None, until: Until = None) -> Restored:
        places = [place_of(text.partition("=")[2]) for text in to]
        return asyncio.run(restore(choose(read_all(places), label), self.copy, until))

    @property
    def copy(self) -> Path:
        return self.directory / "restored"

    def commands(self) -> set[str]:
        """How all servers archive."""
        found = set()
        for group in (EAST, WEST):
            with psycopg.connect(herdfile.read(self.home).dsn(self.home, group)) as connection:
                found |= {str(row[0]) for row in connection.execute("SHOW archive_command")}
        return found

    def archiving(self) -> dict[str, dict[str, Any] | None]:
        async def run() -> dict[str, dict[str, Any] | None]:
            async with connect_async(home=self.home) as herd:
                return await archiving_of(herd)

        return asyncio.run(run())

    def keys(self) -> set[str]:
        """All that is in the store."""
        found = set()
        for name in ("east", "west"):
            bucket = Bucket(f"herd-{name}", profile=name)
            found |= {f"{name}:{key}" for key, _ in bucket.objects("")}
        return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a store with a bucket for each region, and profiles to reach them by."""
    work, port = tmp_path_factory.mktemp("store"), free_port()
    url = f"http://127.0.0.1:{port}"
    with (work / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    config = work / "config"
    profiles = "".join(PROFILE.format(name=n, url=url, secret=SECRET) for n in ("east", "west"))
    profiles += PROFILE.format(name="gone", url=f"http://127.0.0.1:{free_port()}", secret=SECRET)
    profiles += PROFILE.format(name="passing", url=url, secret=SECRET) + "aws_session_token = for-an-hour\n"
    config.write_text(profiles)
    with pytest.MonkeyPatch.context() as patch:
        for name in [k for k in os.environ if k.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", str(config))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(work / "none"))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            eventually(lambda: answers(port), "the store")
            for name in ("east", "west"):
                client = botocore.session.Session(profile=name).create_client("s3")
                client.create_bucket(Bucket=f"herd-{name}")
            yield url
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def ground(store: str) -> Iterator[Ground]:
    directory = Path(tempfile.mkdtemp(prefix="pgherd-stores-"))
    directory.chmod(0o711)
    local = LocalHerd(directory / "home")
    try:
        local.up([Label.parse(EAST), Label.parse(WEST)], EngineName.FLEET)
        with pgherd.connect(home=local.home) as herd:
            herd.execute(herd.plan(dialect.parse(SCHEMA)))
            herd.table("patient").insert([{"id": i, "region": "east"} for i in range(10)])
            herd.table("doc").insert([{"id": i} for i in range(100)])
        yield Ground(directory, local, store)
    finally:
        local.destroy()
        shutil.rmtree(directory)


@pytest.fixture
def quiet(ground: Ground) -> Iterator[Ground]:
    """Archiving is off, before and after."""
    yield ground

    async def off() -> None:
        async with connect_async(home=ground.home) as herd:
            await stop_archiving(herd, ground.home)

    asyncio.run(off())
    if ground.copy.exists():
        LocalHerd(ground.copy).destroy()


def refuse_all(url: str, answers_before: int | str) -> None:
    """From now on the store asks who one is, once it has answered so many times; it knows nobody."""
    body, plain = str(answers_before).encode(), {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", body, plain, method="POST")).close()


def test_a_store_that_can_not_be_used_changes_nothing(quiet: Ground) -> None:
    before, keys, west = quiet.commands(), quiet.keys(), TO[1]
    cases: list[tuple[type[HerdError], str, tuple[str, ...]]] = [
        (BackupFailed, "can't be reached", ("us-east=s3://gone@herd-east", west)),
        (BadInput, "there is no bucket", ("us-east=s3://east@herd-nowhere", west)),
        (BadInput, "nobody", ("us-east=s3://nobody@herd-east", west)),
        (BadInput, "no credentials", ("us-east=s3://herd-east", west)),
        (BadInput, "for a time only", ("us-east=s3://passing@herd-east", west)),
        (ResidencyRefused, "two regions", ("us-east=s3://east@herd-east/e", "us-west=s3://east@herd-east/w")),
        (ResidencyRefused, "patient_east", ("s3://east@herd-east",)),
        (ResidencyRefused, "patient_east", ("us-west=s3://west@herd-west", "s3://east@herd-east")),
    ]
    for kind, said, to in cases:
        with pytest.raises(kind, match=said) as raised:
            quiet.backup(*to)
        assert SECRET not in f"{raised.value}{raised.value.hint}"
    with pytest.raises(BadInput, match="directories only"):
        quiet.backup(*TO, tool=Tool.PLAIN)
    refuse_all(quiet.url, 0)
    try:
        with pytest.raises(BadInput, match="refuses these credentials"):
            quiet.backup(*TO)
    finally:
        refuse_all(quiet.url, "inf")
    assert quiet.commands() == before
    assert quiet.keys() == keys
    assert not (quiet.home / "archiving").exists() or not list((quiet.home / "archiving").iterdir())


def test_a_backup_that_fails_halfway_leaves_nothing(quiet: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers archive where they did before, and no base backup and no key is left."""
    places = [f"{r}={quiet.directory / 'folder' / r}" for r in (EAST, WEST)]
    quiet.backup(*places, tool=Tool.PLAIN)
    before = quiet.commands()

    def dies(*_: Any) -> None:
        raise HerdError("killed")

    monkeypatch.setattr("pgherd.backup.take.manifest.write", dies)
    with pytest.raises(HerdError, match="killed"):
        quiet.backup(*places, tool=Tool.PLAIN, label="half")
    assert quiet.commands() == before
    assert not list((quiet.directory / "folder").rglob("half*"))
    assert [a["tool"] for a in quiet.archiving().values() if a] == ["plain", "plain"]
    assert all(a["last"] and not a["failing"] for a in quiet.archiving().values() if a)


@pytest.mark.long
def test_a_herd_comes_back_from_buckets(quiet: Ground) -> None:
    made = quiet.backup(*TO, label="one", tool=Tool.BARMAN)
    assert {g.tool for g in made.groups} == {"barman"}
    assert {a["tool"] for a in quiet.archiving().values() if a} == {"barman"}
    with pgherd.connect(home=quiet.home) as herd:
        herd.table("doc").insert([{"id": i} for i in range(1000, 1100)])
        then = datetime.now(UTC)
        herd.table("doc").insert([{"id": i} for i in range(2000, 2100)])
    quiet.backup(*TO, label="two")  # whoever archives goes on

    # The bytes of each region are in its bucket alone.
    keys = quiet.keys()
    assert any(k.startswith("east:of/herd/us-east/us-east/wals/") for k in keys)
    assert not any("us-west" in k for k in keys if k.startswith("east:"))
    assert not any("us-east" in k for k in keys if k.startswith("west:"))

    # The key is in the servers' own file, and nowhere else.
    assert not any(SECRET in command for command in quiet.commands())
    holders = [p for p in quiet.home.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert {p.parent.name for p in holders} == {"archiving"}
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in holders)

    assert quiet.restored(*TO, label="one").checked == 110
    with pgherd.connect(home=quiet.copy) as herd:
        assert herd.sql("SELECT count(*) AS n, max(id) AS m FROM doc") == [{"n": 100, "m": 99}]
    assert not [p for p in quiet.copy.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    LocalHerd(quiet.copy).destroy()

    quiet.restored(*TO, label="one", until=then)
    with pgherd.connect(home=quiet.copy) as herd:
        assert herd.sql("SELECT count(*) AS n, max(id) AS m FROM doc") == [{"n": 200, "m": 1099}]
        assert herd.sql("SELECT count(*) AS n FROM patient") == [{"n": 10}]
    LocalHerd(quiet.copy).destroy()

    gone = expired(quiet, *TO)
    assert (gone.removed, gone.kept) == (("one",), ("two",))
    left = quiet.keys()
    assert not {k for k in keys if "/wals/" in k} <= left, "WAL that only the first one needed is gone"
    assert quiet.restored(*TO).checked == 310
    LocalHerd(quiet.copy).destroy()

    damage(next(k for k in left if k.startswith("west:") and k.endswith("data.tar.gz")))
    with pytest.raises(BackupDamaged, match=WEST):
        quiet.restored(*TO)
    assert not quiet.copy.exists()


def expired(ground: Ground, *places_named: str) -> Expired:
    """All backups but the newest are removed."""
    user = server_user()
    places = [t.place for t in parse_targets(places_named)]
    return asyncio.run(expire(places, 1, setting_of(find(user), user, ground.home)))


def damage(key: str) -> None:
    """Change bytes in the middle of an object."""
    profile, _, name = key.partition(":")
    client, bucket = botocore.session.Session(profile=profile).create_client("s3"), f"herd-{profile}"
    body = bytearray(client.get_object(Bucket=bucket, Key=name)["Body"].read())
    middle = len(body) // 2
    body[middle : middle + 64] = bytes(64)
    client.put_object(Bucket=bucket, Key=name, Body=bytes(body))


@pytest.mark.long
@pytest.mark.skipif(shutil.which("pgbackrest") is None, reason="pgBackRest is not installed")
def test_a_herd_comes_back_by_pgbackrest(quiet: Ground) -> None:
    to = [f"{r}={quiet.directory / 'repository' / r}" for r in (EAST, WEST)]
    with pgherd.connect(home=quiet.home) as herd:
        herd.table("doc").delete("true")
        herd.table("doc").insert([{"id": i} for i in range(100)])
    made = quiet.backup(*to, label="one")
    assert {g.tool for g in made.groups} == {"pgbackrest"}, "the best tool that is installed is taken"
    with pgherd.connect(home=quiet.home) as herd:
        then = datetime.now(UTC)
        herd.table("doc").insert([{"id": i} for i in range(1000, 1100)])
    quiet.backup(*to, label="two")
    assert quiet.restored(*to, label="one").checked == 110
    LocalHerd(quiet.copy).destroy()
    assert sum(quiet.restored(*to, label="one", until=then).rows.values()) == 110
    LocalHerd(quiet.copy).destroy()
    assert sum(quiet.restored(*to, label="two").rows.values()) == 210
    LocalHerd(quiet.copy).destroy()
    wal = {p.name for p in (quiet.directory / "repository").rglob("archive/*/*/*/*")}
    assert expired(quiet, *to).removed == ("one",)
    assert {p.name for p in (quiet.directory / "repository").rglob("archive/*/*/*/*")} < wal
    assert sum(quiet.restored(*to).rows.values()) == 210
    LocalHerd(quiet.copy).destroy()
    bundle = max((quiet.directory / "repository").rglob("bundle/*"), key=lambda p: p.stat().st_size)
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    bundle.write_bytes(content)
    with pytest.raises(BackupDamaged, match=r"us-(east|west)"):
        quiet.restored(*to)
    assert not quiet.copy.exists()
