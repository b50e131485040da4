"""Where backups go and who keeps them: names of places, tools that fit, commands that servers archive by."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from pgherd.backup import barman, pgbackrest, plain
from pgherd.backup.bucket import Bucket
from pgherd.backup.keeper import Setting, Tool, choose_tool, keeper_for
from pgherd.backup.place import Folder, Place, place_of
from pgherd.backup.recognise import Archive, recognise
from pgherd.backup.target import Target, check_answers
from pgherd.errors import BadInput, ResidencyRefused
from pgherd.local.installation import Installation
from pgherd.local.user import ServerUser
from pgherd.model.placement import Label
from pgherd.model.schema import Schema
from pgherd.model.topology import EngineName, Group, GroupId, Node, NodeId, Topology

SEGMENT, OTHER = "000000010000000000000003", "000000020000000000000003"


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    installation = Installation(tmp_path, tmp_path, "18.1")
    return Setting(installation, ServerUser(os.geteuid(), os.getegid(), drops=False), tmp_path / "archiving")


def test_places() -> None:
    assert place_of("s3://b-1.c") == Bucket("b-1.c")
    assert place_of("s3://east@bucket/a/b/") == Bucket("bucket", "a/b", "east")
    assert str(place_of("s3://east@bucket/a/b/")) == "s3://east@bucket/a/b"
    assert Bucket("bucket", "a/b", "east").url == "s3://bucket/a/b"
    assert place_of("/a") == Folder(Path("/a"))
    for bad in ("s3://", "s3://B", "s3://bucket/../x", "s3://bucket/a b", "s3://bucket/'", "s3://x@y@bucket"):
        with pytest.raises(BadInput, match="names no bucket"):
            place_of(bad)
    with pytest.raises(BadInput) as raised:
        place_of("s3://key:secret@BUCKET")
    assert "secret" not in raised.value.message


def program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)


def test_a_tool_that_does_not_know_the_servers_is_not_taken(
    tmp_path: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever pgBackRest the machine has: none, an old one, one that does not run, one that will do."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    place, notes = Folder(tmp_path / "place"), list[str]()
    monkeypatch.setattr(
        "shutil.which", lambda name: str(there) if (there := tmp_path / "bin" / name).exists() else None
    )
    assert choose_tool(place, setting, notes.append) is Tool.PLAIN
    assert notes == []
    with pytest.raises(BadInput, match="not installed"):
        keeper_for(Tool.PGBACKREST, place, "r", "g", setting)
    (tmp_path / "bin").mkdir()
    cases = {
        "old": ("echo pgBackRest 2.45", "2.45.0, which does not know PostgreSQL 18"),
        "broken": ("echo a library is missing >&2; exit 127", "a library is missing"),
    }
    for directory, (line, said) in cases.items():
        monkeypatch.setattr("shutil.which", lambda name, d=directory: str(tmp_path / d / name))
        (tmp_path / directory).mkdir()
        program(tmp_path / directory / "pgbackrest", line)
        notes.clear()
        assert choose_tool(place, setting, notes.append) is Tool.PLAIN
        assert len(notes) == 1
        assert said in notes[0]
        with pytest.raises(BadInput, match=said):
            keeper_for(Tool.PGBACKREST, place, "r", "g", setting)
    monkeypatch.setattr("shutil.which", lambda name: str(tmp_path / "bin" / name))
    program(tmp_path / "bin" / "pgbackrest", "echo pgBackRest 2.55.1")
    assert choose_tool(place, setting, notes.append) is Tool.PGBACKREST


def test_commands_are_recognised_to_the_letter(tmp_path: Path) -> None:
    wal = Path("/a b/it's/us-east/g/wal")
    written = plain.command_for(wal)
    assert recognise(written) == Archive(Tool.PLAIN, "/a b/it's", "us-east", "g", str(wal))
    env = {"AWS_CONFIG_FILE": "/h/x.aws", "AWS_SHARED_CREDENTIALS_FILE": "/h/x.aws"}
    far = barman.archive_command(
        Path("/usr/bin/barman-cloud-wal-archive"), env, "s3://b/of/herd/us-east", "g", "https://s3.example"
    )
    assert recognise(far) == Archive(Tool.BARMAN, "https://s3.example/b", "us-east", "g", "s3://b/of/herd/us-east/g")
    config = tmp_path / "us-east-g.conf"
    config.write_text("[global]\nrepo1-path=/d/us-east/g/pgbackrest\n")
    kept = pgbackrest.archive_command(Path("/usr/bin/pgbackrest"), config, "g")
    assert recognise(kept) == Archive(Tool.PGBACKREST, "/d", "us-east", "g", "/d/us-east/g/pgbackrest")
    for command in (written, far, kept):
        assert recognise(f"{command}; scp %p elsewhere:") is None
        assert recognise(command.replace("%p", "%p.x")) is None
    config.unlink()
    assert recognise(kept) is None


@pytest.mark.parametrize("name", ["plain", "pgbackrest"])
def test_only_the_end_of_a_timeline_may_differ_from_what_is_archived(tmp_path: Path, name: str) -> None:
    """A segment that is there already with other bytes is an error, unless the server is on a later timeline."""
    data, wal, file = tmp_path / "data", tmp_path / "place" / "r" / "g" / "wal", f"pg_wal/{SEGMENT}"
    (data / "pg_wal").mkdir(parents=True)
    wal.mkdir(parents=True)
    if name == "plain":
        command = plain.command_for(wal)
    else:
        program(tmp_path / "pgbackrest", "for f; do :; done", f"cmp -s $f {wal}/{SEGMENT} || exit 45")
        command = pgbackrest.archive_command(tmp_path / "pgbackrest", tmp_path / "config", "g")

    def archived(segment: str = SEGMENT) -> bool:
        text = command.replace("%p", f"pg_wal/{segment}").replace("%f", segment)
        return subprocess.run(["sh", "-c", text], cwd=data, check=False).returncode == 0

    (data / file).write_bytes(b"mine")
    (wal / SEGMENT).write_bytes(b"mine")
    assert archived()
    (wal / SEGMENT).write_bytes(b"another's")
    assert not archived()
    (data / "pg_wal" / "00000001.history").write_text("")
    assert not archived()
    (data / "pg_wal" / "00000002.history").write_text("1\t0/3000100\tno recovery target specified\n")
    assert archived()
    assert (wal / SEGMENT).read_bytes() == b"another's"
    if name == "plain":
        (data / "pg_wal" / OTHER).write_bytes(b"mine")
        (wal / OTHER).write_bytes(b"another's")
        assert not archived(OTHER)


@dataclass(frozen=True)
class Said(Folder):
    """A place that says in which region it is."""

    region: str | None = None

    def where(self) -> str | None:
        return self.region


def test_a_bucket_in_another_region_is_refused() -> None:
    def topology(cloud: str) -> Topology:
        node = Node(NodeId("g"), "127.0.0.1", 5432, Label(cloud, "eu-west-1", "a"))
        return Topology(0, EngineName.FLEET, (Group(GroupId("g"), 1, (node,)),), Schema(()), {})

    def check(cloud: str, said: str | None) -> None:
        place: Place = Said(Path("/x"), said)
        check_answers(topology(cloud), {"g": Target(place, "eu-west-1", "eu-west-1")})

    check("aws", "eu-west-1")
    check("aws", None)
    check("local", "us-east-1")
    with pytest.raises(ResidencyRefused, match="is in us-east-1"):
        check("aws", "us-east-1")
