"""Commands about language models: mcp, reader ensure, reader log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from .. import herdfile
from ..client import connect_async
from ..errors import BadInput
from ..herdfile import default_home
from ..llm.accesslog import read_log
from ..llm.query import Limits
from ..llm.reader import ensure_reader, login_file
from ..llm.token import read_token
from ..llm.tools import open_tools
from ..model.topology import Reader
from ..planning.readers import plan_log_days
from .options import HomeOption, JsonOption, LimitOption, SinceOption, seconds_of
from .output import entries_table, err, out, print_json

reader = typer.Typer(
    name="reader", help="Roles that may read one region, and the log of what they read.", no_args_is_help=True
)
OneRegion = Annotated[str, typer.Option("--region", metavar="R", help="A region of the herd.")]
LIMITS = Limits()


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(mcp)
    app.add_typer(reader, name="reader")


@reader.command()
def ensure(
    region: OneRegion,
    tables: Annotated[str | None, typer.Option(metavar="A,B", help="The tables it may read.")] = None,
    all_tables: Annotated[bool, typer.Option("--all-tables", help="All tables, those that come later too.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make the role that may read what is at home in a region, or change which tables it reads."""
    if (tables is None) != all_tables:
        raise BadInput("say which tables the reader may read", hint="--tables A,B or --all-tables, one of the two")
    names = None if tables is None else [t.strip() for t in tables.split(",") if t.strip()]
    where = home or default_home()
    made = asyncio.run(_ensure(where, region, names))
    kept = login_file(where, region)
    if json:
        listed = None if made.tables is None else [str(t) for t in made.tables]
        print_json({"region": region, "role": made.role, "tables": listed, "password_file": str(kept)})
    else:
        out.print(f"{escape(made.role)} reads {escape(tables or 'all tables')} in {escape(region)}")
        out.print(f"its password is in {escape(str(kept))}; next: [bold]pgherd mcp --region {escape(region)}[/]")


async def _ensure(home: Path, region: str, tables: list[str] | None) -> Reader:
    dbname = herdfile.read(home).dbname
    async with connect_async(home=home) as herd:
        return await ensure_reader(herd, home, dbname, region, tables)


@reader.command()
def log(
    region: OneRegion,
    since: SinceOption = "24h",
    limit: LimitOption = 100,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show who asked what in a region: its access log, which is kept there."""
    entries = asyncio.run(_log(home or default_home(), region, seconds_of(since), limit))
    if json:
        print_json({"entries": entries})
    elif entries:
        out.print(entries_table([{k: v for k, v in e.items() if k != "region"} for e in entries]))
    else:
        out.print(f"nobody asked anything in {escape(region)} in the last {escape(since)}")


async def _log(home: Path, region: str, since_s: float, limit: int) -> list[dict[str, Any]]:
    async with connect_async(home=home) as herd:
        return await read_log(herd, region, since_s, limit)


@reader.command()
def keep(
    days: Annotated[int, typer.Argument(min=0, max=36_500, metavar="DAYS", help="How many days; 0: for ever.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Say how long entries of the access log, and of the log of models' calls, are kept."""
    kept = days or None
    asyncio.run(_keep(home or default_home(), kept))
    if json:
        print_json({"log_days": kept})
    else:
        out.print(f"entries are kept for {kept} days" if kept else "entries are kept for ever")


async def _keep(home: Path, days: int | None) -> None:
    async with connect_async(home=home) as herd:
        await herd.execute(plan_log_days(herd.topology, days))


def mcp(
    region: Annotated[str | None, typer.Option("--region", metavar="R", help="The region to read.")] = None,
    transport: Annotated[str, typer.Option(metavar="stdio|http", help="How the client talks to it.")] = "stdio",
    host: Annotated[str, typer.Option(help="http: the address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="http: the port.")] = 8765,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="http: holds the token that callers show; mode 0600.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="http: certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="http: its key; mode 0600.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, max=10_000, help="Rows an answer may have.")] = LIMITS.rows,
    max_bytes: Annotated[int, typer.Option(min=1024, max=16 << 20, help="Bytes they may hold.")] = LIMITS.bytes,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds a call may take.")] = LIMITS.seconds,
    log_questions: Annotated[
        bool, typer.Option("--log-questions", help="Keep questions and SQL in the access log, not only who and what.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Serve one region's tables to language models, read-only (Model Context Protocol)."""
    try:
        from ..mcp import http
        from ..mcp.server import make_server
    except ImportError as error:
        raise BadInput(f"{error.name} is not installed", hint="pip install 'pgherd[mcp]'") from error
    if transport not in ("stdio", "http"):
        raise BadInput(f"--transport {transport} is not known", hint="stdio or http")
    token = ""
    if transport == "http":
        http.check_address(host, tls_cert, tls_key)
        token = read_token(token_file)
    where = home or default_home()
    chosen = region or _only_region(where)
    limits = Limits(seconds=timeout, rows=max_rows, bytes=max_bytes, row_bytes=min(max_bytes, LIMITS.row_bytes))

    async def serve() -> None:
        async with open_tools(where, chosen, limits=limits, keep_questions=log_questions) as tools:
            server = make_server(tools, chosen)
            if transport == "stdio":
                await server.run_stdio_async()
                return
            url = f"{'https' if tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/mcp"
            print_json({"url": url, "region": chosen}) if json else err.print(f"serving {chosen} at {url}")
            await http.serve(server, host, port, token, tls_cert, tls_key)

    asyncio.run(serve())


def _only_region(home: Path) -> str:
    """The region that has a reader, where only one has."""
    regions = dict.fromkeys(n.label.region for n in herdfile.read(home).nodes)
    known = [r for r in regions if login_file(home, r).exists()]
    if len(known) != 1:
        has = f"readers: {', '.join(known)}" if known else "none has a reader yet: pgherd reader ensure"
        raise BadInput("say which region to read: --region R", hint=f"regions: {', '.join(regions)}; {has}")
    return known[0]
