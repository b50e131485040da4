"""Where the text of pinned rows goes to be embedded or answered from."""

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
    """Models that tables or the environment name, endpoints of regions in herd.toml, and calls that were made."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked | NotLooked]:
    yield from _embedding(world)
    yield from _answering(world)
    yield from _two_places(world)
    yield from _calls(world)


def _answering(world: World) -> Iterator[Looked]:
    """Who may be sent rows to answer from: nobody but an endpoint of a region that the policy allows."""
    for p in world.pinned if world.file else ():
        node = world.seen(world.home_node(p))
        for region in (r for r in (node.region, *sorted(p.regions)) if r in p.regions and r in _llms(world)):
            host = _host(_llms(world)[region].url)
            what = f"{p.shard.name}: {host}, by herd.toml in {region}"
            yield Looked(f"answering endpoint of {p.table.name}", node.name, region, what, 1, node.name, host)
            break


def _llms(world: World) -> Mapping[str, Endpoint]:
    return world.file.llm if world.file else {}


def _two_places(world: World) -> Iterator[Finding]:
    """One host that herd.toml says to be in two regions: in one of them it is not."""
    said: dict[str, dict[str, str]] = {}
    for purpose, endpoints in (("embedding", world.file.embedding), ("llm", world.file.llm)) if world.file else ():
        for region, endpoint in endpoints.items():
            said.setdefault(_host(endpoint.url), {}).setdefault(region, purpose)
    for host, regions in said.items():
        for p in {p.table: p for p in world.pinned}.values() if len(regions) > 1 else ():
            mine = {r for q in world.pinned if q.table == p.table for r in q.regions} & regions.keys()
            if mine:
                node = world.seen(world.home_node(p))
                named = ", ".join(f"[regions.{r}.{purpose}]" for r, purpose in sorted(regions.items()))
                yield Finding(
                    "endpoint_in_two_regions", Severity.RISK, str(p.table.name), node.name, node.region,
                    f"{host} is said to be in {len(regions)} regions ({named}): texts of one go to another",
                    "name an endpoint of each region in herd.toml", node.name, host,
                )  # fmt: skip


def _calls(world: World) -> Iterator[Finding | Looked]:
    """Calls that pgherd.model_log tells of, by tables all of whose shards are pinned."""
    pinned: dict[str, list[Pinned]] = {}
    for p in world.pinned:
        pinned.setdefault(str(p.table.name), []).append(p)
    for seen in world.primaries():
        calls = 0
        for row in world.herd(seen)["model_log"]:
            shards = pinned.get(row["table"], [])
            if not shards or len(shards) < len(world.topology.shards(shards[0].table)):
                continue
            calls += 1
            allowed = {r for p in shards for r in p.regions}
            if row["region"] not in allowed:
                where = f"in region {row['region']}" if row["region"] else "that is said to be in no region"
                done = "embedded" if row["purpose"] == "row" else "answered from"
                yield Finding(
                    "model_call_outside", Severity.VIOLATION, row["table"], seen.name, seen.region,
                    f"pgherd.model_log: {row['texts']:,} texts of rows were {done} by {row['endpoint']}, an endpoint"
                    f" {where} (last {row['last']}); the table's regions are {' and '.join(sorted(allowed))}",
                    "ask who runs the endpoint what it keeps, and delete the entries when that is settled",
                    None, row["endpoint"],
                )  # fmt: skip
        yield Looked("calls of models with texts of pinned rows, by endpoint", seen.name, seen.region, count=calls)


def _embedding(world: World) -> Iterator[Finding | Looked | NotLooked]:
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
