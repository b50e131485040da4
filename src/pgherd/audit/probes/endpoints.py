"""Where the text of pinned rows goes to be embedded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from ...herdfile import Endpoint
from ..finding import Finding, Looked, NotLooked, Outcome, Severity, outcome
from ..pinned import Pinned
from ..world import World

_AT = re.compile(r"@(?P<url>https?://[^?#\s]+)")


def probe(world: World) -> Outcome:
    """The models that pinned tables name, or the environment does, and the endpoints of regions in herd.toml."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked | NotLooked]:
    for table in dict.fromkeys(p.table for p in world.pinned):
        models = {e.model: "the schema" for e in table.embeddings}
        if world.global_model and table.vector_columns:
            models.setdefault(world.global_model, "PGHERD_MODEL")
        for model, said_by in models.items():
            found = _AT.search(model)
            if found is None:
                what = f"{model}: in the process of whoever writes, no endpoint"
                yield Looked(f"embedding model of {table.name}", None, None, what, 1)
            elif world.file is None:
                what = f"the regions' endpoints for texts of {table.name}"
                yield NotLooked(what, None, None, "they are in the herd.toml of a home, and none was named (--home)")
            else:
                for p in (p for p in world.pinned if p.table == table):
                    yield _endpoint(world, p, found["url"], said_by, world.file.embedding)


def _endpoint(world: World, p: Pinned, url: str, said_by: str, endpoints: Mapping[str, Endpoint]) -> Finding | Looked:
    """Where texts of a shard go: an endpoint of its home's region, or of another that its policy allows."""
    node = world.seen(world.home_node(p))
    region = next((r for r in (node.region, *sorted(p.regions)) if r in p.regions and r in endpoints), None)
    if region is not None:
        host = _host(endpoints[region].url)
        what = f"{p.shard.name}: {host}, by herd.toml in {region}"
        return Looked(f"embedding endpoint of {p.table.name}", node.name, region, what, 1, node.name, host)
    return Finding(
        "endpoint_without_region", Severity.VIOLATION, str(p.table.name), node.name, node.region,
        f"texts of shard {p.shard.name} would be embedded by {_host(url)} (named by {said_by}), and no endpoint is said"
        f" to be in {' or '.join(p.regions)}",
        f"[regions.{p.regions[0]}.embedding] url = … in herd.toml", node.name, _host(url),
    )  # fmt: skip


def _host(url: str) -> str:
    """Scheme and host of a URL, without a password and what follows."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
