"""A log that has grown large begins anew, under a program that goes on writing it."""

from __future__ import annotations

from pathlib import Path

from pgherd.availability.logs import trim


def test_a_large_log_begins_anew_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert not trim(log, limit_bytes=100)
        writer.write(b"y")
        assert trim(log, limit_bytes=100)
        writer.write(b"next\n")
    assert log.read_bytes() == b"next\n"
    kept = tmp_path / "server.log.1"
    assert kept.read_bytes() == b"x" * 100 + b"y"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_links_are_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"x" * 200)
    (tmp_path / "server.log").symlink_to(other)
    assert not trim(tmp_path / "server.log", limit_bytes=10)
    assert other.read_bytes() == b"x" * 200
    log = tmp_path / "etcd.log"
    log.write_bytes(b"y" * 200)
    (tmp_path / "etcd.log.1").symlink_to(other)
    assert trim(log, limit_bytes=10)
    assert other.read_bytes() == b"x" * 200
