"""Rows reach answering models of their own regions only: endpoints here keep all that reaches them."""

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
from pgherd.errors import AnswerCrossesRegion, AnswerFailed, BadInput
from pgherd.herdfile import Endpoint
from pgherd.sync import Herd
from standin import StandIn

BLOCK = (
    '{"num_replicas": 1, "placement_blocks": [{"cloud": "local", "region": "%s", "zone": "*", "min_num_replicas": 1}]}'
)
SCHEMA = f"""
CREATE TABLESPACE new_york WITH (replica_placement = '{BLOCK % "us-east"}');
CREATE TABLESPACE chicago WITH (replica_placement = '{BLOCK % "us-central"}');
CREATE TABLE note (id bigint, city text, text text, secret text, v vector(2), PRIMARY KEY (id, city))
    PARTITION BY LIST (city);
CREATE TABLE note_n PARTITION OF note FOR VALUES IN ('New York') TABLESPACE new_york;
CREATE TABLE note_c PARTITION OF note FOR VALUES IN ('Chicago') PARTITION BY HASH (id) TABLESPACE chicago;
CREATE TABLE note_rest PARTITION OF note DEFAULT;
"""
ROWS = [
    {"id": i, "city": city, "text": f"{city} marker {i}", "secret": "not asked for", "v": [float(i), 1.0]}
    for i in range(4)
    for city in ("New York", "Chicago", "Lima")
]
EMBED = "SELECT pgherd.embed_column('note', 'text', 'v', model => 'openai:m@%s');"
Endpoints = dict[str, StandIn]


@pytest.fixture
def home(fleet: Herd, fleet_db: Path, endpoints: Endpoints) -> Path:
    file = herdfile.read(fleet_db)
    llms = {r: Endpoint(endpoints[r].url, "llm-" + r) for r in ("us-east", "us-central")}
    texts = {r: Endpoint(endpoints[r].url) for r in ("us-east", "us-central")}
    replace(file, llm=llms, embedding=texts).write(fleet_db)
    with pgherd.connect(home=fleet_db) as herd:
        apply(herd, SCHEMA + EMBED % endpoints["nowhere"].url)
        herd.table("note").insert(ROWS)
    return fleet_db


@pytest.fixture
def herd(home: Path, endpoints: Endpoints) -> Iterator[Herd]:
    with pgherd.connect(home=home) as found:
        yield found


def test_each_region_answers_from_its_own_rows(herd: Herd, endpoints: Endpoints) -> None:
    answers = herd.table("note").answer("what is marked?", k=8, where="city <> 'Lima'", exact=True)
    assert {a.region for a in answers} == {"us-east", "us-central"}
    assert answers.complete
    for answer, city in ((a, "New York" if a.region == "us-east" else "Chicago") for a in answers):
        here = endpoints[answer.region]
        assert answer.text == f"llm-{answer.region} says [1]"
        assert (answer.model, answer.endpoint) == (f"llm-{answer.region}", here.url[7:-3])
        assert {h.row["text"] for h in answer.hits} == {f"{city} marker {i}" for i in range(4)}
        (asked,) = here.asked
        assert all(f"{city} marker {i}" in asked for i in range(4))
        assert "Question: what is marked?" in asked
        assert {c for c in ("New York", "Chicago", "Lima") if here.has(f"{c} marker")} == {city}
        assert "not asked for" not in asked
    assert endpoints["nowhere"].asked == endpoints["us-west"].asked == []


def test_rows_that_are_not_pinned_go_to_any_and_columns_may_be_chosen(herd: Herd, endpoints: Endpoints) -> None:
    (answer,) = herd.table("note").answer("q", k=2, where={"city": "Lima"}, columns=["id", "secret"])
    assert answer.region in ("us-east", "us-central")
    assert '{"id": ' in endpoints[answer.region].asked[0]
    assert "not asked for" in endpoints[answer.region].asked[0]
    assert herd.table("note").answer("q", where="id > 99") == []


def test_every_call_is_in_the_log_of_its_region_and_no_text_is(herd: Herd) -> None:
    herd.table("note").answer("secret question", k=3, where={"city": "Chicago"})
    (entry,) = herd.sql("SELECT * FROM pgherd.model_log WHERE purpose = 'answer'", region="us-central")
    size = len("secret question") + 3 * len("Chicago marker 0")
    assert (entry["region"], entry["table_name"], entry["texts"], entry["bytes"]) == ("us-central", "note", 3, size)
    assert (entry["role"], entry["model"]) == ("herd", "llm-us-central")
    assert "secret question" not in str(entry)
    assert "marker" not in str(entry)


def test_what_cannot_be_noted_is_not_sent(herd: Herd, endpoints: Endpoints) -> None:
    herd.sql("ALTER FUNCTION pgherd.log_model RENAME TO gone", region="us-central")
    with pytest.raises(pgherd.HerdError, match="noting a call of a model"):
        herd.table("note").answer("q", where={"city": "Chicago"})
    assert endpoints["us-central"].asked == []


def test_where_one_region_has_no_endpoint_nothing_is_sent_to_any(
    home: Path, endpoints: Endpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    file = herdfile.read(home)
    replace(file, llm={"us-east": file.llm["us-east"]}).write(home)
    capsys.readouterr()
    assert main(["ask", "note", "what?", "-k", "8", "--where", "city <> 'Lima'", "--home", str(home), "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "answer_crosses_region"
    assert "pinned to us-central" in error["message"]
    assert "regions.us-central.llm" in error["hint"]
    assert not any(e.asked for e in endpoints.values())

    assert main(["ask", "note", "what?", "--where", "city = 'New York'", "--home", str(home), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert (answer["region"], answer["text"], len(answer["hits"])) == ("us-east", "llm-us-east says [1]", 4)
    assert main(["ask", "note", "what?", "--where", "city = 'New York'", "--home", str(home)]) == 0
    assert "llm-us-east says [1]" in capsys.readouterr().out


def test_models_may_be_given_to_the_client(home: Path, endpoints: Endpoints) -> None:
    dsn = herdfile.read(home).dsn(home)
    texts = {r: endpoints[r].url for r in ("us-east", "us-central")}
    with (
        pgherd.connect(dsn, endpoints=texts) as herd,
        pytest.raises(BadInput, match="no endpoint of an answering model"),
    ):
        herd.table("note").answer("q", where={"city": "Chicago"})
    assert not any(e.bodies for e in endpoints.values()), "nothing is asked, not even for a vector"
    west = {"us-west": f"openai:w@{endpoints['us-west'].url}"}
    with pgherd.connect(dsn, endpoints=texts, llms=west) as herd:
        with pytest.raises(AnswerCrossesRegion):
            herd.table("note").answer("q", where={"city": "Chicago"})
        assert [a.text for a in herd.table("note").answer("q", where={"city": "Lima"})] == ["w says [1]"]
    with pytest.raises(BadInput, match="not openai:MODEL@BASE_URL"), pgherd.connect(dsn, llms={"us-west": "gpt"}):
        pass


@pytest.mark.parametrize("answer", [{"choices": []}, {"choices": [{"message": {"content": " "}}]}, [1]])
def test_an_answer_that_holds_none_is_an_error(herd: Herd, endpoints: Endpoints, answer: object) -> None:
    endpoints["us-east"].answer = answer
    with pytest.raises(AnswerFailed, match="holds no text"):
        herd.table("note").answer("q", where={"city": "New York"})


def test_an_endpoint_that_refuses_says_so_without_the_texts(herd: Herd, endpoints: Endpoints) -> None:
    with pytest.raises(BadInput, match="can't be answered"):
        herd.table("note").answer([1.0, 1.0])  # type: ignore[arg-type]
    vectors = herd.table("note").search("q", k=1, where={"city": "New York"})
    assert vectors
    endpoints["us-central"].answer, endpoints["us-central"].status = {}, 401
    herd._inner.models.regional.endpoints["us-central"] = Endpoint(endpoints["us-west"].url)  # type: ignore[index]
    with pytest.raises(AnswerFailed, match="status 401") as caught:
        herd.table("note").answer("secret question", where={"city": "Chicago"})
    assert "PGHERD_LLM_API_KEY" in str(caught.value.hint)
    assert "marker" not in str(caught.value)
    assert "secret" not in str(caught.value)
