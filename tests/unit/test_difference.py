"""Edits make one document of another, whatever they are, and leave what they start from as it was."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgherd.model.difference import difference, patched

leaves = st.none() | st.booleans() | st.integers(2, 5) | st.text("ab'\"\\ü", max_size=3)
keys = st.text("ab0/.~ü", min_size=1, max_size=2)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(keys, v, max_size=4), max_leaves=12)
documents = st.dictionaries(keys, values, max_size=4)


@given(documents, documents)
def test_edits_make_any_document_of_any_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = copy.deepcopy(old)
    edits = json.loads(json.dumps(difference(old, new)))
    made = patched(old, edits)
    assert json.dumps(made, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert old == before
    assert (edits == []) == (json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True))


def test_little_is_said_of_a_little_change() -> None:
    """As a split changes a topology: one element of a list in a list becomes two, and keys go and come."""
    old = {"n": 1, "items": [{"name": f"t{i}", "parts": [[i, k] for k in range(100)]} for i in range(50)]}
    old["homes"] = {f"t{i}_{k}": "g" for i in range(50) for k in range(100)}
    new = copy.deepcopy(old)
    new["n"] = 2
    new["items"][7]["parts"][3:4] = ["low", "high"]  # type: ignore[index]
    del new["homes"]["t7_3"]  # type: ignore[attr-defined]
    new["homes"] |= {"t7_3l": "g", "t7_3h": "g"}  # type: ignore[operator]
    assert difference(old, new) == [
        {"path": ["items", 7, "parts"], "at": 3, "drop": 1, "put": ["low", "high"]},
        {"path": ["homes"], "drop": ["t7_3"], "put": {"t7_3l": "g", "t7_3h": "g"}},
        {"path": [], "drop": [], "put": {"n": 2}},
    ]
