"""Where the text of pinned rows goes to be embedded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding import Finding, Looked, Outcome, Severity, outcome
from ..world import World

_AT = re.compile(r"@(?P<scheme>https?)://(?:[^/@]*@)?(?P<host>[^/?#]+)")


def probe(world: World) -> Outcome:
    """The models that pinned tables with embedding columns name, and the one that the environment does."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked]:
    for table in dict.fromkeys(p.table for p in world.pinned):
        shards = [p for p in world.pinned if p.table == table]
        models = {e.model: "the schema" for e in table.embeddings}
        if world.global_model and table.vector_columns:
            models.setdefault(world.global_model, "PGHERD_MODEL")
        for model, said_by in models.items():
            found = _AT.search(model)
            if found is None:
                what = f"{model}: in the process of whoever writes, no endpoint"
                yield Looked(f"embedding model of {table.name}", None, None, what, 1)
                continue
            where = f"{found['scheme']}://{found['host']}"
            for p in shards:
                node = world.home_node(p)
                yield Finding(
                    "endpoint_without_region", Severity.VIOLATION, str(table.name), node, world.seen(node).region,
                    f"texts of shard {p.shard.name} are embedded by {where} (named by {said_by}), an endpoint without a"
                    " region",
                    "bind an endpoint of its own to each region", node, where,
                )  # fmt: skip
