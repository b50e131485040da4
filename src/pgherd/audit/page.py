"""A report as one HTML page for people who decide: nothing in it is loaded from elsewhere, and nothing runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from .map import draw
from .signing import embedded

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; margin: 0 auto; max-width: 1180px;
padding: 28px 32px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 38px 0 10px; }
.sub { color: #5a6773; margin: 0 0 20px; }
.verdict { border-radius: 10px; padding: 14px 20px; font-size: 18px; font-weight: 600; color: #fff; }
.verdict.violation { background: #c0262d; } .verdict.risk { background: #b26a00; }
.verdict.clean { background: #1f7a35; }
.verdict small { display: block; font-weight: 400; font-size: 14px; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: 7px 10px;
border-bottom: 1px solid #dfe5ea; overflow-wrap: anywhere; } th { font-size: 13px; color: #5a6773; font-weight: 600; }
.tight td:not(:last-child) { overflow-wrap: normal; white-space: nowrap; }
.badge { border-radius: 5px; padding: 2px 8px; font-size: 12.5px; font-weight: 600; color: #fff; white-space: nowrap; }
.badge.violation { background: #c0262d; } .badge.risk { background: #b26a00; } .badge.note { background: #4477aa; }
.todo { color: #5a6773; font-size: 13.5px; } .map { overflow-x: auto; } code { font-size: 13px; }
details summary { cursor: pointer; } footer { margin-top: 40px; color: #5a6773; font-size: 13.5px; }
@media print { body { max-width: none; } details { display: block; } }
"""


def page(document: dict[str, Any]) -> str:
    """The page of a report (as ``--json`` prints it), which it holds as data, too."""
    title = "Where pinned rows are"
    at = f"{document['at']}, generation {document['generation']}, engine {document['engine']}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}: {escape(document["at"])}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="sub">Audit of {escape(at)}; pgherd {escape(document["pgherd"])}, {document["seconds"]:.1f} s</p>
{_verdict(document)}
<h2>Map</h2>
<div class="map">{draw(document)}</div>
<h2>Findings</h2>
{_findings(document["findings"])}
<h2>What must stay where</h2>
{_pinned(document["pinned"])}
<h2>What could not be looked at, and why</h2>
{_missing(document["could_not_look_at"])}
<h2>What was looked at</h2>
{_looked(document["looked_at"])}
<footer>{_signed(document)}</footer>
{embedded(document)}
</body>
</html>
"""


def _verdict(document: dict[str, Any]) -> str:
    violations, risks = document["violations"], document["risks"]
    kind = "violation" if violations else "risk" if risks else "clean"
    text = {
        "violation": f"{violations} {'violation' if violations == 1 else 'violations'}: pinned rows or values are"
        " outside their regions, on their way there, or nobody can say where",
        "risk": f"No violation, {risks} {'risk' if risks == 1 else 'risks'}: ways by which rows could get out",
        "clean": "No violation and no risk was found",
    }[kind]
    whole = "Every server and database of the herd was seen." if document["complete"] else ""
    part = "" if document["complete"] else "Incomplete: not every server or database could be seen (see below)."
    return f'<div class="verdict {kind}">{text}<small>{whole}{part}</small></div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, tight: bool = False) -> str:
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>\n" for row in rows)
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    return f"<table{' class=tight' if tight else ''}><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table>"


def _findings(findings: list[dict[str, Any]]) -> str:
    if not findings:
        return "<p>None.</p>"
    rows = [
        [
            f'<span class="badge {f["severity"]}">{f["severity"]}</span>',
            f"<code>{escape(f['kind'])}</code>",
            escape(f["table"] or "–"),
            "<br>".join(map(escape, dict.fromkeys((f["region"], f["node"])))),
            escape(f["detail"]) + (f'<div class="todo">→ {escape(f["hint"])}</div>' if f["hint"] else ""),
        ]
        for f in findings
    ]
    return _table(["", "kind", "table", "seen in", "what, and what to do"], rows, tight=True)


def _pinned(pinned: list[dict[str, Any]]) -> str:
    if not pinned:
        return "<p>No tablespace of this herd keeps rows in a region.</p>"
    rows = [
        [*(escape(p[k]) for k in ("table", "shard", "home", "tablespace")), escape(", ".join(p["regions"]))]
        for p in pinned
    ]
    return _table(["table", "shard", "home", "tablespace", "may be in"], rows)


def _missing(missing: list[dict[str, Any]]) -> str:
    if not missing:
        return "<p>Nothing.</p>"
    rows = [
        [escape(x["what"]), escape(x["node"] or "everywhere"), escape(x["region"] or ""), escape(x["why"])]
        for x in missing
    ]
    return _table(["what", "node", "region", "why"], rows)


def _looked(looked: list[dict[str, Any]]) -> str:
    by_what: dict[str, list[dict[str, Any]]] = {}
    for x in looked:
        by_what.setdefault(x["what"], []).append(x)
    rows = []
    for what, entries in by_what.items():
        total = sum(x["count"] or 0 for x in entries)
        nodes = ", ".join(dict.fromkeys(x["node"] for x in entries if x["node"]))
        told = [f"{x['node'] or ''} {x['detail']} ({x['count'] or 0})".strip() for x in entries if x["detail"]]
        more = "".join(f"<div>{escape(t)}</div>" for t in told)
        shown = f"<details><summary>{len(told)}</summary>{more}</details>" if told else ""
        rows.append([escape(what), f"{total:,}", escape(nodes), shown])
    return _table(["what", "found", "on", "in detail"], rows)


def _signed(document: dict[str, Any]) -> str:
    signature = document.get("signature")
    if not signature:
        return "This report is not signed."
    return (
        f"Signed with key <code>{escape(signature['key_id'])}</code> (Ed25519). Check that nothing of it was changed:"
        " <code>pgherd audit --verify FILE --key audit.pub</code>, with the herd's public key, which you should have"
        " from somewhere else than this page. No value of a row is in this report."
    )
