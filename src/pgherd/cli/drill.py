"""The command that breaks a herd on purpose: drill."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..availability.catalogue import FAULTS
from ..availability.drill import Report
from ..availability.drill import drill as run_drill
from ..availability.measure import Round, summary
from ..availability.timeline import svg
from ..errors import BadInput, ExitStatus
from ..herdfile import default_home
from .options import HomeOption, JsonOption
from .output import err, out, print_json, table_of


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(drill)


def drill(
    what: Annotated[str, typer.Argument(metavar="WHAT", help=", ".join(FAULTS))],
    group: Annotated[str | None, typer.Option(help="Which group (default: the first).")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often.")] = 5,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw what happened when.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same choices as a drill with this seed.")] = None,
    yes_break_production: Annotated[
        bool, typer.Option("--yes-break-production", help="Drill on attached servers too.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Break a herd while clients write and read; measure how long they wait and whether anything is lost."""
    if plot is not None and not plot.parent.is_dir():
        raise BadInput(f"{plot.parent} is not a directory", hint="name a file in one that exists")
    with err.status("looking at the herd") as line:

        def on_round(number: int, found: Round) -> None:
            err.print(f"round {number}: {_told(found)}")

        report = run_drill(
            home or default_home(),
            what,
            group=group,
            rounds=rounds,
            seed=seed,
            break_production=yes_break_production,
            progress=lambda text: line.update(escape(text)),
            on_round=on_round,
        )
    if plot is not None:
        plot.write_text(svg(report), encoding="utf-8")
    if json:
        document = {**report.as_json(), "load": round(os.getloadavg()[0], 2), "plot": str(plot) if plot else None}
        print_json(document)
    else:
        _show(report, plot)
    if not all(r.kept for r in report.rounds):
        raise typer.Exit(int(ExitStatus.FAILED))


def _told(found: Round) -> str:
    return f"{found.rto_s:.2f} s without a write, {found.acknowledged} acknowledged, {found.lost} lost"


def _show(report: Report, plot: Path | None) -> None:
    columns = [
        "round",
        "rto s",
        "acknowledged",
        "lost",
        "two primaries",
        "reads",
        "refused",
        "stale",
        "redundant s",
        "hit",
    ]
    rows = [
        [
            i,
            round(r.rto_s, 2),
            r.acknowledged,
            r.lost,
            r.two_primaries,
            r.reads,
            r.reads_refused,
            r.stale_reads,
            round(r.redundant_again_s, 1),
            ", ".join(r.hit),
        ]
        for i, r in enumerate(report.rounds, 1)
    ]
    out.print(table_of(columns, rows, title=f"{report.drill} of group {report.group}"))
    found = summary(report.rounds)
    rto = found["rto_s"]
    usual = max(r.usual_s for r in report.rounds)
    out.print(f"\nbroken by {escape(report.how)}", soft_wrap=True)
    out.print(
        f"no write was acknowledged for {rto['min']:.2f} / [bold]{rto['median']:.2f}[/] / {rto['max']:.2f} s"
        f" (least, median, most of {len(rows)}; before it broke: up to {usual:.2f} s; load {os.getloadavg()[0]:.1f})",
        soft_wrap=True,
    )
    for r in report.rounds:
        for v in r.violations[:5]:
            out.print(f"[red]{v.anomaly.value}[/] in list {v.key}: {escape(v.detail)}", soft_wrap=True)
    if found["kept"]:
        out.print("[green]every acknowledged write is there, once, in order; never two primaries[/]")
    if plot is not None:
        out.print(f"drawn in {escape(str(plot))}", soft_wrap=True)
