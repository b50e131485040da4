"""``pgherd``: the command. Each command is a thin shell around the client; errors become exit statuses here."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from ..errors import ExitStatus, HerdError
from . import (
    advise,
    audit,
    availability,
    backup,
    bench,
    certificates,
    demo,
    drill,
    index,
    llm,
    nodes,
    rows,
    schema,
    servers,
    split,
)
from .output import err, report, report_usage

app = typer.Typer(
    name="pgherd",
    help="One Postgres out of many, for gen-AI applications.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer brings its own copy of click since 0.20 and used the package before; this is the right class in both."""

for module in (
    servers,
    availability,
    certificates,
    nodes,
    split,
    schema,
    rows,
    index,
    bench,
    backup,
    drill,
    llm,
    audit,
    advise,
    demo,
):
    module.add_commands(app)


def main(arguments: Sequence[str]) -> int:
    """Run one command; its exit status: 0 done, 1 failed, 2 bad usage or input, 3 refused for safety."""
    as_json = "--json" in arguments
    try:
        result = app(args=list(arguments), prog_name="pgherd", standalone_mode=False)
    except HerdError as error:
        return report(error, as_json=as_json)
    except typer.Exit as stop:
        return stop.exit_code
    except UsageError as error:
        return report_usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        err.print("[yellow]interrupted[/]: nothing is half done; run the same command again to go on")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return int(ExitStatus.DONE)
    return result if isinstance(result, int) else int(ExitStatus.DONE)


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))
