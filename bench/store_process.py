"""One store, told by lines of JSON on stdin what to do; runs in an environment that has the stores and not pgherd.

Every store gets id, region, code, description and vector of each row, and gives the first four back with the distance.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

K = 10
M = 16
EF_CONSTRUCTION = 64


class Rows:
    """What is in the directory that the parent names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.vectors = np.load(directory / "vectors.npy")
        self.ids = np.load(directory / "ids.npy")
        texts = json.loads((directory / "texts.json").read_text(encoding="utf-8"))
        self.regions, self.codes, self.descriptions = texts["region"], texts["code"], texts["description"]

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])


class Store(Protocol):
    """``build`` fills the store, ``set_effort`` says how hard the next searches look, ``search`` finds K ids."""

    def build(self, rows: Rows) -> None: ...
    def set_effort(self, effort: int) -> None: ...
    def search(self, question: Any) -> list[int]: ...


class Faiss:
    """HNSW in this process' memory, the other columns in lists: the least that there is to do."""

    def build(self, rows: Rows) -> None:
        import faiss

        self._rows = rows
        self._index = faiss.IndexHNSWFlat(rows.dim, M, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = EF_CONSTRUCTION
        self._index.add(rows.vectors)

    def set_effort(self, effort: int) -> None:
        self._index.hnsw.efSearch = effort

    def search(self, question: Any) -> list[int]:
        distances, places = self._index.search(question[None, :], K)
        r = self._rows
        hits = [
            (int(r.ids[i]), r.regions[i], r.codes[i], r.descriptions[i], 1 - d)
            for i, d in zip(places[0].tolist(), distances[0].tolist(), strict=True)
        ]
        return [hit[0] for hit in hits]


class Chroma:
    """A persistent client in this process."""

    def build(self, rows: Rows) -> None:
        import chromadb
        from chromadb.config import Settings

        settings = Settings(anonymized_telemetry=False)
        self._open = lambda: chromadb.PersistentClient(str(rows.directory / "chroma"), settings)
        self._client, self._effort = self._open(), 40
        hnsw = {"space": "cosine", "ef_construction": EF_CONSTRUCTION, "max_neighbors": M, "ef_search": self._effort}
        self._collection = self._client.create_collection(
            "passage", configuration={"hnsw": hnsw}, embedding_function=None
        )
        step = min(5000, self._client.get_max_batch_size())
        for start in range(0, len(rows.ids), step):
            part = slice(start, start + step)
            pairs = zip(rows.regions[part], rows.codes[part], strict=True)
            self._collection.add(
                ids=[str(i) for i in rows.ids[part].tolist()],
                embeddings=rows.vectors[part],
                documents=rows.descriptions[part],
                metadatas=[{"region": region, "code": code} for region, code in pairs],
            )

    def set_effort(self, effort: int) -> None:
        """A collection learns of a new setting when it is opened anew (seen with 1.5.9)."""
        if effort != self._effort:
            self._collection.modify(configuration={"hnsw": {"ef_search": effort}})
            self._client.clear_system_cache()
            self._client, self._effort = self._open(), effort
            self._collection = self._client.get_collection("passage", embedding_function=None)

    def search(self, question: Any) -> list[int]:
        found = self._collection.query(
            query_embeddings=question[None, :], n_results=K, include=["metadatas", "documents", "distances"]
        )
        return [int(i) for i in found["ids"][0]]


class Lance:
    """LanceDB in this process: an HNSW index in one partition, vectors kept as they are."""

    def build(self, rows: Rows) -> None:
        import lancedb
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.reshape(-1)), rows.dim)
        columns = {"id": rows.ids, "region": rows.regions, "code": rows.codes, "description": rows.descriptions}
        table = pa.table({**columns, "embedding": vectors})
        self._table = lancedb.connect(str(rows.directory / "lance")).create_table("passage", table)
        self._table.create_index(
            metric="cosine",
            vector_column_name="embedding",
            index_type="IVF_HNSW_FLAT",
            num_partitions=1,
            m=M,
            ef_construction=EF_CONSTRUCTION,
        )
        self._effort = 40

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(self, question: Any) -> list[int]:
        query = self._table.search(question, vector_column_name="embedding").distance_type("cosine")
        found = query.nprobes(1).ef(self._effort).limit(K)
        columns = ["id", "region", "code", "description", "_distance"]
        ids: list[int] = found.select(columns).to_arrow()["id"].to_pylist()
        return ids


class Langchain:
    """langchain-postgres: only its ingestion, with vectors that are made already."""

    def build(self, rows: Rows, dsn: str) -> None:
        from langchain_core.embeddings import Embeddings
        from langchain_postgres import PGEngine, PGVectorStore

        class Made(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                raise NotImplementedError("vectors are given")

            def embed_query(self, text: str) -> list[float]:
                return [0.0] * rows.dim

        self._rows = rows
        self._engine = PGEngine.from_connection_string(dsn.replace("postgresql://", "postgresql+psycopg://"))
        self._engine.init_vectorstore_table("langchain_passage", rows.dim, overwrite_existing=True)
        self._store = PGVectorStore.create_sync(self._engine, Made(), "langchain_passage")

    def ingest(self) -> dict[str, Any]:
        """All rows, as a new table's first; how long it took."""
        r = self._rows
        self._engine.init_vectorstore_table("langchain_passage", r.dim, overwrite_existing=True)
        vectors = r.vectors.tolist()
        metadata = [{"region": a, "code": b} for a, b in zip(r.regions, r.codes, strict=True)]
        cpu, started, rows = time.process_time(), time.perf_counter(), 0
        for start in range(0, len(vectors), 1000):
            part = slice(start, start + 1000)
            rows += len(self._store.add_embeddings(r.descriptions[part], vectors[part], metadata[part]))
        return {"rows": rows, "seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


STORES = {"faiss": Faiss, "chroma": Chroma, "lance": Lance, "langchain": Langchain}


def main() -> None:
    """Answer commands until stdin ends. What libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    store: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "open":
            store, answer = _opened(command)
        elif command["do"] == "ingest":
            answer = store.ingest()
        else:
            answer = _searched(store, command)
        out.write(json.dumps(answer) + "\n")
        out.flush()


def _opened(command: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    rows = Rows(Path(command["directory"]))
    store = STORES[command["store"]]()
    cpu, started = time.process_time(), time.perf_counter()
    if "dsn" in command:
        store.build(rows, command["dsn"])
    else:
        store.build(rows)
    return store, {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


def _searched(store: Store, command: dict[str, Any]) -> dict[str, Any]:
    store.set_effort(command["effort"])
    questions = np.load(command["questions"])
    store.search(questions[0])  # a store that was opened anew reads its index with the first
    ms, ids = [], []
    cpu = time.process_time()
    for question in questions:
        started = time.perf_counter()
        found = store.search(question)
        ms.append((time.perf_counter() - started) * 1000)
        ids.append(found)
    return {"ms": ms, "ids": ids, "cpu_ms": (time.process_time() - cpu) * 1000 / len(questions)}


if __name__ == "__main__":
    main()
