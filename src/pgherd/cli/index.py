"""Commands about vector indexes: index create, index status, index tune."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..client import connect_async
from ..errors import BadInput
from ..search.request import DEFAULT_RECALL
from ..tuning.building import Build, builds
from ..tuning.calibrate import SAMPLE
from ..tuning.picture import svg
from ..tuning.report import asked_shards, index_status, tuned
from ..tuning.store import Calibration
from ..tuning.tasks import tunable
from .new_index import create
from .options import DsnOption, HomeOption, JsonOption
from .output import out, print_json, size, table_of
from .progress import tune_with_progress

index = typer.Typer(help="Vector indexes: what there is, and how well it finds.", no_args_is_help=True)
BAR = 24
EIGHTHS = " ▏▎▍▌▋▊▉"
TableArgument = Annotated[str | None, typer.Argument(help="One table only.", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    index.command()(create)
    app.add_typer(index, name="index")


@index.command()
def status(
    table: TableArgument = None, home: HomeOption = None, dsn: DsnOption = None, json: JsonOption = False
) -> None:
    """Show each shard's vector indexes: parameters, size, rows, and what was measured of them."""
    entries, building = asyncio.run(_status(table, home, dsn))
    if json:
        print_json({"indexes": entries, "building": [b.as_json() for b in building]})
        return
    for build in building:
        share = "" if build.share is None else f" {build.share:.0%}"
        what = escape(build.index or build.relation)
        out.print(f"[yellow]building[/] {what} on {build.group}: {escape(build.phase)}{share}, {build.seconds:.0f} s")
    if not entries:
        out.print("no vector indexes: [bold]pgherd index create TABLE COLUMN[/]")
        return
    for title, alike in _alike(entries).items():
        rows = [
            [
                e["shard"],
                e["home"],
                size(e["bytes"]),
                e["rows"],
                e["dead"],
                None if e["bloat"] is None else f"{e['bloat']:.0%}",
                e["valid"],
                e["recall"],
                _effort(e),
                _age(e),
            ]
            for e in alike
        ]
        names = [
            "shard",
            "home",
            "size",
            "rows",
            "dead",
            "bloat",
            "valid",
            "recall@10",
            f"for {DEFAULT_RECALL}",
            "measured",
        ]
        out.print(table_of(names, rows, title=escape(title)))
        out.print()
    out.print("[dim]recall@10 as a search without tuning has it: mean less one standard error[/]")
    if any(e["stale"] or not e["calibrated_at"] for e in entries if e["valid"]):
        out.print("[yellow]not measured yet, or out of date[/]: [bold]pgherd index tune[/]")


def _alike(entries: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The shards' indexes under what they have in common."""
    found: dict[str, list[dict[str, Any]]] = {}
    for e in entries:
        parameters = ", ".join(f"{name}={value}" for name, value in e["parameters"].items())
        what = f"{e['column'] or 'an expression'} as {e['type']}"
        title = f"{e['table']}, {what}: {e['method']} ({parameters}), {e['metric']}"
        found.setdefault(title, []).append(e)
    return found


async def _status(table: str | None, home: Path | None, dsn: str | None) -> tuple[list[dict[str, Any]], list[Build]]:
    async with connect_async(dsn, home=home) as herd:
        entries = await index_status(herd.engine, herd.topology.table(table) if table else None)
        return entries, await builds(herd.engine, [g.name for g in herd.topology.groups])


def _effort(entry: dict[str, Any]) -> str | None:
    if not entry["calibrated_at"]:
        return None
    if entry["exact"]:
        return "every row"
    return f"{'ef_search' if entry['method'] == 'hnsw' else 'probes'} {entry['effort']}"


def _age(entry: dict[str, Any]) -> str:
    if not entry["calibrated_at"]:
        return "never"
    day = str(entry["calibrated_at"])[:16].replace("T", " ")
    return f"{day} (stale)" if entry["stale"] else day


@index.command()
def tune(
    table: TableArgument = None,
    recall: Annotated[float, typer.Option(help="What to show the setting for; searches may ask for any.")] = (
        DEFAULT_RECALL
    ),
    sample: Annotated[
        int, typer.Option(metavar="N", help="How many questions; every one reads all rows once.")
    ] = SAMPLE,
    questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure with these, one a line, rather than with some made of rows."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the curves into a file.")] = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Measure recall and time of the vector indexes, so that searches can choose their settings by recall."""
    if not 0 < recall <= 1:
        raise BadInput(f"recall is {recall}", hint="above 0, up to 1")
    if questions is not None and table is None:
        raise BadInput("--questions are asked of one table", hint="name it: pgherd index tune TABLE --questions FILE")
    asked = None if questions is None else lines_of(questions)
    found = asyncio.run(_tune(table, sample, asked, home, dsn))
    if plot is not None:
        plot.write_text(svg([c for of_table in found.values() for c in of_table], recall), encoding="utf-8")
    entries = [e for of_table in found.values() for e in tuned(of_table, recall)]
    reaches = [e for name, of_table in found.items() for e in asked_shards(name, of_table, recall)]
    if json:
        drawn = str(plot) if plot else None
        print_json({"recall": recall, "calibrations": entries, "asked_shards": reaches, "plot": drawn})
        return
    for entry in entries:
        _show(entry, recall)
    for entry in reaches:
        _show_reaches(entry, recall)
    if plot is not None:
        out.print(f"drawn into {escape(str(plot))}")


def lines_of(file: Path) -> list[str]:
    """The questions in a file. Raises BadInput."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} can't be read: {error}", hint="a text file in UTF-8, one question a line") from error
    if not lines:
        raise BadInput(f"{file} holds no question", hint="a text file in UTF-8, one question a line")
    return lines


async def _tune(
    table: str | None, sample: int, questions: list[str] | None, home: Path | None, dsn: str | None
) -> dict[str, Sequence[Calibration]]:
    async with connect_async(dsn, home=home) as herd:
        topology = herd.topology
        names = [t.name.sql for t in topology.schema.tables if tunable(t, topology.indexes(t))]
        if table is None and not names:
            raise BadInput("no table of this herd has a vector index", hint="pgherd index create TABLE COLUMN")
        return {
            name: await tune_with_progress(herd.table(name), None, sample, questions)
            for name in ([table] if table else names)
        }


def _show(entry: dict[str, Any], recall: float) -> None:
    out.print(
        f"[bold]{escape(entry['relation'])}[/] {escape(entry['column'])} as {entry['type']}: "
        f"{entry['method']}, {entry['metric']}, "
        f"{entry['rows']:,} rows, {entry['sample']} questions"
    )
    name = "ef_search" if entry["method"] == "hnsw" else "probes"
    rows = [[p["effort"], p["recall"], bar_of(p["recall"]), p["ms"]] for p in entry["points"]]
    rows.append(["every row", 1.0, bar_of(1.0), entry["exact_ms"]])
    out.print(table_of([name, "recall@10", "", "ms"], rows))
    setting = "every row is read" if entry["exact"] else f"{name} = {entry['effort']}"
    out.print(f"recall {recall:g}: {setting}, {entry['ms']:.2f} ms\n")


def _show_reaches(entry: dict[str, Any], recall: float) -> None:
    out.print(
        f"[bold]{escape(entry['table'])}[/] {escape(entry['column'])} as {entry['type']}: near rows are in one shard; "
        "so many of its shards, the nearest, hold what share of the ten nearest rows"
    )
    rows = [[r["asked"], r["holds"], bar_of(r["holds"])] for r in entry["reaches"]]
    rows.append([float(entry["shards"]), 1.0, bar_of(1.0)])
    out.print(table_of(["shards asked", "recall@10", ""], rows))
    setting = "every row of theirs is read" if entry["exact"] else f"effort {entry['effort']}"
    asked = f"{entry['asked']:g} of {entry['shards']} shards on average"
    out.print(f"recall {recall:g}: {asked}, {setting}, {entry['ms']:.2f} ms of them together\n")


def bar_of(share: float | None) -> str:
    """A bar of eighths of a character."""
    eighths = round((share or 0.0) * BAR * 8)
    return "█" * (eighths // 8) + (EIGHTHS[eighths % 8].strip() if eighths % 8 else "")
