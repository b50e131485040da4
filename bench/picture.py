"""Pictures as SVG, without any dependency: goals as bars, and recall over time as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

WIDTH = 900
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Told apart by colour-blind eyes too (Paul Tol, Colour Schemes, 2021: bright)."""

_LINE = 22
_NAMES = 470
_REACH = 4.0
"""Bars show from a quarter of the goal to four times the goal."""


def goals(documents: Sequence[Mapping[str, Any]]) -> str:
    """A bar a goal, from the line of the goal to what was measured: blue on the good side, red on the other."""
    rows = [(document["suite"], goal) for document in documents for goal in document["goals"]]
    height = 64 + _LINE * len(rows)
    middle = (_NAMES + WIDTH - 90) / 2
    half = (WIDTH - 90 - _NAMES) / 2
    body = [
        _text(12, 22, "Measured against the goal (logarithmic; the line is the goal)", size=14),
        f'<path d="M{middle:.1f} 32V{height - 20}" stroke="#222"/>',
    ]
    for factor in (1 / _REACH, 0.5, 2, _REACH):
        x = middle + half * log10(factor) / log10(_REACH)
        body.append(f'<path d="M{x:.1f} 36V{height - 20}" stroke="#ddd"/>')
        body.append(_text(x, height - 6, f"{factor:g} x goal", "middle", 10))
    for number, (suite, goal) in enumerate(rows):
        y = 40 + _LINE * number
        share = max(goal["measured"], 1e-9) / max(goal["goal"], 1e-9)
        x = middle + half * max(-1.0, min(1.0, log10(share) / log10(_REACH)))
        colour = COLOURS[0] if goal["met"] else COLOURS[1]
        left, width = min(x, middle), max(1.5, abs(x - middle))
        body.append(f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="14" fill="{colour}"/>')
        body.append(_text(12, y + 11, f"{suite}: {goal['what']}", size=11))
        sign = "≥" if goal["at_least"] else "≤"
        told = f"{goal['measured']:.3g} ({sign} {goal['goal']:g} {goal['unit']})"
        body.append(_text(WIDTH - 8, y + 11, told, "end", 10))
    return _svg(WIDTH, height, body)


def curves(document: Mapping[str, Any]) -> str:
    """Lines of (milliseconds, recall), time logarithmic."""
    lines = [(c["name"], [tuple(p) for p in c["points"]]) for c in document["curves"]]
    plane = _Plane([p for _, points in lines for p in points], 460)
    body = [_text(64, 22, f"{document['title']}: recall@10 over p50", size=14), *plane.frame()]
    for number, (name, points) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        dash = ' stroke-dasharray="6 4"' if number >= len(COLOURS) else ""
        path = " ".join(f"{plane.x(ms):.1f},{plane.y(recall):.1f}" for ms, recall, _ in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for ms, recall, told in points:
            tip = escape(f"{name}: {told}, recall {recall:.3f}, {ms:.2f} ms")
            x, y = plane.x(ms), plane.y(recall)
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{tip}</title></circle>')
        y = 400 - 16 * (len(lines) - number)
        body.append(f'<rect x="{WIDTH - 36}" y="{y - 9}" width="12" height="10" fill="{colour}"/>')
        body.append(_text(WIDTH - 42, y, name, "end"))
    return _svg(WIDTH, 460, body)


class _Plane:
    """From milliseconds (logarithmic) and recall to places in the picture."""

    def __init__(self, points: Sequence[tuple[float, float, str]], height: int) -> None:
        times = [max(p[0], 1e-3) for p in points] or [1.0]
        self._low_ms, self._high_ms = min(times) / 1.2, max(times) * 1.2
        self._low = min(0.9, floor(10 * min((p[1] for p in points), default=0.0)) / 10)
        self._height = height

    def x(self, ms: float) -> float:
        part = log10(max(ms, 1e-3) / self._low_ms) / log10(self._high_ms / self._low_ms)
        return 64 + part * (WIDTH - 64 - 24)

    def y(self, recall: float) -> float:
        return self._height - 56 - (recall - self._low) / (1 - self._low) * (self._height - 96)

    def frame(self) -> Iterator[str]:
        for tenth in range(round(self._low * 10), 11):
            y = self.y(tenth / 10)
            yield f'<path d="M64 {y:.1f}H{WIDTH - 24}" stroke="#ddd"/>' + _text(56, y + 4, f"{tenth / 10:.1f}", "end")
        for exponent in range(floor(log10(self._low_ms)), ceil(log10(self._high_ms)) + 1):
            for ms in (10.0**exponent * step for step in (1, 2, 5)):
                if self._low_ms <= ms <= self._high_ms:
                    x = self.x(ms)
                    yield f'<path d="M{x:.1f} 40V{self._height - 56}" stroke="#eee"/>'
                    yield _text(x, self._height - 38, f"{ms:g}", "middle")
        yield _text(WIDTH / 2, self._height - 14, "milliseconds (logarithmic)", "middle")


def _svg(width: int, height: int, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" fill="#222">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
