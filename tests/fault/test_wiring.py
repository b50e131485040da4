"""A herd with standbys from before etcd and Patroni had TLS: it starts, goes on, and gets it when it is down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pgherd
from conftest import reachable
from pgherd import herdfile
from pgherd.availability import keys
from pgherd.availability.ground import Ground
from pgherd.cli.main import main
from pgherd.dcs import Store
from pgherd.errors import UnsafeSetting
from pgherd.local import layout, machine, wiring
from pgherd.local.herd import LocalHerd
from pgherd.model.placement import Label

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[LocalHerd]:
    """What an older version left, running."""
    local = LocalHerd(reachable(tmp_path) / "herd")
    members = layout._members
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, "_members", lambda labels, _: members(labels, False))
            patch.setattr(wiring, "may_begin", lambda *_: False)
            local.up([Label.parse("us-east")], replicas=3)
        yield local
    finally:
        local.destroy()


def run(local: LocalHerd, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--home", str(local.home), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def leader(local: LocalHerd) -> str | None:
    file = herdfile.read(local.home)
    with closing(machine.read(local.home / "machines" / file.etcd[0].name).store()) as store:
        found = keys.leader(store, "us-east")
        return found and found.value


def test_it_gets_tls_when_it_is_down_or_killed_the_next_time(
    old: LocalHerd, capsys: pytest.CaptureFixture[str]
) -> None:
    before = herdfile.read(old.home)
    assert not before.mutual_tls
    assert machine.read(old.home / "machines" / before.etcd[0].name).identity is None
    with pgherd.connect(home=old.home) as herd:
        herd.sql("CREATE TABLE kept AS SELECT 7 AS n")
    old.up()  # what runs is left alone
    assert herdfile.read(old.home).etcd == before.etcd
    assert "etcd and Patroni run without TLS" in run(old, capsys, "status")["tls"]["warnings"][0]
    run(old, capsys, "certificates", "renew")
    led = leader(old)
    assert led is not None
    old.down()

    asked = list[str]()
    readdress = Store.readdress_member

    def killed(store: Store, was: str, will: str) -> None:
        asked.append(will)
        if len(asked) > 1:
            raise KeyboardInterrupt
        readdress(store, was, will)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "readdress_member", killed)
        with pytest.raises(KeyboardInterrupt):
            old.up()
    assert herdfile.read(old.home).etcd == before.etcd

    old.up()
    after = herdfile.read(old.home)
    assert after.mutual_tls
    assert [replace(m, tls=False, peer_port=b.peer_port) for m, b in zip(after.etcd, before.etcd, strict=True)] == list(
        before.etcd
    )
    assert run(old, capsys, "status")["tls"] == {"sslmode": "verify-full", "warnings": []}
    assert {c["kind"] for c in run(old, capsys, "certificates")["certificates"]} == {"ca", "server", "patroni", "etcd"}
    with pgherd.connect(home=old.home) as herd:
        assert herd.sql("SELECT n FROM kept") == [{"n": 7}]
    with closing(Ground(old.home, None)) as ground:
        ground.await_redundant()
    run(old, capsys, "switchover", "us-east")
    old.down()
    old.up()
    assert herdfile.read(old.home) == after

    key = old.home / "machines" / after.etcd[0].name / "tls" / "server.pem"
    key.chmod(0o640)
    with pytest.raises(UnsafeSetting, match=f"{key} has mode 0640"):
        old.up()
    key.chmod(0o600)
