"""The files that say what was measured: a JSON document a suite, and of all of them a README and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import picture
from .setting import TARGET_RECALL

Document = Mapping[str, Any]
ORDER = ("search", "throughput", "tail", "load", "scale", "elastic", "peers", "memory")

_HEAD = f"""# How a herd compares

Made by `make bench`; `python -m bench SUITE` makes one suite anew. Each suite measures all that it compares in one run
on one machine: servers and clients share its processors, so that several groups have no more hardware than one server.
A ratio compares the same round of two contenders that take turns; the number is the median over the rounds, with the
least and the most of any round beside it. Searches are compared at equal recall@10: each contender spends the least
effort that brings it to {TARGET_RECALL}, measured against an exact search, and must give ten different rows each time.
"""


def write(documents: Sequence[Document], directory: Path) -> None:
    """Add to the results in a directory, and write its README and pictures anew from all that is there."""
    directory.mkdir(parents=True, exist_ok=True)
    for document in documents:
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (directory / f"{document['suite']}.json").write_text(text, encoding="utf-8")
    found = [json.loads(path.read_text("utf-8")) for path in map(directory.joinpath, _files()) if path.exists()]
    (directory / "README.md").write_text(readme(found), encoding="utf-8")
    (directory / "goals.svg").write_text(picture.goals(found), encoding="utf-8")
    for document in found:
        if document["curves"]:
            (directory / f"{document['suite']}.svg").write_text(picture.curves(document), encoding="utf-8")


def _files() -> list[str]:
    return [f"{suite}.json" for suite in ORDER]


def readme(documents: Sequence[Document]) -> str:
    """``results/README.md``."""
    parts = [_HEAD, "## Goals\n", goals_table(documents), "\n![goals](goals.svg)\n"]
    for document in documents:
        parts.append(f"## {document['title']}\n")
        parts.append(document["about"] + "\n")
        if document["curves"]:
            parts.append(f"![{document['title']}]({document['suite']}.svg)\n")
        parts.append(tables(document))
        parts.append(f"Run: {_run(document)} All rounds are in `{document['suite']}.json`.\n")
    return "\n".join(parts)


def goals_table(documents: Sequence[Document]) -> str:
    """Every goal of these documents, as Markdown."""
    rows = [[document["suite"], *_cells(g)] for document in documents for g in document["goals"]]
    return _markdown(["suite", "what", "measured", "least to most", "goal", "met"], rows) + "\n"


def tables(document: Document) -> str:
    """A document's tables, and what was left out, as Markdown."""
    parts = []
    for table in document["tables"]:
        parts.append(f"### {table['title']}\n")
        parts.append(_markdown(table["head"], table["rows"]) + "\n")
        if table["note"]:
            parts.append(table["note"] + "\n")
    parts += [f"Left out: {text}.\n" for text in document["left_out"]]
    return "\n".join(parts)


def _cells(goal: Document) -> list[str]:
    unit = goal["unit"]
    return [
        goal["what"],
        f"{_number(goal['measured'])} {unit}".rstrip(),
        f"{_number(goal['least'])} to {_number(goal['most'])}",
        f"{'≥' if goal['at_least'] else '≤'} {goal['goal']:g} {unit}".rstrip(),
        "yes" if goal["met"] else "**no**",
    ]


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _run(document: Document) -> str:
    m, s, busy = document["machine"], document["settings"], document["load"]
    quick = " (`--quick`: to see that it works, not to judge by)" if s["quick"] else ""
    return (
        f"{document['day']}{quick}, {s['rounds']} rounds, {document['seconds']:.0f} s, HNSW with m = 16 and"
        f" ef_construction = {s['ef_construction']}; {m['processor']}, {m['cpus']} processors, {m['memory_gib']} GiB,"
        f" {m['system']}, PostgreSQL {m['postgresql']}, pgvector {m['pgvector']}, Python {m['python']}, psycopg"
        f" {m['psycopg']}; others used {_percent(busy['busy_before'])} of the processors just before and"
        f" {_percent(busy['busy_after'])} just after."
    )


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{share:.0%}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
