"""The SQL files of schema ``pgherd``."""

from __future__ import annotations

from importlib.resources import files


def script(name: str) -> str:
    """The text of ``engines/sql/<name>.sql``."""
    return files("pgherd.engines").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
