"""Commands about single nodes: node add."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.markup import escape

from ..herdfile import default_home
from ..local.herd import LocalHerd
from ..model.placement import Label
from .options import HomeOption, JsonOption
from .output import err, out, print_json
from .servers import read_status, show_groups

node = typer.Typer(help="Servers of a herd.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(node, name="node")


@node.command()
def add(
    region: Annotated[str, typer.Option(help="Where the new server is: [cloud.]region[.zone].")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Start one more local server and make it part of the herd: a group of its own, for new shards."""
    where = home or default_home()
    label = Label.parse(region)
    with err.status("starting") as line:
        added = LocalHerd(where).add(label, None, lambda text: line.update(escape(text))).nodes[-1]
        line.update(f"{escape(added.name)} joins the herd: it gets every table, view, role and reference row")
        document = asyncio.run(read_status(None, where))
    if json:
        print_json(document)
        return
    show_groups(document)
    out.print(
        f"\n{escape(added.group)} has joined. [dim]Shards that exist stay where they are; new ones may live there.[/]"
    )
