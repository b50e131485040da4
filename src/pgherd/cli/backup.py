"""Commands that keep a herd safe from mistakes and fires: backup, restore."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..backup.expire import Expired
from ..backup.expire import expire as expire_backups
from ..backup.keeper import POINT_PREFIX, Setting, Tool, setting_of
from ..backup.manifest import Backup, Found, choose, read_all
from ..backup.moment import name_point
from ..backup.place import place_of
from ..backup.restore import Restored
from ..backup.restore import restore as restore_backup
from ..backup.take import checked_label, new_label, stop_archiving, take_backup
from ..backup.target import parse_targets
from ..backup.verify import verify as verify_backup
from ..client import connect_async
from ..errors import BadInput, HerdError
from ..herdfile import default_home
from ..local import homelock
from ..local.herd import LocalHerd
from ..local.installation import find
from ..local.user import server_user
from .options import HomeOption, JsonOption
from .output import err, out, print_json, size, table_of

FromOption = Annotated[
    list[str], typer.Option("--from", metavar="[REGION=]PLACE", help="Where the backup is; repeatable.")
]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="[REGION=]PLACE",
            help="Where to, a directory or s3://PROFILE@BUCKET/PREFIX; repeatable. REGION=PLACE: that region's"
            " groups, and it lies there.",
        ),
    ] = None,
    target_region: Annotated[
        str | None,
        typer.Option("--target-region", metavar="R", help="The region that a PLACE without REGION= lies in."),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="L", help="What to call it (default: the time).")] = None,
    tool: Annotated[
        Tool | None,
        typer.Option(help="Who copies (default: who did so far, else the best that is installed and can)."),
    ] = None,
    list_: Annotated[
        list[str] | None, typer.Option("--list", metavar="PLACE", help="Show the backups in PLACE.")
    ] = None,
    verify: Annotated[
        list[str] | None,
        typer.Option("--verify", metavar="PLACE", help="Read every byte of the backups in PLACE, or of --label."),
    ] = None,
    expire: Annotated[
        list[str] | None,
        typer.Option(
            "--expire", metavar="PLACE", help="Remove old backups, and WAL that only they needed: see --keep."
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Keep the newest N backups in the places named by --to or --expire."),
    ] = None,
    point: Annotated[
        bool,
        typer.Option("--point", help="Only name a restore point on all groups, as of one moment; attached ones too."),
    ] = False,
    off: Annotated[bool, typer.Option("--off", help="Stop archiving WAL; backups stay.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Back a local herd up: all groups as of one moment, and every change from then on (WAL archiving)."""
    if sum(map(bool, (to, list_, verify, expire, point, off))) != 1:
        raise BadInput(
            "name what to do", hint="one of --to PLACE, --list PLACE, --verify PLACE, --expire PLACE, --point, --off"
        )
    if (keep is None and expire) or (keep is not None and not (to or expire)):
        raise BadInput("--expire and --keep belong together", hint="--expire PLACE --keep 7, or --to PLACE --keep 7")
    if list_:
        _list(read_all([place_of(text) for text in list_]), json)
    elif verify:
        _verify(read_all([place_of(text) for text in verify]), label, home or default_home(), json)
    elif expire:
        _expire(expire, keep or 1, home or default_home(), json)
    elif point:
        asyncio.run(_point(label, home or default_home(), json))
    elif off:
        asyncio.run(_off(home or default_home()))
        print_json({"archiving": False}) if json else out.print("archiving is off; backups stay")
    else:
        asyncio.run(_backup(to or [], target_region, label, home or default_home(), tool, keep, json))


async def _backup(
    to: Sequence[str],
    region: str | None,
    label: str | None,
    home: Path,
    tool: Tool | None,
    keep: int | None,
    json: bool,
) -> None:
    targets = parse_targets(to, region)
    started = time.perf_counter()
    gone: Expired | None = None
    with err.status("opening the herd") as line, homelock.locked(home, 0, homelock.BACKUP_NAME, "another backup"):
        async with connect_async(home=home) as herd:
            made = await take_backup(herd, home, targets, label, lambda text: line.update(escape(text)), tool, _note)
        if keep is not None:
            line.update("removing old backups")
            gone = await expire_backups([t.place for t in targets], keep, _setting(home))
    seconds = time.perf_counter() - started
    if json:
        print_json({**_document(made), "removed": list(gone.removed) if gone else [], "seconds": round(seconds, 2)})
        return
    rows = [
        [g.name, g.region, size(g.bytes), sum(c.rows for c in g.counts) if made.quiet else None, g.tool]
        for g in made.groups
    ]
    out.print(table_of(["group", "region", "size", "rows", "by"], rows, title=f"backup {made.label}"))
    moment = "nobody wrote meanwhile" if made.quiet else "writers did not stop, so rows were not counted"
    out.print(f"\n{seconds:.1f} s; all groups as of {made.taken_at}, within {made.spread_ms:g} ms; {moment}")
    if gone is not None:
        _tell(gone)
    out.print("every later change is archived too, within a minute; [bold]pgherd backup --off[/] ends that")


def _expire(places: Sequence[str], keep: int, home: Path, json: bool) -> None:
    alone = homelock.locked(home, 0, homelock.BACKUP_NAME, "another backup") if home.is_dir() else nullcontext()
    with alone:
        gone = asyncio.run(expire_backups([place_of(text) for text in places], keep, _setting(home)))
    if json:
        print_json({"removed": list(gone.removed), "kept": list(gone.kept), "elsewhere": list(gone.elsewhere)})
    else:
        _tell(gone)


def _tell(gone: Expired) -> None:
    out.print(
        f"removed: {', '.join(map(escape, gone.removed)) or 'nothing'}; kept: {', '.join(map(escape, gone.kept))}"
    )
    if gone.elsewhere:
        out.print(
            f"[yellow]kept as well[/], since some of their groups are in other places:"
            f" {', '.join(map(escape, gone.elsewhere))}"
        )


def _setting(home: Path) -> Setting:
    user = server_user()
    return setting_of(find(user), user, home)


def _note(text: str) -> None:
    err.print(f"[yellow]note[/] {escape(text)}", soft_wrap=True)


async def _off(home: Path) -> None:
    async with connect_async(home=home) as herd:
        await stop_archiving(herd, home)


async def _point(label: str | None, home: Path, json: bool) -> None:
    name = POINT_PREFIX + checked_label(label or new_label())
    async with connect_async(home=home) as herd:
        made = await name_point(herd.engine, name)
    if json:
        groups = [{"name": g, "lsn": lsn, "timeline": timeline} for g, (lsn, timeline) in made.points.items()]
        print_json({"point": name, "taken_at": made.taken_at, "quiet": made.quiet, "spread_ms": made.spread_ms,
                    "groups": groups})  # fmt: skip
        return
    rows = [[g, lsn, timeline] for g, (lsn, timeline) in made.points.items()]
    out.print(table_of(["group", "LSN", "timeline"], rows, title=f"restore point {name}"))
    moment = "nobody wrote meanwhile" if made.quiet else "only commits over several groups were held back"
    out.print(f"\nall groups as of {made.taken_at}, within {made.spread_ms:g} ms; {moment}")
    out.print(
        f"to bring all back to it, recover each server with [bold]recovery_target_name = '{name}'[/], attach them, and"
        " any pgherd command settles what was half done"
    )


def _document(backup: Backup) -> dict[str, Any]:
    return {
        "label": backup.label,
        "taken_at": backup.taken_at,
        "base_at": backup.base_at,
        "generation": backup.generation,
        "postgres_version": backup.postgres_version,
        "quiet": backup.quiet,
        "spread_ms": backup.spread_ms,
        "groups": [
            {
                "name": g.name,
                "region": g.region,
                "bytes": g.bytes,
                "rows": sum(c.rows for c in g.counts) if backup.quiet else None,
                "tool": g.tool,
            }
            for g in backup.groups
        ],
    }


def _list(found: Sequence[Found], json: bool) -> None:
    entries = [{**_document(f.backup), "missing": [g for g in f.backup.herd if g not in f.places]} for f in found]
    if json:
        print_json({"backups": entries})
        return
    rows = [
        [
            e["label"],
            e["taken_at"],
            len(e["groups"]),
            size(sum(g["bytes"] for g in e["groups"])),
            ", ".join(dict.fromkeys(g["tool"] for g in e["groups"])),
            ", ".join(e["missing"]) or "nothing",
        ]
        for e in entries
    ]
    out.print(table_of(["label", "moment", "groups", "size", "by", "missing here"], rows))


def _verify(found: Sequence[Found], label: str | None, home: Path, json: bool) -> None:
    wanted = [choose(found, label)] if label else list(found)
    results: list[dict[str, Any]] = []
    failed: HerdError | None = None
    setting = _setting(home)
    for one in wanted:
        try:
            asyncio.run(verify_backup(one, setting))
            results.append({"label": one.backup.label, "whole": True, "problem": None})
        except HerdError as error:
            failed = error
            results.append({"label": one.backup.label, "whole": False, "problem": error.message})
    if failed and (len(wanted) == 1 or not json):
        for r in results if not json else ():
            out.print(f"{escape(r['label'])}: {'whole' if r['whole'] else 'DAMAGED'}")
        raise failed
    if json:
        print_json({"backups": results})
    else:
        for r in results:
            out.print(f"{escape(r['label'])}: whole")
    if failed:
        raise typer.Exit(int(failed.exit_status))


def restore(
    from_: FromOption,
    label: Annotated[str | None, typer.Option(metavar="L", help="Which backup (default: the newest).")] = None,
    to_time: Annotated[
        str | None,
        typer.Option("--to-time", metavar="TIME", help="As of then (ISO 8601; your time zone if it names none)."),
    ] = None,
    to_point: Annotated[
        str | None,
        typer.Option("--to-point", metavar="L", help="As of the restore point that `backup --point --label L` named."),
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the restored servers at the end.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Restore a whole herd into a new home, to a backup's moment or to a time or named moment after it; check it."""
    if home is None:
        raise BadInput("a restore makes a new herd", hint="name an empty or new directory: --home DIR")
    if to_time and to_point:
        raise BadInput("--to-time and --to-point name two moments", hint="leave one out")
    until = checked_label(to_point) if to_point else _time(to_time)
    found = choose(read_all([t.place for t in parse_targets(from_)]), label, _time(to_time))
    started = time.perf_counter()
    with err.status("restoring") as line:
        made = asyncio.run(restore_backup(found, home, until, lambda text: line.update(escape(text))))
        if stop:
            LocalHerd(home).down()
    _show_restored(made, home, time.perf_counter() - started, stop, json)


def _show_restored(made: Restored, home: Path, seconds: float, stopped: bool, json: bool) -> None:
    if json:
        print_json(
            {
                "label": made.label,
                "to_time": made.to.isoformat() if isinstance(made.to, datetime) else None,
                "to_point": POINT_PREFIX + made.to if isinstance(made.to, str) else None,
                "home": str(home),
                "groups": [{"name": g, "rows": n} for g, n in made.rows.items()],
                "checked": made.checked,
                "settled": made.settled,
                "disabled_subscriptions": list(made.disabled),
                "running": not stopped,
                "seconds": round(seconds, 2),
            }
        )
        return
    out.print(table_of(["group", "rows"], [[g, n] for g, n in made.rows.items()], title=f"restored {made.label}"))
    checked = f"{made.checked:,} rows are what they were" if made.checked is not None else "rows counted, not compared"
    out.print(f"\n{seconds:.1f} s; {checked}; {made.settled} half-done commits settled")
    for name in made.disabled:
        out.print(f"[yellow]disabled[/] subscription {escape(name)}: it would have reached for the old publisher")
    state = "stopped: [bold]pgherd up[/] starts it" if stopped else "it runs"
    out.print(f"{state}, in {escape(str(home))}", soft_wrap=True)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise BadInput(
            f"{text!r} is not a time", hint="like 2026-11-25T09:30:00 or 2026-11-25T09:30:00+00:00"
        ) from error
