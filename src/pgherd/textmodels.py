"""Which model gets which text: to fill a vector column, to embed a question, to answer from rows that were found.

Texts of pinned rows go to endpoints of their own regions only (embedding/regional.py); this finds out which those are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dialect.functions import DEFAULT_MODEL
from .embedding.base import Embedder, model_from_spec
from .embedding.regional import Answering, RegionalModels, is_here
from .engines.base import Engine
from .errors import BadInput, StaleTopology
from .model.schema import Column, Schema, Table, tablespaces_of
from .model.topology import Shard
from .routing.route import Router
from .search.hits import Hit


class TextModels:
    """The models of one herd: ``default`` wherever the schema names none, ``regional`` for texts of pinned rows."""

    def __init__(
        self,
        engine: Engine,
        router: Callable[[Table], Router],
        default: Embedder | str | None,
        regional: RegionalModels,
    ) -> None:
        self._engine = engine
        self._router = router
        self._default = default
        self.regional = regional

    def embedder(self, table: Table, column: Column) -> Embedder:
        """The model that fills a vector column: the schema's, else the herd's, else the built-in one if it fits.

        Raises BadInput when none fits.
        """
        declared = next((e.model for e in table.embeddings if e.vector_column == column.name), None)
        choice = declared or self._default or DEFAULT_MODEL
        model = model_from_spec(choice) if isinstance(choice, str) else choice
        dim = column.vector[1] if column.vector else None
        if model.dim is not None and dim is not None and model.dim != dim:
            raise BadInput(
                f"model {model.name} makes {model.dim} dimensions, column {column.name!r} has {dim}",
                hint="name the model that fits: embedder=…, --model, or pgherd.embed_column in the schema file",
            )
        return model

    def of_rows(
        self, table: Table, column: Column, columns: Mapping[str, Any], count: int
    ) -> list[tuple[Embedder, NDArray[np.intp]]]:
        """Who embeds which of ``count`` rows, given by column: each text is sent to no region but its row's.

        Raises BadRow for a row without a home, EmbeddingCrossesRegion when a region has no endpoint.
        """
        model, everything = self.embedder(table, column), np.arange(count, dtype=np.intp)
        if is_here(model):
            return [(model, everything)]
        schema = self._engine.topology.schema
        router = self._router(table)
        shards = self._engine.topology.shards(table)
        pinned = {s.name: schema.regions_at(s.tablespace) for s in shards}
        alike = len(set(pinned.values())) == 1  # so it doesn't matter where a row goes, which may not be known yet
        parts = [(shards[0], everything)] if alike else router.route_many(columns)
        together: dict[tuple[frozenset[str], str], list[NDArray[np.intp]]] = {}
        for shard, rows in parts:
            home = self._engine.topology.group(shard.home).primary.label.region
            regions = pinned[shard.name]
            together.setdefault((regions, home if regions else ""), []).append(rows)
        return [
            (self.regional.choose(model, regions, home, str(table.name), "row"), np.concatenate(rows))
            for (regions, home), rows in together.items()
        ]

    def of_question(self, table: Table, model: Embedder, shards: Sequence[Shard]) -> Embedder:
        """Who embeds a question that these shards are to answer: if all are pinned alike, an endpoint of theirs.

        A question to several regions is not pinned to any of them.
        """
        pinned = {self._engine.topology.schema.regions_at(s.tablespace) for s in shards}
        regions = next(iter(pinned)) if len(pinned) == 1 else frozenset()
        home = self._engine.topology.group(shards[0].home).primary.label.region if shards else None
        return self.regional.choose(model, regions, home, str(table.name), "question")

    def of_answers(self, table: Table, hits: Sequence[Hit]) -> list[tuple[Answering, list[Hit]]]:
        """Who answers from which hits: each goes to no region but its row's, to its home's if that has a model.

        Raises AnswerCrossesRegion when a region of pinned rows has none, BadInput when nobody has, StaleTopology.
        """
        shards = {str(s.name): s for s in self._engine.topology.shards(table)}
        together: dict[str, tuple[Answering, list[Hit]]] = {}
        for hit in hits:
            shard = shards.get(hit.shard)
            if shard is None:
                raise StaleTopology(f"shard {hit.shard} is no longer there", hint="ask again")
            regions = self._engine.topology.schema.regions_at(shard.tablespace)
            home = self._engine.topology.group(shard.home).primary.label.region
            found = self.regional.answering(regions, home, str(table.name))
            together.setdefault(found.region, (found, []))[1].append(hit)
        return list(together.values())

    def check(self, schema: Schema) -> None:
        """EmbeddingCrossesRegion if texts of a pinned table are to be embedded where its rows may not be."""
        for table in schema.tables:
            for embedding in table.embeddings:
                for regions in {schema.regions_at(s) for s in tablespaces_of(table)}:
                    self.regional.check(model_from_spec(embedding.model), regions, str(table.name))
