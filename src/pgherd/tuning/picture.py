"""Curves as a picture: one SVG without any dependency, recall over milliseconds, one line a shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, log10

from ..search.effort import ALL
from .store import Calibration

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 40, 56
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Told apart by colour-blind eyes too (Paul Tol, Colour Schemes, 2021: bright)."""
MAX_NAMES = 12


def svg(found: Sequence[Calibration], recall: float, k: int = 10) -> str:
    """Recall of the ``k`` nearest over milliseconds, points labelled with their effort, ``recall`` as a dashed line."""
    lines = [(c, _points(c, k)) for c in found]
    times = [ms for _, points in lines for _, ms, _ in points] or [1.0]
    plane = _Plane(min(times), max(times), min((r for _, points in lines for _, _, r in points), default=0.0))
    body = [*plane.frame(k), *plane.target(recall)]
    for number, (calibration, points) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{plane.x(ms):.1f},{plane.y(r):.1f}" for _, ms, r in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for effort, ms, r in points:
            x, y = plane.x(ms), plane.y(r)
            tip = escape(f"{_name(calibration)}: effort {effort}, recall {r:.3f}, {ms:.2f} ms")
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{tip}</title></circle>')
            if number == 0:
                body.append(_text(x, y + 16, str(effort), "middle", 10))
        if number < MAX_NAMES:
            y = HEIGHT - BOTTOM - 14 - 16 * (min(len(lines), MAX_NAMES) - 1 - number)
            body.append(f'<rect x="{WIDTH - RIGHT - 12}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
            body.append(_text(WIDTH - RIGHT - 18, y, _name(calibration), "end"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" fill="#222">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _name(calibration: Calibration) -> str:
    return f"{calibration.relation} {calibration.column} {calibration.stored}"


def _points(calibration: Calibration, k: int) -> list[tuple[int, float, float]]:
    curve = calibration.curve
    known = ((p.effort, p.ms, curve.recall_at(p.effort, k, within=ALL)) for p in curve.points)
    return [(effort, ms, r) for effort, ms, r in known if r is not None]


class _Plane:
    """From milliseconds (logarithmic) and recall to places in the picture."""

    def __init__(self, least_ms: float, most_ms: float, least_recall: float) -> None:
        self.low_ms, self.high_ms = max(least_ms, 1e-3) / 1.2, max(most_ms, 2e-3) * 1.2
        self.low = min(0.9, floor(least_recall * 10) / 10)

    def x(self, ms: float) -> float:
        part = log10(max(ms, 1e-3) / self.low_ms) / log10(self.high_ms / self.low_ms)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, recall: float) -> float:
        return HEIGHT - BOTTOM - (recall - self.low) / (1 - self.low) * (HEIGHT - TOP - BOTTOM)

    def frame(self, k: int) -> Iterable[str]:
        yield _text(LEFT, 22, f"Recall of the {k} nearest (lower bound) over time a question", "start", 14)
        for i in range(round(self.low * 10), 11):
            y = self.y(i / 10)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            yield _text(LEFT - 8, y + 4, f"{i / 10:.1f}", "end")
        for exponent in range(floor(log10(self.low_ms)), ceil(log10(self.high_ms)) + 1):
            for ms in (10.0**exponent * step for step in (1, 2, 5)):
                if self.low_ms <= ms <= self.high_ms:
                    x = self.x(ms)
                    yield f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>'
                    yield _text(x, HEIGHT - BOTTOM + 18, f"{ms:g}", "middle")
        yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "milliseconds (logarithmic)", "middle")

    def target(self, recall: float) -> Iterable[str]:
        if recall >= self.low:
            y = self.y(recall)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#222" stroke-dasharray="5 4"/>'
            yield _text(LEFT + 4, y - 5, f"asked: {recall:g}", "start")


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
