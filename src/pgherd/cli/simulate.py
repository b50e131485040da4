"""What ``pgherd advise --simulate`` shows."""

from __future__ import annotations

from rich.markup import escape

from ..drawing import Axis, Line, svg
from ..planning.advice import Figure
from ..simulation.churn import Churn
from ..simulation.simulate import Fanout, Simulation
from .output import out, size, table_of

BAR = 30


def show(found: Simulation) -> None:
    """Figures with their formulas, then what happens when servers come and go, then how long searches take."""
    out.print(f"[bold]{found.groups:,} groups, {found.shards:,} shards[/]\n")
    for figure in found.figures:
        out.print(f"[bold]{escape(figure.name)}[/]  {_value(figure)}", soft_wrap=True)
        out.print(f"    [dim]{escape(figure.formula)}[/]", soft_wrap=True)
    out.print()
    names = [
        "when",
        "moves",
        "bytes moved",
        "least possible",
        "x",
        "busiest node",
        "heaviest group",
        "planning",
        "plan",
    ]
    out.print(table_of(names, map(_churn, found.churn)))
    for event in found.churn:
        if event.note:
            out.print(f"    [dim]{escape(event.event)}: {escape(event.note)}[/]", soft_wrap=True)
    out.print()
    longest = max(f.p99_ms for f in found.fanout)
    names = ["servers asked", "p50 ms", "p99 ms", "", "hedged p50", "hedged p99", " "]
    out.print(table_of(names, (_fanout(f, longest) for f in found.fanout)))
    out.print()
    for reason in found.reasons:
        out.print(f"- {escape(reason)}", soft_wrap=True)


def picture(found: Simulation) -> str:
    """Latency over the number of servers asked."""
    lines = []
    for name, key in (("p99", "p99_ms"), ("p99, hedged", "hedged_p99_ms"), ("p50", "p50_ms")):
        points = tuple((float(f.servers), float(getattr(f, key))) for f in found.fanout)
        lines.append(Line(name, points))
    title = (
        f"Milliseconds of a search over servers asked (one: {found.latency.p50_ms:.3g}, p99 {found.latency.p99_ms:.3g})"
    )
    across = Axis("servers asked (logarithmic)", lambda v: f"{v:,.0f}", logarithmic=True)
    return svg(title, across, Axis("ms", lambda v: f"{v:,.6g} ms"), lines)


def _churn(e: Churn) -> list[str | int | None]:
    return [
        e.event,
        e.moves,
        size(e.bytes),
        size(e.least_bytes),
        f"{e.bytes / e.least_bytes:.2f}" if e.least_bytes else "–",
        size(e.busiest_bytes),
        f"+{e.uneven_before:.0%} → +{e.uneven_after:.0%}",
        f"{e.planner_s:.2f} s" if e.moves else "–",
        f"{size(e.plan_bytes)}, {e.plan_s:,.1f} s" if e.moves else "–",
    ]


def _fanout(f: Fanout, longest: float) -> list[str | int]:
    bars = ["█" * max(1, round(ms / longest * BAR)) for ms in (f.p99_ms, f.hedged_p99_ms)]
    return [
        f.servers,
        f"{f.p50_ms:.2f}",
        f"{f.p99_ms:.2f}",
        bars[0],
        f"{f.hedged_p50_ms:.2f}",
        f"{f.hedged_p99_ms:.2f}",
        bars[1],
    ]


def _value(figure: Figure) -> str:
    if figure.unit == "B":
        return size(int(figure.value))
    if figure.unit == "s":
        return _long(figure.value)
    return f"{figure.value:,.0f}" if figure.unit == "connections" else f"{figure.value:,.2f} {figure.unit}"


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
