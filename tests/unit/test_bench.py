"""The benchmark's own arithmetic: what its numbers mean must not depend on servers."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bench import report
from bench.contenders import WrongAnswer, calibrated
from bench.data import corpus
from bench.measure import Series, percentile, take_turns
from bench.outcome import Curve, Goal, Outcome, Table, plain, ratio
from bench.searchers import Answers, K

TRUTH = [set(range(K))] * 4
QUESTIONS = np.zeros((4, 8), np.float32)


class Needs:
    """A searcher that finds one of ten neighbours more with each ``step`` of effort."""

    def __init__(self, step: int) -> None:
        self._step = step

    def ask(self, questions: np.ndarray, effort: int) -> Answers:
        right = min(K, effort // self._step)
        ids = [*range(right), *range(100, 100 + K - right)]
        return Answers([1.0] * len(questions), [ids] * len(questions))


@pytest.mark.parametrize(("step", "least"), [(1, 10), (7, 63), (90, 810)])
def test_the_least_effort_that_reaches_the_recall(step: int, least: int) -> None:
    assert calibrated("it", Needs(step), QUESTIONS, TRUTH, 0.9) == least


def test_a_recall_that_no_effort_reaches_is_an_error() -> None:
    with pytest.raises(WrongAnswer, match="does not reach"):
        calibrated("it", Needs(120), QUESTIONS, TRUTH, 0.9)


def test_too_few_rows_are_an_error() -> None:
    class Few(Needs):
        def ask(self, questions: np.ndarray, effort: int) -> Answers:
            return Answers([1.0] * len(questions), [[1] * K] * len(questions))

    with pytest.raises(WrongAnswer, match="gave 1 rows"):
        calibrated("it", Few(1), QUESTIONS, TRUTH, 0.9)


def test_a_ratio_is_of_the_same_round() -> None:
    goal = ratio("it", Series("a", [1, 20, 3]), Series("b", [1, 10, 1]), 2.0)
    assert (goal.measured, goal.least, goal.most, goal.met) == (2.0, 1.0, 3.0, True)
    assert not ratio("it", Series("a", [1]), Series("b", [1]), 1.5, at_least=True).met


def test_turns_alternate() -> None:
    said: list[str] = []
    take_turns([lambda: said.append("a"), lambda: said.append("b")], 3)
    assert said == ["a", "b", "b", "a", "a", "b"]


def test_percentiles() -> None:
    assert percentile(list(range(100)), 0.5) == 50
    assert percentile(list(range(100)), 0.99) == 99


@pytest.mark.filterwarnings("ignore:.*_text is deprecated:DeprecationWarning")  # the catalogue's own
@pytest.mark.parametrize("dim", [384, 1536])
def test_vectors_have_length_one_and_questions_are_not_rows(dim: int) -> None:
    data = corpus(5000, dim)
    assert data.vectors.shape == (5000, dim)
    assert np.allclose(np.linalg.norm(data.vectors, axis=1), 1, atol=1e-5)
    assert (data.questions @ data.vectors.T).max() < 0.9999
    best = data.nearest(K)[0]
    exact = np.argsort(-(data.vectors @ data.questions[0]))[:K]
    assert best == set(data.ids[exact].tolist())


def test_what_is_written(tmp_path: Path) -> None:
    goals = [plain("slow <thing>", Series("s", [3.0, 4.0, 5.0]), 3.0, "ms"), Goal("errors", 0, 0, 0, 0, "")]
    tables = [Table("All", ["who", "ms"], [["we", "4.0"]], "A note.")]
    curves = [Curve("we", [(1.0, 0.9, "effort 10"), (2.0, 0.99, "effort 20")])]
    outcome = Outcome("search", "Searches", "About it.", goals, tables, curves, ["Citus"])
    machine = dict.fromkeys(
        ("processor", "cpus", "memory_gib", "system", "postgresql", "pgvector", "python", "psycopg")
    )
    settings = {"rows": 1, "rounds": 3, "target_recall": 0.95, "ef_construction": 64, "quick": True}
    load = {"busy_before": 0.0, "busy_after": None}
    document = {**outcome.as_json(), "machine": machine, "settings": settings, "load": load, "day": "", "seconds": 1.0}
    report.write([document], tmp_path)
    report.write([{**document, "suite": "load", "curves": []}], tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| search | slow <thing> | 4.00 ms | 3.00 to 5.00 | ≤ 3 ms | **no** |" in text
    assert "| load | errors | 0.00 | 0.00 to 0.00 | ≤ 0 | yes |" in text
    assert "Left out: Citus." in text
    for name in ("goals.svg", "search.svg"):
        ElementTree.fromstring((tmp_path / name).read_text())
    assert json.loads((tmp_path / "load.json").read_text())["goals"][0]["met"] is False
