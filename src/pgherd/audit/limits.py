"""How much an audit looks at, unless it is told otherwise."""

from __future__ import annotations

SAMPLE = 10_000
"""Values of each column of a pinned shard that are looked for elsewhere."""
BUDGET_S = 60.0
"""How long they are looked for."""
