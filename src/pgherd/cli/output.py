"""What commands print: one JSON document or tables on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import ExitStatus, HerdError

out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """The one document of a ``--json`` run."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_list"):
        return value.to_list()
    return str(value)


def report(error: HerdError, *, as_json: bool) -> int:
    """Show an error; its exit status."""
    if as_json:
        print_json({"error": error.as_json()})
    else:
        err.print(f"[bold red]error[/] {escape(error.message)}", soft_wrap=True)
        if error.hint:
            err.print(f"[cyan]hint[/]  {escape(error.hint)}", soft_wrap=True)
    return int(error.exit_status)


def report_usage(error: Any, *, as_json: bool) -> int:
    """Show a misuse of the command line; its exit status."""
    if as_json:
        body = {"code": "usage", "message": error.format_message(), "hint": "see --help", "retryable": False}
        print_json({"error": body})
    else:
        error.show()
    return int(ExitStatus.BAD_INPUT)


def table_of(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table; numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    listed = [list(r) for r in rows]
    for i, name in enumerate(columns):
        numeric = bool(listed) and all(isinstance(r[i], (int, float)) or r[i] is None for r in listed)
        table.add_column(escape(name), justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(cell(v) for v in row))
    return table


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "[dim]∅[/]"
    if isinstance(value, bool):
        return "[green]yes[/]" if value else "[red]no[/]"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return escape(shorten(str(value)))


def shorten(text: str, width: int = 100) -> str:
    """``text`` cut to ``width`` characters; vectors end in an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows of a query as a table."""
    columns = list(rows[0]) if rows else []
    return table_of(columns, ([r[c] for c in columns] for r in rows))


def entries_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Lines of the access log as a table."""
    shown = [{**e, "at": f"{e['at']:%Y-%m-%d %H:%M:%S}", "tables": ", ".join(e["tables"])} for e in entries]
    return rows_table(shown)


def size(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "∅"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""
