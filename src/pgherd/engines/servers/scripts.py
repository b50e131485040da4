"""The SQL files of schema ``pgherd``, and the whole of them that an engine installs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files


@cache
def script(name: str) -> str:
    """The text of ``engines/sql/<name>.sql``."""
    return files("pgherd.engines").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def all_scripts() -> Iterator[str]:
    """The texts of all scripts that any engine may have run."""
    found = files("pgherd.engines").joinpath("sql").iterdir()
    return (script(f.name.removesuffix(".sql")) for f in found if f.name.endswith(".sql"))


def digest(names: tuple[str, ...]) -> str:
    """What tells one version of these scripts from another."""
    return hashlib.sha256("".join(map(script, names)).encode()).hexdigest()


def catalog(names: tuple[str, ...]) -> str:
    """The scripts as one, which can be run again on a schema that an older version made, and leave their digest."""
    note = (
        f"INSERT INTO pgherd.catalog (digest) VALUES ('{digest(names)}')"
        " ON CONFLICT (only_row) DO UPDATE SET digest = excluded.digest;"
    )
    return "\n".join([*map(script, names), note])
