"""Options that every command shares."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import BadInput

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Where the herd lives (default: PGHERD_HOME, else one home a user)."),
]
DsnOption = Annotated[
    str | None,
    typer.Option("--dsn", metavar="DSN", help="Use the herd that this server belongs to, instead of a home."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SPEC",
        envvar="PGHERD_MODEL",
        help="Embedding model: wordllama, or openai:MODEL@BASE_URL (key in PGHERD_EMBED_API_KEY).",
    ),
]
TuneOption = Annotated[
    bool, typer.Option("--tune/--no-tune", help="Measure anew what searches find, where that is out of date.")
]
RegionOption = Annotated[str | None, typer.Option("--region", metavar="R", help="A region or group of the herd.")]
SinceOption = Annotated[str, typer.Option("--since", metavar="TIME", help="Of the log: how far back: 30m, 12h, 7d.")]
LimitOption = Annotated[
    int, typer.Option("--limit", min=1, max=100_000, help="Of the log: the newest entries, at most so many.")
]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(since: str) -> int:
    """What ``--since`` says, in seconds. Raises BadInput."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", since)
    if found is None:
        raise BadInput(f"--since {since} is not a time", hint="30m, 12h or 7d")
    return int(found[1]) * _UNITS_S[found[2]]
