"""Topologies and plans as JSON documents and back: what ``pgherd.topology`` on every node holds."""

from __future__ import annotations

from typing import Any

from cattrs import Converter
from cattrs.strategies import configure_tagged_union

from .names import Name
from .schema import Bound, Item
from .topology import Topology

_converter = Converter(omit_if_default=True)
_converter.register_unstructure_hook(Name, lambda n: [n.schema, n.name])
_converter.register_structure_hook(Name, lambda v, _: Name(*v))
configure_tagged_union(Bound, _converter, tag_name="is")
configure_tagged_union(Item, _converter, tag_name="is")


def topology_to_json(topology: Topology) -> dict[str, Any]:
    """The topology as JSON-ready data; secrets of the schema (password verifiers) are reduced to their digest."""
    document: dict[str, Any] = _converter.unstructure(topology, Topology)
    return document


def topology_from_json(document: dict[str, Any]) -> Topology:
    """The inverse of :func:`topology_to_json`."""
    return _converter.structure(document, Topology)
