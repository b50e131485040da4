"""pgherd: one Postgres out of many, for gen-AI applications."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import AsyncHerd, connect_async
    from .embedding.base import Embedder
    from .errors import HerdError
    from .search.answers import Answer, Answers
    from .search.hits import GroupTiming, Hit, Hits
    from .search.request import Page
    from .sync import Herd, HerdTable, connect
    from .table import AsyncTable

__all__ = [
    "Answer",
    "Answers",
    "AsyncHerd",
    "AsyncTable",
    "Embedder",
    "GroupTiming",
    "Herd",
    "HerdError",
    "HerdTable",
    "Hit",
    "Hits",
    "Page",
    "connect",
    "connect_async",
]
__version__ = "0.1.0"

_WHERE = {
    "Answer": "search.answers",
    "Answers": "search.answers",
    "AsyncHerd": "client",
    "AsyncTable": "table",
    "connect_async": "client",
    "Embedder": "embedding.base",
    "HerdError": "errors",
    "GroupTiming": "search.hits",
    "Hit": "search.hits",
    "Hits": "search.hits",
    "Page": "search.request",
    "Herd": "sync",
    "HerdTable": "sync",
    "connect": "sync",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: a watcher, one a machine, needs no client and none of its packages."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
