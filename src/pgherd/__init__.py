"""pgherd: one Postgres out of many, for gen-AI applications."""

from __future__ import annotations

from .client import AsyncHerd, AsyncTable, connect_async
from .embedding.base import Embedder
from .errors import HerdError
from .search.hits import GroupTiming, Hit, Hits
from .search.request import Page
from .sync import Herd, HerdTable, connect

__all__ = [
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
