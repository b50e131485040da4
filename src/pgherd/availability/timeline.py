"""A drill's rounds as one SVG, a strip a round: who acknowledged writes, when reads were answered, what was refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from textwrap import wrap

from .drill import Report, Trace
from .history import Kind, Op, Outcome
from .measure import Round

WIDTH, LEFT, RIGHT, TOP = 900, 150, 20, 92
ROW, STRIP_GAP = 16, 48
LINE = 110
"""Letters of a line of text."""
LABEL = 70
"""How wide what is said of a mark may be."""
TICKS = 10
BUCKETS = 240
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
"""Told apart by colour-blind eyes too (Paul Tol, Colour Schemes, 2021: bright)."""
_REFUSED, _UNKNOWN = "#222222", "#bb5500"


def svg(report: Report) -> str:
    """The picture: the darker, the more writes were acknowledged; each round's longest gap is tinted."""
    nodes = sorted({op.node for t in report.traces for op in t.ops if op.node})
    colours = {n: COLOURS[i % len(COLOURS)] for i, n in enumerate(nodes)}
    strip = ROW * (len(nodes) + 2) + STRIP_GAP
    height = TOP + strip * len(report.rounds) + 30
    body = [_text(LEFT, 22, f"{report.drill} of group {report.group}", "start", 14)]
    body += [_text(LEFT, 38 + 13 * i, line, "start", 11) for i, line in enumerate(wrap(report.how, LINE)[:2])]
    what = "writes acknowledged by each node, reads, and what got no answer (writes that may have happened: brown)"
    body.append(_text(LEFT, TOP - 25, what, "start", 11))
    span = max((t.ended_s for t in report.traces), default=1.0)
    body += _axis(height - 22, span)
    for i, (found, trace) in enumerate(zip(report.rounds, report.traces, strict=True)):
        body += _strip(TOP + strip * i, i + 1, found, trace, nodes, colours, span)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" fill="#222">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _strip(
    top: float, number: int, found: Round, trace: Trace, nodes: Sequence[str], colours: dict[str, str], span: float
) -> Iterable[str]:
    def x(at_s: float) -> float:
        return LEFT + min(1.0, max(0.0, at_s / span)) * (WIDTH - LEFT - RIGHT)

    bottom = top + ROW * (len(nodes) + 2)
    title = f"round {number}: {found.rto_s:.2f} s without a write, {found.acknowledged} acknowledged, {found.lost} lost"
    yield _text(LEFT, top - 5, title, "start")
    gap = _gap(trace, found.rto_s)
    if gap:
        width, height = max(1, x(gap[1]) - x(gap[0])), bottom - top
        yield f'<rect x="{x(gap[0]):.1f}" y="{top}" width="{width:.1f}" height="{height}" fill="#fee"/>'
    for row, node in enumerate(nodes):
        y = top + ROW * row
        yield _text(LEFT - 8, y + 12, node, "end")
        writes = [
            op.ended_s for op in trace.ops if op.kind is Kind.APPEND and op.outcome is Outcome.OK and op.node == node
        ]
        yield from _row(y, writes, colours[node], span)
    y = top + ROW * len(nodes)
    yield _text(LEFT - 8, y + 12, "reads", "end")
    yield from _row(y, [op.ended_s for op in trace.ops if op.kind is Kind.READ], "#888888", span)
    yield _text(LEFT - 8, y + ROW + 12, "no answer", "end")
    yield from _row(y + ROW, [r.at_s for r in trace.refusals], _REFUSED, span)
    unknown = [op.ended_s for op in trace.ops if op.kind is Kind.APPEND and op.outcome is Outcome.UNKNOWN]
    yield from _row(y + ROW, unknown, _UNKNOWN, span)
    marks = ((trace.broken_s, "broken"), (trace.mended_s, "mended"), (trace.redundant_s, "redundant"))
    before, lower = float(-LABEL), False
    for at, what in marks:
        if at is None:
            continue
        lower, before = x(at) - before < LABEL and not lower, x(at)
        drop = 12 if lower else 0
        yield f'<path d="M{x(at):.1f} {top}V{bottom + 4 + drop}" stroke="#222" stroke-dasharray="3 3"/>'
        told = f"{what} {at - trace.broken_s:+.1f} s" if at != trace.broken_s else what
        yield _text(x(at), bottom + 14 + drop, told, "middle", 10)


def _axis(y: float, span: float) -> Iterable[str]:
    """Seconds since the clients began, under all rounds."""
    step = next((s for s in (1, 2, 5, 10, 20, 50, 100) if span / s <= TICKS), 200)
    yield f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#888"/>'
    for at in range(0, int(span) + 1, step):
        x = LEFT + at / span * (WIDTH - LEFT - RIGHT)
        yield f'<path d="M{x:.1f} {y}v4" stroke="#888"/>'
        yield _text(x, y + 15, f"{at} s", "middle", 10)


def _row(y: float, times: Sequence[float], colour: str, span: float) -> Iterable[str]:
    counts: dict[int, int] = {}
    for at in times:
        bucket = int(at / span * BUCKETS)
        counts[bucket] = counts.get(bucket, 0) + 1
    most = max(counts.values(), default=1)
    width = (WIDTH - LEFT - RIGHT) / BUCKETS
    for bucket, count in sorted(counts.items()):
        opacity = 0.35 + 0.65 * count / most
        left = LEFT + bucket * width
        yield (
            f'<rect x="{left:.1f}" y="{y + 2}" width="{width:.2f}" height="{ROW - 4}" fill="{colour}"'
            f' fill-opacity="{opacity:.2f}"/>'
        )


def _gap(trace: Trace, length_s: float) -> tuple[float, float] | None:
    times = sorted(op.ended_s for op in trace.ops if _acknowledged(op))
    for a, b in pairwise(times):
        if b > trace.broken_s and b - a >= length_s - 0.001:
            return a, b
    return None


def _acknowledged(op: Op) -> bool:
    return op.kind is Kind.APPEND and op.outcome is Outcome.OK


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
