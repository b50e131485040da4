"""Text of pinned rows reaches endpoints of their own regions only: endpoints here keep all that reaches them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import pgherd
from conftest import apply
from pgherd import herdfile
from pgherd.cli.main import main
from pgherd.errors import EmbeddingCrossesRegion, EmbeddingFailed
from pgherd.herdfile import Endpoint
from pgherd.loading import load
from pgherd.sync import Herd
from standin import StandIn

BLOCK = (
    '{"num_replicas": 1, "placement_blocks": [{"cloud": "local", "region": "%s", "zone": "*", "min_num_replicas": 1}]}'
)


def schema(nowhere: StandIn) -> str:
    return f"""
CREATE TABLESPACE new_york WITH (replica_placement = '{BLOCK % "us-east"}');
CREATE TABLESPACE chicago WITH (replica_placement = '{BLOCK % "us-central"}');
CREATE TABLE note (id bigint, city text, text text, v vector(2), PRIMARY KEY (id, city)) PARTITION BY LIST (city);
CREATE TABLE note_n PARTITION OF note FOR VALUES IN ('New York') TABLESPACE new_york;
CREATE TABLE note_c PARTITION OF note FOR VALUES IN ('Chicago') PARTITION BY HASH (id) TABLESPACE chicago;
CREATE TABLE note_rest PARTITION OF note DEFAULT;
SELECT pgherd.embed_column('note', 'text', 'v', model => 'openai:m@{nowhere.url}');
"""


ROWS = [
    {"id": i, "city": city, "text": f"{city} marker {i}" if i != 3 else None}
    for i in range(6)
    for city in ("New York", "Chicago", "Lima")
]
Endpoints = dict[str, StandIn]


@pytest.fixture
def home(fleet_db: Path, endpoints: Endpoints) -> Path:
    file = herdfile.read(fleet_db)
    regional = {r: Endpoint(endpoints[r].url, "m-" + r) for r in ("us-east", "us-central")}
    replace(file, embedding=regional).write(fleet_db)
    assert herdfile.read(fleet_db).embedding == regional
    return fleet_db


@pytest.fixture
def herd(home: Path, endpoints: Endpoints) -> Iterator[Herd]:
    with pgherd.connect(home=home) as found:
        apply(found, schema(endpoints["nowhere"]))
        yield found


def check_everybody_got_their_own(endpoints: Endpoints) -> None:
    assert endpoints["us-east"].has("New York marker 1")
    assert endpoints["us-central"].has("Chicago marker 1")
    assert endpoints["nowhere"].has("Lima marker 1")
    assert endpoints["us-west"].bodies == []
    for name, city in (("us-east", "New York"), ("us-central", "Chicago"), ("nowhere", "Lima")):
        assert {t.partition(" marker")[0] for t in endpoints[name].texts} == {city}


def test_a_write_sends_each_text_to_its_own_region(herd: Herd, endpoints: Endpoints) -> None:
    assert herd.table("note").upsert(ROWS) == len(ROWS)
    check_everybody_got_their_own(endpoints)
    found = herd.sql("SELECT text, v[1] AS n FROM (SELECT text, v::real[] AS v FROM note) n WHERE text IS NOT NULL")
    assert all(r["n"] == len(r["text"]) for r in found)
    assert len(found) == len(ROWS) - 3


def test_a_load_does_too(herd: Herd, endpoints: Endpoints, tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in [*ROWS, {"id": "x", "city": "Chicago", "text": "bad id"}]))
    loaded = herd._loop.run(load(herd._inner, "note", file))
    assert (loaded.rows, loaded.rejected) == (len(ROWS), 1)
    check_everybody_got_their_own(endpoints)


def test_a_question_goes_where_its_rows_are_if_that_is_one_region(herd: Herd, endpoints: Endpoints) -> None:
    herd.table("note").upsert(ROWS)
    for stand_in in endpoints.values():
        stand_in.texts.clear()
    note = herd.table("note")
    assert len(note.search("in Chicago", k=2, where={"city": "Chicago"})) == 2
    note.search("in New York", k=2, where="city = %(c)s AND id > 0", params={"c": "New York"})
    note.search("anywhere", k=2)
    assert endpoints["us-central"].texts == ["in Chicago"]
    assert endpoints["us-east"].texts == ["in New York"]
    assert endpoints["nowhere"].texts == ["anywhere"]


def test_every_call_is_in_the_log_of_its_region_and_no_text_is(herd: Herd, endpoints: Endpoints) -> None:
    herd.table("note").upsert(ROWS)
    herd.table("note").search("secret question", where={"city": "Chicago"})
    entries = {r: herd.sql("SELECT * FROM pgherd.model_log ORDER BY at", region=r) for r in ("us-east", "us-central")}
    chicago = [e for e in entries["us-central"] if e["region"] == "us-central"]
    texts = [t for t in endpoints["us-central"].texts if t != "secret question"]
    assert [(e["purpose"], e["texts"], e["bytes"]) for e in chicago] == [
        ("row", len(texts), sum(map(len, texts))),
        ("question", 1, len("secret question")),
    ]
    assert {(e["table_name"], e["model"], e["role"]) for e in chicago} == {("note", "m-us-central", "herd")}
    assert {e["endpoint"] for e in chicago} == {endpoints["us-central"].url[7:-3]}
    assert [e["region"] for e in entries["us-east"]] == ["us-east", None] or [
        e["region"] for e in entries["us-east"]
    ] == [None, "us-east"]
    assert "marker" not in str(entries)
    assert "secret question" not in str(entries)


def test_what_cannot_be_noted_is_not_sent(herd: Herd, endpoints: Endpoints) -> None:
    herd.sql("DROP FUNCTION pgherd.log_model", region="us-central")
    with pytest.raises(pgherd.HerdError, match="noting a call of a model"):
        herd.table("note").insert([{"id": 1, "city": "Chicago", "text": "x"}])
    assert endpoints["us-central"].bodies == []
    assert herd.sql("SELECT * FROM note") == []


def test_without_an_endpoint_of_its_region_nothing_is_sent(
    fleet: Herd, fleet_db: Path, endpoints: Endpoints, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(EmbeddingCrossesRegion, match="is no endpoint of that region") as caught:
        apply(fleet, schema(endpoints["nowhere"]))
    assert caught.value.exit_status == 3
    file = tmp_path / "schema.sql"
    file.write_text(schema(endpoints["nowhere"]))
    assert main(["apply", str(file), "--home", str(fleet_db), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "embedding_crosses_region"

    plain = schema(endpoints["nowhere"]).partition("SELECT pgherd.embed_column")[0]
    apply(fleet, plain)
    with pgherd.connect(home=fleet_db, embedder=f"openai:m@{endpoints['nowhere'].url}") as herd:
        for rows in (ROWS, ROWS[:2]):
            with pytest.raises(EmbeddingCrossesRegion):
                herd.table("note").insert(rows, embed={"text": "v"})
        with pytest.raises(EmbeddingCrossesRegion):
            herd.table("note").search("x", where={"city": "Chicago"})
        lima = [r for r in ROWS if r["city"] == "Lima"]
        assert herd.table("note").insert(lima, embed={"text": "v"}) == len(lima)
    assert not endpoints["nowhere"].has("Chicago")
    assert not endpoints["nowhere"].has("New York")
    assert fleet.sql("SELECT DISTINCT city FROM note") == [{"city": "Lima"}]


def test_endpoints_may_be_given_to_the_client(fleet: Herd, fleet_db: Path, endpoints: Endpoints) -> None:
    apply(fleet, schema(endpoints["nowhere"]).partition("SELECT pgherd.embed_column")[0])
    dsn = herdfile.read(fleet_db).dsn(fleet_db)
    model = f"openai:m@{endpoints['nowhere'].url}"
    urls = {r: endpoints[r].url for r in ("us-east", "us-central")}
    with pgherd.connect(dsn, embedder=model, endpoints=urls) as herd:
        herd.table("note").insert(ROWS, embed={"text": "v"})
    check_everybody_got_their_own(endpoints)


def test_an_endpoint_that_fails_is_not_replaced_by_another(herd: Herd, endpoints: Endpoints) -> None:
    endpoints["us-central"].status = 401
    with pytest.raises(EmbeddingFailed):
        herd.table("note").insert([r for r in ROWS if r["city"] == "Chicago"])
    assert endpoints["nowhere"].bodies == endpoints["us-east"].bodies == []


def test_the_built_in_model_runs_in_the_client(fleet: Herd) -> None:
    text = schema(StandIn("http://127.0.0.1:1/v1")).replace("vector(2)", "vector(256)")
    apply(fleet, text.partition("SELECT pgherd.embed_column")[0])
    chicago = [r for r in ROWS if r["city"] == "Chicago"]
    assert fleet.table("note").insert(chicago, embed={"text": "v"}) == len(chicago)
    assert fleet.table("note").search("marker", k=3, where={"city": "Chicago"})
    assert fleet.sql("SELECT * FROM pgherd.model_log") == []


def test_entries_of_logs_are_kept_for_as_long_as_said(
    fleet: Herd, fleet_db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = "INSERT INTO pgherd.model_log SELECT now() - make_interval(days => d), 'x', '', 'h', 'm', 't', 'row', 1, 1"
    fleet.sql(old + " FROM unnest(ARRAY[1, 29, 31, 400]) d", region="us-east")
    access = "INSERT INTO pgherd.access_log VALUES (now() - interval '40 days', 'x', 'us-east', 'c', 't', '{}', 1, 1)"
    fleet.sql(access, region="us-east")
    note = "SELECT pgherd.log_model('us-east', 'h', 'm', 't', 'row', 1, 1)"
    count = "SELECT (SELECT count(*) FROM pgherd.model_log) AS m, (SELECT count(*) FROM pgherd.access_log) AS a"

    fleet.sql(note, region="us-east")
    assert fleet.sql(count, region="us-east") == [{"m": 5, "a": 1}]
    assert main(["reader", "keep", "30", "--home", str(fleet_db), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"log_days": 30}
    fleet.sql(note, region="us-east")
    assert fleet.sql(count, region="us-east") == [{"m": 4, "a": 0}]
    assert main(["reader", "keep", "0", "--home", str(fleet_db)]) == 0
    assert "for ever" in capsys.readouterr().out
    fleet.sql(old + " FROM unnest(ARRAY[99]) d", region="us-east")
    fleet.sql(note, region="us-east")
    assert fleet.sql(count, region="us-east") == [{"m": 6, "a": 0}]
