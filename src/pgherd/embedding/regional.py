"""Which endpoint may be sent a text, to embed or to answer from: of a row that is pinned, one of its own region.

Guards an invariant: whether a text may go where it would go is settled before a byte is sent, and so is the note of it.
A model that runs in this process (the built-in one, an Embedder of the caller's own) sends nothing: it is where the
client is, and the client has the text already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import AnswerCrossesRegion, BadInput, EmbeddingCrossesRegion
from ..herdfile import Endpoint
from .base import Embedder, model_from_spec
from .chat import OpenAIChat, chat_model
from .check import Vectors
from .openai import OpenAIEmbedder


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model, for the log: never a text. ``region`` is the endpoint's, None for one that has none."""

    region: str | None
    endpoint: str
    model: str
    table: str
    purpose: str
    texts: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A remote model whose calls are noted before they are made; if they can't be, they aren't made."""

    model: OpenAIEmbedder
    region: str | None
    table: str
    purpose: str
    record: Callable[[Call], None]

    @property
    def name(self) -> str:
        """The spec that names it."""
        return self.model.name

    @property
    def dim(self) -> int | None:
        """The vectors' length."""
        return self.model.dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the model does; besides what that raises, what stands in the way of the note."""
        if texts:
            size = sum(len(t.encode()) for t in texts)
            host = urlsplit(self.model.url).netloc
            self.record(Call(self.region, host, self.model.model, self.table, self.purpose, len(texts), size))
        return self.model.embed(texts)


@dataclass(frozen=True, slots=True)
class Answering:
    """The answering model of a region, whose calls are noted before they are made; if they can't be, they aren't."""

    model: OpenAIChat
    region: str
    record: Callable[[Call], None]

    @property
    def host(self) -> str:
        """Host and port of its endpoint."""
        return urlsplit(self.model.url).netloc

    def answer(self, question: str, rows: Sequence[str], table: str) -> str:
        """As the model does; besides what that raises, what stands in the way of the note."""
        size = sum(len(t.encode()) for t in (question, *rows))
        self.record(Call(self.region, self.host, self.model.model, table, "answer", len(rows), size))
        return self.model.answer(question, rows)


def is_here(model: Embedder) -> bool:
    """Whether the model runs in this process, so that no text leaves it."""
    return not isinstance(model, OpenAIEmbedder)


@dataclass(frozen=True, slots=True)
class RegionalModels:
    """The endpoints of a herd's regions, and who is told of every call."""

    endpoints: Mapping[str, Endpoint]
    record: Callable[[Call], None]
    llms: Mapping[str, Endpoint] = field(default_factory=dict)

    def choose(self, model: Embedder, regions: frozenset[str], home: str | None, table: str, purpose: str) -> Embedder:
        """``model``, or the same by an endpoint of one of ``regions``, of ``home`` if that has one.

        ``regions`` empty: the text is not pinned. Raises EmbeddingCrossesRegion when no region has an endpoint.
        """
        if not isinstance(model, OpenAIEmbedder):
            return model
        if not regions:
            return Recorded(model, None, table, purpose, self.record)
        found = next((r for r in (home, *sorted(regions)) if r in regions and r in self.endpoints), None)
        if found is None:
            raise crosses(model, regions, table)
        endpoint = self.endpoints[found]
        dim = f"?dim={model.asked_dim}" if model.asked_dim else ""
        local = model_from_spec(f"openai:{endpoint.model or model.model}@{endpoint.url}{dim}")
        assert isinstance(local, OpenAIEmbedder)
        return Recorded(local, found, table, purpose, self.record)

    def answering(self, regions: frozenset[str], home: str, table: str) -> Answering:
        """The model that may be sent rows of ``regions`` (empty: not pinned), of ``home`` if that has one.

        Raises AnswerCrossesRegion when none of the regions has one, BadInput when none of the herd has.
        """
        self.check_answering()
        found = next(
            (r for r in (home, *sorted(regions or self.llms)) if r in (regions or {r}) and r in self.llms), None
        )
        if found is None:
            named = " or ".join(sorted(regions))
            raise AnswerCrossesRegion(
                f"rows of table {table} that were found are pinned to {named}, which has no endpoint of an answering"
                " model; none was sent to any",
                hint=f"add [regions.{min(regions)}.llm] with url and model to herd.toml, or ask other rows (where)",
            )
        endpoint = self.llms[found]
        return Answering(chat_model(endpoint.model or "", endpoint.url), found, self.record)

    def check_answering(self) -> None:
        """BadInput if no region has an answering model."""
        if not self.llms:
            raise BadInput(
                "the herd has no endpoint of an answering model",
                hint="add [regions.REGION.llm] with url and model to herd.toml, or connect(llms={…})",
            )

    def check(self, model: Embedder, regions: frozenset[str], table: str) -> None:
        """EmbeddingCrossesRegion if text that is pinned to ``regions`` could not be embedded in one of them."""
        if isinstance(model, OpenAIEmbedder) and regions and not regions & self.endpoints.keys():
            raise crosses(model, regions, table)


def crosses(model: OpenAIEmbedder, regions: frozenset[str], table: str) -> EmbeddingCrossesRegion:
    """The error for a text that would leave its regions."""
    named = " or ".join(sorted(regions))
    return EmbeddingCrossesRegion(
        f"text of table {table} is pinned to {named}, and {urlsplit(model.url).netloc} is no endpoint of that region",
        hint=f"add [regions.{min(regions)}.embedding] url = … to herd.toml, or embed by wordllama, in this process",
    )
