"""Commands about availability: switchover."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from ..availability.switchover import switchover as switch
from ..herdfile import default_home
from .options import HomeOption, JsonOption
from .output import err, out, print_json


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(switchover)


def switchover(
    group: Annotated[str, typer.Argument(help="The group whose primary changes.")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="NODE", help="The standby that takes over; any in step if left out.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Hand a group's writes over to a standby, as planned: nothing is lost, writers wait for less than a second."""
    with err.status(f"switching {escape(group)} over"):
        done = switch(home or default_home(), group, to)
    if json:
        print_json(asdict(done))
    else:
        out.print(
            f"group {escape(group)}: {escape(done.old)} handed over to {escape(done.new)} in {done.seconds:.1f} s"
        )
