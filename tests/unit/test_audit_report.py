"""Reports: signed, altered, drawn; a key that others can read is refused. The herd in them is made up."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pgherd.audit.finding import Finding, Looked, NotLooked, Outcome, Severity
from pgherd.audit.map import draw
from pgherd.audit.page import page
from pgherd.audit.pinned import pinned_shards
from pgherd.audit.report import Report
from pgherd.audit.signing import KEY, PUBLIC, key_of, read_public, sign_page, signed, verify
from pgherd.cli.main import main
from pgherd.errors import BadInput, ReportAltered, UnsafeSetting
from pgherd.model.names import Name
from pgherd.model.placement import Label, PlacementBlock, Tablespace
from pgherd.model.schema import Column, Schema, Table
from pgherd.model.topology import EngineName, Group, GroupId, Node, NodeId, Topology

HOSTILE = "<script>alert(1)</script> --> </script> \" '"


def report(*findings: Finding, missing: tuple[NotLooked, ...] = ()) -> dict[str, Any]:
    """A report of two regions, as JSON."""
    groups = tuple(
        Group(GroupId(r), i, (Node(NodeId(r), "h", 5432, Label("local", r, "a")),)) for i, r in enumerate(("a", "b"), 1)
    )
    space = Tablespace("here", 1, (PlacementBlock("local", "a", "*", 1),))
    table = Table(Name("public", "t"), (Column("x", "text"),), tablespace="here")
    topology = Topology(7, EngineName.FLEET, groups, Schema((space,), (table,)), {table.name.sql: GroupId("a")})
    looked = (Looked("roles", "a", "a", count=2), Looked("reachable", "b", "b", "by policy", 1, "a", "b"))
    outcome = Outcome(findings, looked, missing)
    return Report("2026-01-01T00:00:00+00:00", 0.5, topology, pinned_shards(topology), outcome).as_json()


LEAK = Finding("table_copy", Severity.VIOLATION, "t", "b", "b", f"holds {HOSTILE}", "drop it", "a", "b")
AWAY = Finding("wal_archive", Severity.RISK, "t", "a", "a", "goes", "", "a", f"somewhere {HOSTILE}")


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = key_of(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert key_of(tmp_path).private_bytes_raw() == first.private_bytes_raw()
    (tmp_path / PUBLIC).unlink()
    key_of(tmp_path)
    assert read_public(tmp_path / PUBLIC) == first.public_key()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    key_of(tmp_path)
    (tmp_path / KEY).chmod(mode)
    with pytest.raises(UnsafeSetting, match=f"mode {mode:04o}"):
        key_of(tmp_path)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY).write_text("nothing")
    (tmp_path / KEY).chmod(0o600)
    with pytest.raises(UnsafeSetting, match="not a private key"):
        key_of(tmp_path)


def test_what_was_signed_is_known_again_however_it_is_laid_out(tmp_path: Path) -> None:
    key = key_of(tmp_path)
    document = signed(report(LEAK), key)
    for text in (json.dumps(document), json.dumps(document, indent=3, sort_keys=True)):
        assert verify(text, key.public_key()) == document
    assert verify(sign_page(page(document), key), key.public_key()) == document


def test_any_change_is_noticed(tmp_path: Path) -> None:
    key = key_of(tmp_path)
    document = signed(report(LEAK), key)
    for path, value in (("clean", True), ("findings", []), ("at", "2026-01-02"), ("extra", 1)):
        with pytest.raises(ReportAltered, match="not as it was signed"):
            verify(json.dumps({**document, path: value}), key.public_key())
    text = sign_page(page(document), key)
    for changed in (text.replace("1 violation", "0 violation", 1), text.replace("table_copy", "table_coqy")):
        assert changed != text
        with pytest.raises(ReportAltered, match="not as it was signed"):
            verify(changed, key.public_key())
    with pytest.raises(ReportAltered, match="bears no signature"):
        verify(page(document), key.public_key())
    with pytest.raises(ReportAltered, match="bears no signature"):
        verify(json.dumps({**document, "signature": None}), key.public_key())


def test_another_key_and_other_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    key, other = key_of(tmp_path), key_of(tmp_path / "other")
    with pytest.raises(ReportAltered, match="was signed with key"):
        verify(json.dumps(signed(report(), key)), other.public_key())
    for text in ("", "[]", "hello", "{"):
        with pytest.raises(BadInput):
            verify(text, key.public_key())
    for path in (tmp_path / "none", tmp_path / KEY):
        with pytest.raises(BadInput) as caught:
            read_public(path)
        assert "audit.pub" in caught.value.hint


def test_the_command_checks_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_of(tmp_path)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(signed(report(LEAK), key)))
    arguments = ["audit", "--verify", str(file), "--key", str(tmp_path / PUBLIC), "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["violations"], told["generation"]) == (True, 1, 7)
    file.write_text(file.read_text().replace('"generation": 7', '"generation": 8'))
    assert main(arguments) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "report_altered"
    assert main(["audit", "--verify", str(tmp_path / "none"), "--home", str(tmp_path), "--json"]) == 2
    assert main(["audit", "--key", str(tmp_path / PUBLIC), "--home", str(tmp_path), "--json"]) == 2


def test_a_page_loads_nothing_runs_nothing_and_is_well_formed(tmp_path: Path) -> None:
    missing = (NotLooked("node c", "c", "c", "it does not answer", whole=True),)
    text = page(signed(report(LEAK, AWAY, missing=missing), key_of(tmp_path)))
    assert re.findall(r"<script[^>]*>", text) == ['<script type="application/json" id="report">']
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)""", text.replace("url(#", "("))
    assert "default-src 'none'" in text
    assert "Incomplete" in text
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert (
        json.loads(text.partition('id="report">')[2].partition("</script>")[0])["findings"][0]["kind"] == "table_copy"
    )


def test_the_map_shows_places_and_ways() -> None:
    text = draw(report(LEAK, AWAY))
    drawing = ElementTree.fromstring(text)
    tips = [t.text or "" for t in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert any(t.startswith("a → b\nholds ") for t in tips)
    assert any(t.startswith("a → b\nreachable") for t in tips)
    assert any(t.startswith("a → somewhere ") for t in tips)
    colours = [p.get("stroke") for p in drawing.iter("{http://www.w3.org/2000/svg}path")]
    assert {"#c0262d", "#b26a00", "#228833"} <= set(colours)


def test_only_what_is_neither_risk_nor_violation_is_clean() -> None:
    note = Finding("extension", Severity.NOTE, "t", "a", "a", "x")
    counted = [report(), report(note), report(AWAY), report(LEAK, AWAY)]
    assert [(d["clean"], d["violations"], d["risks"]) for d in counted] == [
        (True, 0, 0),
        (True, 0, 0),
        (False, 0, 1),
        (False, 1, 1),
    ]
