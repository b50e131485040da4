"""``pgherd demo hospitals``: the story of three hospitals, on servers that are gone again afterwards."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.padding import Padding

from ..demo.hospitals import Scene, play
from ..errors import BadInput
from ..local.herd import LocalHerd
from .options import HomeOption, JsonOption
from .output import err, out, print_json, rows_table

STORIES = ("hospitals",)


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(demo)


def demo(
    story: Annotated[str, typer.Argument(help="Which story: hospitals.")] = "hospitals",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the herd running afterwards.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show on real servers what a herd does: three hospitals, three regions, about a minute."""
    if story not in STORIES:
        raise BadInput(f"there is no demo {story!r}", hint="demos: " + ", ".join(STORIES))
    if keep and home is None:
        raise BadInput("--keep needs a place to keep the herd", hint="name one with --home")
    if home is not None and home.exists() and any(home.iterdir()):
        raise BadInput(f"{home} is not empty", hint="the demo makes a herd of its own: name a new directory")
    where = home or Path(tempfile.mkdtemp(prefix="pgherd-demo-")) / "herd"
    if home is None:
        where.parent.chmod(0o711)
    started = time.perf_counter()
    try:
        scenes = asyncio.run(_play(where, json))
    finally:
        if not keep:
            with err.status("cleaning up"):
                LocalHerd(where).destroy()
                if home is None:
                    where.parent.rmdir()
    seconds = time.perf_counter() - started
    if json:
        print_json({"demo": story, "seconds": round(seconds, 1), "scenes": [_document(s) for s in scenes]})
        return
    kept = f"The herd is in {where}: try [bold]pgherd status --home {where}[/]" if keep else "Nothing is left behind."
    out.print(
        f"\n[bold green]done[/] in {seconds:.0f} s. {kept}\nNow your own: [bold]pgherd up[/], then apply, load, search."
    )


def _document(scene: Scene) -> dict[str, Any]:
    return {**asdict(scene), "seconds": round(scene.seconds, 2)}


async def _play(home: Path, json: bool) -> list[Scene]:
    scenes = []
    with err.status("starting three PostgreSQL servers") as line:
        async for scene in play(home, lambda text: line.update(escape(text))):
            scenes.append(scene)
            if not json:
                _show(len(scenes), scene)
    return scenes


def _show(number: int, scene: Scene) -> None:
    took = f"  [dim]{scene.seconds:.1f} s[/]" if scene.seconds else ""
    out.print(f"\n[bold cyan]{number}. {escape(scene.title)}[/]{took}")
    out.print(escape(scene.says))
    if scene.rows:
        out.print(Padding(rows_table(scene.rows), (0, 0, 0, 3)))
    if scene.text:
        for line in scene.text.splitlines():
            out.print(f"   [green]{escape(line)}[/]", soft_wrap=True)
