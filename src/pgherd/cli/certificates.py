"""``pgherd certificates``: which there are, how long they are good for, new ones."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import herdfile
from ..errors import BadInput
from ..herdfile import default_home
from ..local.herd import LocalHerd
from ..local.inventory import inventory
from .options import HomeOption, JsonOption
from .output import err, out, print_json, table_of


class Action(StrEnum):
    """What to do with them."""

    RENEW = "renew"


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(certificates)


def certificates(
    action: Annotated[Action | None, typer.Argument(help="renew: new ones for all, while they run.")] = None,
    ca: Annotated[
        bool, typer.Option("--ca", help="Also a new CA; the former one stays trusted until the next renewal.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the certificates of the herd's CA and servers, and when they end; or renew them without a restart."""
    where = home or default_home()
    if ca and action is None:
        raise BadInput("--ca is about renewing", hint="pgherd certificates renew --ca")
    document: dict[str, Any] = {}
    if action is Action.RENEW:
        with err.status("renewing"):
            document["forgotten"] = LocalHerd(where).renew_certificates(ca=ca)
    document["certificates"] = entries = _entries(where)
    if json:
        print_json(document)
        return
    if not entries:
        out.print("no server of this herd has TLS")
        return
    columns = ["what", "name", "address", "issuer", "expires", "days", "trusted", "file"]
    shown = ("kind", "name", "address", "issuer", "expires", "days_left", "trusted", "file")
    rows = [[e[c][:10] if c == "expires" else e[c] for c in shown] for e in entries]
    out.print(table_of(columns, rows, title="certificates"))
    if action is Action.RENEW:
        out.print(_said(ca, document["forgotten"]))


def _said(ca: bool, forgotten: int) -> str:
    if ca:
        return (
            "renewed, with a new CA; the former one is trusted until `pgherd certificates renew`: before that, give the"
            " new ca.crt to clients that have a copy of it"
        )
    return "renewed" + ("; former CAs are no longer trusted" if forgotten else "")


def _entries(home: Path) -> list[dict[str, Any]]:
    return [
        {
            "kind": e.kind,
            "name": e.name,
            "address": e.address,
            "issuer": e.issuer,
            "expires": e.expires.isoformat(),
            "days_left": int(e.days_left // 1),
            "trusted": e.trusted,
            "file": None if e.file is None else os.path.relpath(e.file, home),
        }
        for e in inventory(home, herdfile.read(home))
    ]
