"""``pgherd audit``: who holds what, where; what is signed, and what was signed."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from .. import herdfile
from ..audit.limits import BUDGET_S, SAMPLE
from ..client import connect_async
from ..errors import BadInput, ExitStatus
from ..herdfile import default_home, write_atomically
from .options import DsnOption, HomeOption, JsonOption, LimitOption, SinceOption
from .output import err, out, print_json, table_of
from .trail import show_trail

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from ..audit.report import Report

_COLOURS = {"violation": "bold red", "risk": "yellow", "note": "cyan"}


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(audit)


def audit(
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a report with a map into FILE, too.")
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, max=100_000, help="Values of each column of a pinned shard to look for elsewhere.")
    ] = SAMPLE,
    budget_s: Annotated[
        float, typer.Option(metavar="S", min=1, max=86_400, help="How long they may be looked for.")
    ] = BUDGET_S,
    trail: Annotated[
        bool, typer.Option("--trail", help="Show who read and wrote what instead: the audit trail of all groups.")
    ] = False,
    since: SinceOption = "24h",
    table: Annotated[str | None, typer.Option(metavar="T", help="--trail: of this table only.")] = None,
    limit: LimitOption = 100,
    verify_file: Annotated[
        Path | None, typer.Option("--verify", metavar="FILE", help="Check the signature of a report instead.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="--verify: the herd's public key (the home's audit.pub)."),
    ] = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Find every place that holds or could receive pinned rows, by reading the servers. Exit 3 on a violation."""
    from ..audit.signing import key_of, signed  # imported when it is needed: other commands start sooner

    if trail:
        show_trail(dsn, None if dsn and home is None else home or default_home(), since, table, limit, json)
        return
    if table is not None:
        raise BadInput("--table goes with --trail", hint="an audit looks at all tables")
    if verify_file is not None:
        _verify(verify_file, key, home or default_home(), json)
        return
    if key is not None:
        raise BadInput("--key goes with --verify", hint="an audit signs with the key in the herd's home")
    if html is not None and not html.absolute().parent.is_dir():
        raise BadInput(f"there is no directory {html.absolute().parent}", hint="name another file in --html")
    where = None if dsn and home is None else home or default_home()
    signer = None if where is None else key_of(_existing(where))
    with err.status("opening the herd") as line:
        report = asyncio.run(_audit(dsn, where, sample, budget_s, lambda text: line.update(escape(text))))
    document = report.as_json()
    document = signed(document, signer) if signer else {**document, "signature": None}
    if html is not None:
        _write(html, document, signer)
    if json:
        print_json(document)
    else:
        _show(document)
    if report.violated:
        raise typer.Exit(int(ExitStatus.REFUSED))
    if not report.complete:
        raise typer.Exit(int(ExitStatus.FAILED))


def _existing(home: Path) -> Path:
    herdfile.read(home)
    return home


async def _audit(dsn: str | None, home: Path | None, sample: int, budget_s: float, say: Any) -> Report:
    from ..audit.run import audit as run_audit

    file = None if dsn or home is None else herdfile.read(home)
    async with connect_async(dsn, home=home) as herd:
        return await run_audit(herd, file, home, say, wanted=sample, budget_s=budget_s)


def _write(path: Path, document: dict[str, Any], signer: Ed25519PrivateKey | None) -> None:
    from ..audit.page import page
    from ..audit.signing import sign_page

    text = page(document)
    try:
        write_atomically(path, sign_page(text, signer) if signer else text, mode=0o644)
    except OSError as error:
        raise BadInput(f"{path} can't be written: {error.strerror}", hint="name another file in --html") from error
    err.print(f"written to {escape(str(path))}", soft_wrap=True)


def _verify(path: Path, key: Path | None, home: Path, json: bool) -> None:
    from ..audit.signing import PUBLIC, read_public, verify

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} can't be read", hint="name a file that pgherd audit wrote") from error
    found = verify(text, read_public(key or home / PUBLIC))
    result = {k: found[k] for k in ("at", "generation", "clean", "complete", "violations", "risks")}
    result |= {"verified": True, "key_id": found["signature"]["key_id"]}
    if json:
        print_json(result)
    else:
        out.print(
            f"[green]signed[/] with key {result['key_id']} and unchanged: the audit of {escape(str(result['at']))}"
        )
        out.print(_verdict(found))


def _verdict(document: dict[str, Any]) -> str:
    violations, risks = (_counted(document[k], k) for k in ("violations", "risks"))
    text = f"[bold red]{violations}[/]" if document["violations"] else f"[bold green]{violations}[/]"
    return f"{text}, {risks}" + ("" if document["complete"] else "; [bold yellow]incomplete[/]: see what was not seen")


def _counted(count: int, plural: str) -> str:
    return f"{count or 'no'} {plural if count > 1 else plural[:-1]}"


def _show(document: dict[str, Any]) -> None:
    rows = [[f["severity"], f["kind"], f["table"], f["region"], f["node"], f["detail"]] for f in document["findings"]]
    if rows:
        table = table_of(["", "kind", "table", "region", "node", "what"], [])
        for row, f in zip(rows, document["findings"], strict=True):
            cells = [escape(str(v)) if v is not None else "[dim]∅[/]" for v in row]
            cells[0] = f"[{_COLOURS[f['severity']]}]{cells[0]}[/]"
            table.add_row(*cells)
        out.print(table)
        out.print()
        for hint in dict.fromkeys((f["kind"], f["hint"]) for f in document["findings"] if f["hint"]):
            out.print(f"[cyan]{escape(hint[0])}[/]  {escape(hint[1])}", soft_wrap=True)
        out.print()
    _show_seen(document)
    out.print()
    out.print(_verdict(document))
    shards = len(document["pinned"])
    tables = len({p["table"] for p in document["pinned"]})
    signature = document["signature"]
    signed_by = f"signed with key {signature['key_id']}" if signature else "not signed: without a home there is no key"
    out.print(
        f"{_counted(shards, 'pinned shards')} of {_counted(tables, 'tables')} at generation {document['generation']},"
        f" in {document['seconds']:.1f} s; {signed_by}"
    )


def _show_seen(document: dict[str, Any]) -> None:
    counts: Counter[str] = Counter()
    places: dict[str, set[str]] = {}
    for entry in document["looked_at"]:
        counts[entry["what"]] += entry["count"] or 0
        places.setdefault(entry["what"], set()).add(entry["node"] or "")
    every = {n["name"] for g in document["groups"] for n in g["nodes"]}
    on = {w: "every node" if p == every else ", ".join(sorted(filter(None, p))) for w, p in places.items()}
    rows = [[what, counts[what], on[what]] for what in counts]
    out.print(table_of(["looked at", "found", "on"], rows))
    if document["could_not_look_at"]:
        out.print()
        missing = [[x["what"], x["node"], x["why"]] for x in document["could_not_look_at"]]
        out.print(table_of(["could not be looked at", "node", "why"], missing))
