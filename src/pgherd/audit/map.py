"""A report as a map: regions as places, nodes in them, what goes where as arrows. One SVG, from the report alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from math import hypot
from typing import Any

ACROSS = 4
"""Regions in a row."""
REGION_W, NODE_W, NODE_H, GAP, HEAD, MARGIN = 230, 180, 46, 64, 44, 24
COLOURS = {"violation": "#c0262d", "risk": "#b26a00", "note": "#4477aa", "allowed": "#228833"}
_DASHES = {"risk": "7 4", "note": "2 4", "allowed": ""}
_WIDTH = {"violation": 3.0, "risk": 2.0, "note": 1.5, "allowed": 1.5}


@dataclass(slots=True)
class _Arrow:
    """All that goes from one mark to another in one way."""

    source: str
    target: str
    how: str
    told: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Mark:
    """A node, or a place that is no node, with its middle."""

    x: float
    y: float
    w: float = NODE_W
    h: float = NODE_H


def draw(document: dict[str, Any]) -> str:
    """The map of a report; what is behind each arrow is told when it is pointed at."""
    regions = _regions(document)
    arrows = list(_arrows(document))
    marks, boxes, width, bottom = _places(regions, _others(document, arrows))
    body = [*(_box(*box) for box in boxes)]
    body += [_node(name, marks[name], document) for nodes in regions.values() for name in nodes]
    body += [_other(name, marks[name]) for name in marks if not any(name in nodes for nodes in regions.values())]
    order = ["allowed", "note", "risk", "violation"]
    body += [_arrow(a, marks, n) for n, a in enumerate(sorted(arrows, key=lambda a: order.index(a.how)))]
    height = bottom + 34
    body.append(_legend(bottom + 10))
    heads = "".join(
        f'<marker id="head-{how}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="11" markerHeight="11"'
        f' markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for how, colour in COLOURS.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' font-family="sans-serif" font-size="13" fill="#222" role="img"><title>Who holds what, where</title>'
        f"<defs>{heads}</defs>\n" + "\n".join(body) + "\n</svg>\n"
    )


def _regions(document: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group in document["groups"]:
        for node in group["nodes"]:
            found.setdefault(node["region"], []).append(node["name"])
    return found


def _arrows(document: dict[str, Any]) -> Iterator[_Arrow]:
    found: dict[tuple[str, str, str], _Arrow] = {}
    for entry in [*document["looked_at"], *document["findings"]]:
        how = entry.get("severity", "allowed")
        source, target = entry["source"], entry["target"]
        if source and target and source != target:
            arrow = found.setdefault((source, target, how), _Arrow(source, target, how))
            arrow.told.append(entry["detail"] if how != "allowed" else f"{entry['what']}: {entry['detail']}")
    yield from found.values()


def _others(document: dict[str, Any], arrows: list[_Arrow]) -> list[str]:
    nodes = {n["name"] for g in document["groups"] for n in g["nodes"]}
    return list(dict.fromkeys(end for a in arrows for end in (a.source, a.target) if end not in nodes))


def _places(
    regions: dict[str, list[str]], others: list[str]
) -> tuple[dict[str, _Mark], list[tuple[str, float, float, float, float]], int, float]:
    marks: dict[str, _Mark] = {}
    boxes: list[tuple[str, float, float, float, float]] = []
    names = list(regions)
    y = float(MARGIN if len(names) < 3 else MARGIN + 40)  # room for arrows round the middle
    across = min(ACROSS, max(len(names), min(2, len(others)), 1))
    width = 2 * MARGIN + across * REGION_W + (across - 1) * GAP
    for start in range(0, len(names), ACROSS):
        row = names[start : start + ACROSS]
        tallest = max(len(regions[name]) for name in row)
        height = HEAD + tallest * (NODE_H + 14) + 8
        for i, name in enumerate(row):
            x = MARGIN + i * (REGION_W + GAP)
            boxes.append((name, x, y, float(REGION_W), float(height)))
            for j, node in enumerate(regions[name]):
                marks[node] = _Mark(x + REGION_W / 2, y + HEAD + j * (NODE_H + 14) + NODE_H / 2)
        y += height + GAP
    each = (width - 2 * MARGIN) / max(1, min(len(others), across))
    for i, name in enumerate(others):
        if i and i % across == 0:
            y += NODE_H + 30
        marks[name] = _Mark(MARGIN + each * (i % across + 0.5), y + NODE_H / 2, min(each - 16, 300.0))
    return marks, boxes, width, y + (NODE_H + 20 if others else -GAP + (60 if len(names) > 2 else 20))


def _box(name: str, x: float, y: float, w: float, h: float) -> str:
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" rx="12" fill="#f4f7fa" stroke="#b8c4ce"/>'
        f'<text x="{x + 16:.0f}" y="{y + 27:.0f}" font-weight="bold" font-size="15">{escape(name)}</text>'
    )


def _node(name: str, mark: _Mark, document: dict[str, Any]) -> str:
    group = next(g for g in document["groups"] if any(n["name"] == name for n in g["nodes"]))
    mine = [f for f in document["findings"] if f["node"] == name]
    worst = next((s for s in ("violation", "risk", "note") if any(f["severity"] == s for f in mine)), None)
    held = "pinned: " + ", ".join(group["pinned"]) if group["pinned"] else "nothing pinned"
    stroke = COLOURS[worst] if worst else "#8899a6"
    x, y = mark.x - mark.w / 2, mark.y - mark.h / 2
    badge = ""
    if worst:
        badge = (
            f'<circle cx="{x + mark.w:.0f}" cy="{y:.0f}" r="11" fill="{stroke}"/><text x="{x + mark.w:.0f}"'
            f' y="{y + 4.5:.1f}" text-anchor="middle" fill="#fff" font-weight="bold">{len(mine)}</text>'
        )
    tip = "\n".join(f"{f['severity']}: {f['detail']}" for f in mine) or "no finding"
    return (
        f"<g><title>{escape(tip)}</title>"
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{mark.w:.0f}" height="{mark.h:.0f}" rx="6"'
        f' fill="#fff" stroke="{stroke}" stroke-width="{2.5 if worst else 1.2}"/>'
        f'<text x="{x + 12:.0f}" y="{y + 19:.0f}">{escape(_cut(name, 24))}</text>'
        f'<text x="{x + 12:.0f}" y="{y + 36:.0f}" font-size="11" fill="#667">{escape(_cut(held, 28))}</text>{badge}</g>'
    )


def _other(name: str, mark: _Mark) -> str:
    x, y = mark.x - mark.w / 2, mark.y - mark.h / 2
    shown = _cut(name, int(mark.w / 7.4))
    return (
        f"<g><title>{escape(name)}</title>"
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{mark.w:.0f}" height="{mark.h:.0f}" rx="23"'
        f' fill="#fff" stroke="#8899a6" stroke-dasharray="4 3"/><text x="{mark.x:.0f}" y="{mark.y + 4:.0f}"'
        f' text-anchor="middle">{escape(shown)}</text></g>'
    )


def _arrow(arrow: _Arrow, marks: dict[str, _Mark], number: int) -> str:
    a, b = marks[arrow.source], marks[arrow.target]
    length = hypot(b.x - a.x, b.y - a.y) or 1.0
    bend = 26 + 10 * (number % 3) + max(0.0, length - 1.2 * (REGION_W + GAP)) * 0.45  # round what is between
    # Bent to one side of its direction, so that there and back are two lines.
    mx, my = (a.x + b.x) / 2 + (b.y - a.y) / length * bend, (a.y + b.y) / 2 - (b.x - a.x) / length * bend
    (ax, ay), (bx, by) = _edge(a, mx, my), _edge(b, mx, my)
    how = arrow.how
    tip = escape(f"{arrow.source} → {arrow.target}\n" + "\n".join(arrow.told))
    dashes = f' stroke-dasharray="{_DASHES[how]}"' if _DASHES.get(how) else ""
    return (
        f'<path d="M{ax:.1f} {ay:.1f}Q{mx:.1f} {my:.1f} {bx:.1f} {by:.1f}" fill="none" stroke="{COLOURS[how]}"'
        f' stroke-width="{_WIDTH[how]}"{dashes} marker-end="url(#head-{how})"><title>{tip}</title></path>'
    )


def _edge(mark: _Mark, x: float, y: float) -> tuple[float, float]:
    """Where the line from the middle of a mark to a point leaves it."""
    dx, dy = x - mark.x, y - mark.y
    scale = min(
        (mark.w / 2 + 3) / abs(dx) if dx else float("inf"), (mark.h / 2 + 3) / abs(dy) if dy else float("inf"), 1.0
    )
    return mark.x + dx * scale, mark.y + dy * scale


def _legend(y: float) -> str:
    told = {
        "allowed": "by right",
        "violation": "violation",
        "risk": "could get out",
    }
    parts = []
    for i, (how, text) in enumerate(told.items()):
        x = MARGIN + i * 150
        dashes = f' stroke-dasharray="{_DASHES[how]}"' if _DASHES.get(how) else ""
        parts.append(
            f'<path d="M{x} {y:.0f}h34" stroke="{COLOURS[how]}" stroke-width="{_WIDTH[how]}"{dashes}'
            f' marker-end="url(#head-{how})"/><text x="{x + 42}" y="{y + 4:.0f}" font-size="12">{text}</text>'
        )
    return "".join(parts)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 1)] + "…"
