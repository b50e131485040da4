"""Options that every command shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
