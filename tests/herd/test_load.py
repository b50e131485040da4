from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from conftest import apply
from pgherd.client import AsyncHerd, connect_async
from pgherd.errors import BadInput, EmbeddingFailed, HerdBusy, HerdError, ServerRefused, UnknownName
from pgherd.loading import Loaded, Progress, load
from pgherd.loading.source import open_source
from pgherd.loading.state import hold
from pgherd.model.names import Name
from pgherd.sync import connect

DOC = """
CREATE TABLE doc (id bigint PRIMARY KEY, body text, score float8 CHECK (score >= 0), v vector(2));
SELECT create_distributed_table('doc', 'id');
"""


@pytest.fixture(params=["single_db", "fleet_db"])
def home(request: pytest.FixtureRequest) -> Path:
    """The home of an empty herd, of both engines."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Path)
    return found


class Opened:
    """A herd of the test: a schema, loads and queries, each in a client of its own."""

    def __init__(self, home: Path, schema: str) -> None:
        self.home = home
        with connect(home=home) as herd:
            apply(herd, schema)

    def load(self, table: str, file: Path, embedder: Any = None, **options: Any) -> Loaded:
        return self.run(lambda herd: load(herd, table, file, **options), embedder)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(r.values()) for r in self.run(lambda herd: herd.sql(query))]

    def run(self, work: Callable[[AsyncHerd], Awaitable[Any]], embedder: Any = None) -> Any:
        async def main() -> Any:
            async with connect_async(home=self.home, embedder=embedder) as herd:
                return await work(herd)

        return asyncio.run(main())


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def _rejected(path: Path) -> list[tuple[int, str]]:
    return [(r["line"], r["error"]) for r in map(json.loads, path.read_text().splitlines())]


def test_good_rows_go_home_and_bad_ones_to_the_reject_file(home: Path, tmp_path: Path) -> None:
    herd = Opened(home, DOC)
    rows: list[list[Any]] = [["id", "body", "score", "v"]]
    rows += [[i, f"text {i}", i / 2, [i, 1]] for i in range(1, 301)]
    rows[20][0] = "x"
    rows[30][0] = None
    rows[40][3] = [1, 2, 3]
    rows[50][3] = ["NaN", 1]
    rows[60][2] = -1
    rows[70][0] = 7
    rows[80] = ["few"]
    file = _write_csv(tmp_path / "doc.csv", rows)
    seen: list[Progress] = []
    loaded = herd.load("doc", file, batch_rows=50, progress=seen.append)
    assert (loaded.rows, loaded.rejected, loaded.resumed_from) == (293, 7, 0)
    assert loaded.reject_file == tmp_path / "doc.csv.rejected.jsonl"
    assert _rejected(loaded.reject_file) == [
        (21, "bad_row"),
        (31, "bad_row"),
        (41, "dimension_mismatch"),
        (51, "bad_row"),
        (61, "server_refused"),
        (71, "server_refused"),
        (81, "bad_row"),
    ]
    refused = json.loads(loaded.reject_file.read_text().splitlines()[5])
    assert refused["row"]["id"] == "7"
    assert refused["message"].startswith("duplicate key value violates unique constraint")
    assert herd.sql("SELECT count(*), count(DISTINCT id) AS ids, sum(id) FROM doc") == [(293, 293, 45150 - 350)]
    assert herd.sql("SELECT body, score, v::text FROM doc WHERE id = 9") == [("text 9", 4.5, "[9,1]")]
    assert [p.rows for p in seen][-1] == 293
    assert seen[-1].bytes_done == seen[-1].bytes_total == file.stat().st_size


def test_a_loaded_file_is_not_loaded_again_unless_asked(fleet_db: Path, tmp_path: Path) -> None:
    herd = Opened(fleet_db, "CREATE TABLE log (at int, what text)")
    file = _write_csv(tmp_path / "log.csv", [["at", "what"], [1, "a"], ["?", "b"], [3, "c"]])
    first = herd.load("log", file)
    again = herd.load("log", file)
    assert (again.rows, again.total_rows, again.already_loaded) == (0, first.rows, True)
    assert herd.sql("SELECT count(*) FROM log") == [(2,)]
    restarted = herd.load("log", file, restart=True)
    assert (restarted.rows, restarted.rejected, restarted.already_loaded) == (2, 1, False)
    assert herd.sql("SELECT count(*) FROM log") == [(4,)]
    assert len(_rejected(first.reject_file or Path())) == 1
    with file.open("a") as more:
        more.write("5,d\r\n")
    assert herd.load("log", file).rows == 3, "a changed file is another file"


class _Stop(Exception):
    pass


def test_an_interrupted_load_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    herd = Opened(home, "CREATE TABLE log (n int, what text)")
    file = _write_csv(tmp_path / "log.csv", [["n", "what"], *([i if i % 10 else "?", "line\none"] for i in range(200))])

    def stop(progress: Progress) -> None:
        if progress.rows >= 90:
            raise _Stop

    with pytest.raises(_Stop):
        herd.load("log", file, batch_rows=50, progress=stop)
    reject_file = tmp_path / "log.csv.rejected.jsonl"
    with reject_file.open("a") as late:
        late.write('{"line": 1, "written after": "the last commit"}\n')
    rest = herd.load("log", file, batch_rows=50)
    assert (rest.rows, rest.rejected, rest.resumed_from) == (90, 10, 201)
    assert (rest.total_rows, rest.total_rejected) == (180, 20)
    assert [line for line, _ in _rejected(reject_file)] == [2 + 20 * i for i in range(20)]
    assert herd.sql("SELECT count(*), count(DISTINCT n) AS n FROM log") == [(180, 180)]
    reject_file.unlink()


def test_going_on_without_the_reject_file_is_refused(single_db: Path, tmp_path: Path) -> None:
    herd = Opened(single_db, "CREATE TABLE log (n int)")
    file = _write_csv(tmp_path / "log.csv", [["n"], ["?"], *([i] for i in range(9))])

    def stop(progress: Progress) -> None:
        raise _Stop

    with pytest.raises(_Stop):
        herd.load("log", file, batch_rows=5, progress=stop)
    (tmp_path / "log.csv.rejected.jsonl").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="holds less"):
        herd.load("log", file, batch_rows=5)
    assert herd.load("log", file, batch_rows=5, reject_file=tmp_path / "elsewhere").total_rows == 9


def test_two_loads_of_one_file_do_not_mix(single_db: Path, tmp_path: Path) -> None:
    herd = Opened(single_db, "CREATE TABLE log (n int)")
    file = _write_csv(tmp_path / "log.csv", [["n"], *([i] for i in range(20))])

    async def both(first: AsyncHerd) -> Loaded:
        group, load_id = first.topology.groups[0].name, open_source(file).load_id(Name.parse("log"))
        async with hold(first.engine, group, load_id, "log", "log.csv"), connect_async(home=single_db) as second:
            with pytest.raises(HerdBusy, match="being loaded"):
                await load(second, "log", file)
        return await load(first, "log", file)

    assert herd.run(both).rows == 20


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("id,what\n1,2\n", BadInput, "no column 'what'"),
        ("body,score\n1,2\n", BadInput, "column id of doc is missing"),
        ("id\n", None, ""),
    ],
)
def test_a_file_of_the_wrong_columns_writes_nothing(
    single_db: Path, tmp_path: Path, text: str, error: type[HerdError] | None, message: str
) -> None:
    herd = Opened(single_db, DOC)
    file = tmp_path / "doc.csv"
    file.write_text(text)
    if error is None:
        assert herd.load("doc", file).rows == 0
        return
    with pytest.raises(error, match=message):
        herd.load("doc", file)
    assert herd.sql("SELECT count(*) FROM pgherd.load") == [(0,)]
    with pytest.raises(UnknownName):
        herd.load("nosuch", file)


def test_a_file_in_which_nothing_fits_is_refused_whole(single_db: Path, tmp_path: Path) -> None:
    herd = Opened(single_db, DOC)
    file = _write_csv(tmp_path / "doc.csv", [["id", "v"], *([i, "[1,2,3]"] for i in range(2000))])
    with pytest.raises(BadInput, match=r"none of 2000 rows .* line 2: column v: 3 dimensions"):
        herd.load("doc", file)
    assert not (tmp_path / "doc.csv.rejected.jsonl").exists()


def test_jsonl_rows_may_leave_columns_out(home: Path, tmp_path: Path) -> None:
    schema = """CREATE TABLE item (id bigint PRIMARY KEY, kind text NOT NULL DEFAULT 'plain', tags text[], meta jsonb);
                SELECT create_distributed_table('item', 'id');"""
    herd = Opened(home, schema)
    rows: list[Any] = [
        {"id": 1, "meta": {"a": [1, None]}},
        {"id": 2, "kind": "odd", "tags": ["x", "y z"]},
        {"kind": "no id"},
        {"id": 3, "kind": None},
        {"id": 4, "other": 1},
        {"id": 5, "meta": "text"},
    ]
    file = tmp_path / "item.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    loaded = herd.load("item", file)
    assert herd.sql("SELECT id, kind, tags, meta FROM item ORDER BY id") == [
        (1, "plain", None, {"a": [1, None]}),
        (2, "odd", ["x", "y z"], None),
        (5, "plain", None, "text"),
    ]
    assert loaded.reject_file is not None
    assert _rejected(loaded.reject_file) == [(3, "bad_row"), (4, "bad_row"), (5, "bad_row")]
    assert json.loads(loaded.reject_file.read_text().splitlines()[2])["row"] == {"id": 4, "other": 1}


def test_rows_of_unknown_regions_are_rejected(fleet_db: Path, tmp_path: Path) -> None:
    schema = """CREATE TABLE visit (region text, n int) PARTITION BY LIST (region);
                CREATE TABLE visit_e PARTITION OF visit FOR VALUES IN ('east');
                CREATE TABLE visit_w PARTITION OF visit FOR VALUES IN ('west');"""
    herd = Opened(fleet_db, schema)
    file = _write_csv(tmp_path / "v.csv", [["region", "n"], ["east", 1], ["north", 2], ["west", 3], ["", 4]])
    loaded = herd.load("visit", file)
    assert (loaded.rows, loaded.rejected) == (2, 2)
    assert herd.sql("SELECT region, n FROM visit_w") == [("west", 3)]
    assert "no partition takes 'north'" in (loaded.reject_file or Path()).read_text()


def test_reference_tables_get_every_copy(fleet_db: Path, tmp_path: Path) -> None:
    schema = "CREATE TABLE code (id int PRIMARY KEY, day date); SELECT create_reference_table('code')"
    herd = Opened(fleet_db, schema)
    file = _write_csv(tmp_path / "c.csv", [["id", "day"], *([i, "2024-01-02"] for i in range(40)), [3, "2024-01-02"]])
    loaded = herd.load("code", file)
    assert (loaded.rows, loaded.rejected) == (40, 1)

    async def count(client: AsyncHerd) -> list[Any]:
        return [(await client.sql("SELECT count(*) FROM code", region=g.name)) for g in client.topology.groups]

    assert herd.run(count) == [[{"count": 40}]] * 3


class _Lengths:
    """Embeds a text as its length and its number of words."""

    name, dim = "lengths", 2

    def embed(self, texts: Sequence[str]) -> Any:
        return np.array([[len(t), len(t.split())] for t in texts], np.float32).reshape(-1, 2)


def test_vectors_are_computed_from_texts(home: Path, tmp_path: Path) -> None:
    herd = Opened(home, DOC)
    texts = ["two words", "", "one", "  ", None]
    file = tmp_path / "doc.jsonl"
    file.write_text("".join(json.dumps({"id": i, "body": t}) + "\n" for i, t in enumerate(texts)))
    assert herd.load("doc", file, _Lengths(), embed={"body": "v"}).rows == 5
    assert herd.sql("SELECT id, v::text FROM doc ORDER BY id") == [
        (0, "[9,2]"),
        (1, None),
        (2, "[3,1]"),
        (3, None),
        (4, None),
    ]
    for pairs in ({"nosuch": "v"}, {"body": "score"}, {"body": "nosuch"}):
        with pytest.raises(BadInput):
            herd.load("doc", file, _Lengths(), embed=pairs, restart=True)


def test_rows_that_need_a_vector_need_a_text(single_db: Path, tmp_path: Path) -> None:
    herd = Opened(single_db, "CREATE TABLE note (body text, v vector(2) NOT NULL)")
    file = _write_csv(tmp_path / "n.csv", [["body"], ["word"], ['""'], [" "], ["more words"]])
    loaded = herd.load("note", file, _Lengths(), embed={"body": "v"})
    assert (loaded.rows, loaded.rejected) == (3, 1)
    assert "no text to compute v from" in (loaded.reject_file or Path()).read_text()


def test_a_model_that_fails_stops_the_load_and_it_goes_on_later(single_db: Path, tmp_path: Path) -> None:
    herd = Opened(single_db, "CREATE TABLE note (body text, v vector(2))")
    file = _write_csv(tmp_path / "n.csv", [["body"], *([f"text {i}"] for i in range(60))])

    class Failing(_Lengths):
        calls = 0

        def embed(self, texts: Sequence[str]) -> Any:
            self.calls += 1
            if self.calls == 3:
                raise EmbeddingFailed("the endpoint is gone")
            return super().embed(texts)

    with pytest.raises(EmbeddingFailed):
        herd.load("note", file, Failing(), embed={"body": "v"}, batch_rows=10)
    rest = herd.load("note", file, _Lengths(), embed={"body": "v"}, batch_rows=10)
    assert rest.resumed_from > 0
    assert rest.total_rows == 60
    assert herd.sql("SELECT count(*), count(v) AS v, count(DISTINCT body) AS bodies FROM note") == [(60, 60, 60)]


def test_parquet_with_every_kind_of_column(home: Path, tmp_path: Path) -> None:
    schema = """CREATE TABLE m (id bigint PRIMARY KEY, b boolean, r real, d double precision, n numeric(8,2), t text,
                  day date, at timestamptz, ts timestamp, u uuid, raw bytea, j jsonb, v vector(3), h halfvec(2));
                SELECT create_distributed_table('m', 'id');"""
    herd = Opened(home, schema)
    whole: dict[str, Any] = {
        "id": 1,
        "b": True,
        "r": 1.5,
        "d": 2.25,
        "n": Decimal("3.14"),
        "t": "tëxt",
        "day": date(2024, 1, 2),
        "at": datetime(2024, 1, 2, 3, tzinfo=UTC),
        "ts": datetime(2024, 1, 2, 3),
        "u": "12345678-1234-5678-1234-567812345678",
        "raw": b"\0\xff",
        "j": '{"a": 1}',
        "v": [1.0, 2.0, 3.0],
        "h": [0.5, 0.25],
    }
    empty = {**dict.fromkeys(whole), "id": 2}
    wrong = {**whole, "id": 3, "v": [1.0, float("nan"), 2.0]}
    pa.parquet.write_table(pa.Table.from_pylist([whole, empty, wrong]), tmp_path / "m.parquet")
    loaded = herd.load("m", tmp_path / "m.parquet")
    assert (loaded.rows, loaded.rejected) == (2, 1)
    assert _rejected(loaded.reject_file or Path()) == [(3, "bad_row")]
    first, second = herd.run(lambda h: h.sql("SELECT *, v::text AS v, h::text AS h FROM m ORDER BY id"))
    assert first == {**whole, "u": UUID(whole["u"]), "j": {"a": 1}, "v": "[1,2,3]", "h": "[0.5,0.25]"}
    assert second == empty


def test_what_is_not_about_a_row_stops_the_load(single_db: Path, tmp_path: Path) -> None:
    herd = Opened(single_db, "CREATE TABLE log (n int)")
    herd.sql("ALTER TABLE log RENAME COLUMN n TO m")
    file = _write_csv(tmp_path / "log.csv", [["n"], ["?"], [1], [2]])
    with pytest.raises(ServerRefused, match="column"):
        herd.load("log", file)
    assert not (tmp_path / "log.csv.rejected.jsonl").exists()
    herd.sql("ALTER TABLE log RENAME COLUMN m TO n")
    assert herd.load("log", file).rows == 2


def test_a_deferred_constraint_is_found_before_the_commit(single_db: Path, tmp_path: Path) -> None:
    schema = """CREATE TABLE parent (id int PRIMARY KEY);
                CREATE TABLE child (parent int REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);"""
    herd = Opened(single_db, schema)
    herd.sql("INSERT INTO parent VALUES (1)")
    file = _write_csv(tmp_path / "c.csv", [["parent"], [1], [2], [1]])
    loaded = herd.load("child", file)
    assert (loaded.rows, loaded.rejected) == (2, 1)
    assert _rejected(loaded.reject_file or Path()) == [(3, "server_refused")]
