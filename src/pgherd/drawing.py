"""Lines over two axes as one SVG, without any dependency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 40, 56
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Told apart by colour-blind eyes too (Paul Tol, Colour Schemes, 2021: bright)."""


@dataclass(frozen=True, slots=True)
class Line:
    """A named line; ``level`` draws it dashed and grey, as something not to be crossed."""

    name: str
    points: tuple[tuple[float, float], ...]
    level: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, how its values are written, and whether it is logarithmic (values above 0)."""

    label: str
    shown: Callable[[float], str]
    logarithmic: bool = False
    step: float = 10.0
    """what even values are multiples of a power of: 10, or 2 for bytes"""


def svg(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """The picture; each point tells its values when pointed at."""
    xs = [p[0] for line in lines for p in line.points] or [0.0, 1.0]
    ys = [p[1] for line in lines for p in line.points] or [0.0, 1.0]
    across, up = _Scale(x, xs, LEFT, WIDTH - RIGHT), _Scale(y, ys, HEIGHT - BOTTOM, TOP)
    body = [_text(LEFT, 22, title, "start", 14)]
    for value in up.ticks():
        at = up.place(value)
        body += [
            f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>',
            _text(LEFT - 8, at + 4, y.shown(value), "end"),
        ]
    for value in across.ticks():
        at = across.place(value)
        body += [f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>']
        body += [_text(at, HEIGHT - BOTTOM + 18, x.shown(value), "middle")]
    body.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x.label, "middle"))
    for number, line in enumerate(lines):
        body += _drawn(line, "#666" if line.level else COLOURS[number % len(COLOURS)], number, across, up)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" fill="#222">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _drawn(line: Line, colour: str, number: int, across: _Scale, up: _Scale) -> Iterator[str]:
    path = " ".join(f"{across.place(a):.1f},{up.place(b):.1f}" for a, b in line.points)
    dashes = ' stroke-dasharray="6 4"' if line.level else ""
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
    for a, b in () if line.level else line.points:
        tip = escape(f"{line.name}: {across.axis.shown(a)}, {up.axis.shown(b)}")
        x, y = across.place(a), up.place(b)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{tip}</title></circle>'
    row = TOP + 14 + 16 * number
    yield f'<path d="M{LEFT + 10} {row - 4}h18" stroke="{colour}" stroke-width="3"{dashes}/>'
    yield _text(LEFT + 34, row, line.name, "start")


class _Scale:
    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self.axis, self._start, self._end = axis, start, end
        self._low = min(values) if axis.logarithmic else min(0.0, *values)
        self._high = max(values) * (1.0 if axis.logarithmic else 1.05)
        if self._high <= self._low:
            self._high = self._low * 2 or 1.0

    def place(self, value: float) -> float:
        if self.axis.logarithmic:
            part = log10(value / self._low) / log10(self._high / self._low)
        else:
            part = (value - self._low) / (self._high - self._low)
        return self._start + part * (self._end - self._start)

    def ticks(self) -> list[float]:
        if self.axis.logarithmic:
            return self._powers()
        base = self.axis.step
        rough = (self._high - self._low) / 6
        power = base ** floor(log10(rough) / log10(base))
        step = next(s * power for s in ((1, 2, 5, 10) if base == 10 else (1, 2)) if s * power >= rough)
        return [i * step for i in range(ceil(self._low / step), floor(self._high / step) + 1)]

    def _powers(self) -> list[float]:
        exponents = range(floor(log10(self._low)), ceil(log10(self._high)) + 1)
        for steps in ((1, 2, 5), (1,)):
            found = [10.0**e * s for e in exponents for s in steps if self._low <= 10.0**e * s <= self._high]
            if len(found) <= 10:
                break
        return found


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
