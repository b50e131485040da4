"""Parquet and arrow (feather) files, a stretch of rows at a time; vectors never become Python floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import BadInput
from ..rows.batch import arrow_values
from .records import Chunk, Part
from .source import Format, Source

_READ_BYTES = 1 << 20


class ArrowReader:
    """Reads one file; lines are rows, from 1. ``vectors``: the columns that are vectors in the table."""

    def __init__(self, source: Source, vectors: frozenset[str]) -> None:
        try:
            import pyarrow as pa
        except ImportError as error:
            raise BadInput(
                "reading parquet and arrow files needs pyarrow", hint="pip install 'pgherd[arrow]'"
            ) from error
        self._source = source
        self._vectors = vectors
        self._damage: tuple[type[Exception], ...] = (pa.ArrowException, OSError)
        try:
            self._file = _open(source)
        except self._damage as error:
            message = f"{source.path.name} is not a readable {source.format} file: {error}"
            raise BadInput(message, hint="write the file again; a copy may have been cut short") from error
        self.names: tuple[str, ...] = tuple(self._file.names)
        self.total_rows: int | None = self._file.total_rows
        twice = [n for n in self.names if self.names.count(n) > 1]
        if twice:
            raise BadInput(f"{source.path.name} has column {twice[0]!r} twice", hint="rename or drop one of them")

    def chunks(self, lines_done: int, rows: int) -> Iterator[Chunk]:
        """See :class:`.records.Reader`."""
        done = lines_done
        batches = self._file.batches(lines_done, rows)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                columns = {
                    name: arrow_values(batch.column(i), name in self._vectors) for i, name in enumerate(self.names)
                }
            except self._damage as error:
                message = f"{self._source.path.name} can't be read after row {done}: {error}"
                raise BadInput(message, hint="write the file again; a copy may have been cut short") from error
            part = Part(range(done + 1, done + batch.num_rows + 1), columns)
            done += batch.num_rows
            yield Chunk([part], [], done, int(self._source.size * self._file.share(done)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(source: Source) -> Any:
    return _Parquet(source) if source.format is Format.PARQUET else _Ipc(source)


class _Parquet:
    def __init__(self, source: Source) -> None:
        import pyarrow.parquet as pq

        # Without pre_buffer a row group streams through a small buffer instead of being held whole.
        self._file = pq.ParquetFile(source.path, buffer_size=_READ_BYTES, pre_buffer=False)
        self.names = self._file.schema_arrow.names
        self.total_rows = self._file.metadata.num_rows

    def batches(self, rows_done: int, rows: int) -> Iterator[Any]:
        groups = list(range(self._file.num_row_groups))
        while groups and self._file.metadata.row_group(groups[0]).num_rows <= rows_done:
            rows_done -= self._file.metadata.row_group(groups.pop(0)).num_rows
        for batch in self._file.iter_batches(batch_size=rows, row_groups=groups):
            rest = batch.slice(min(rows_done, batch.num_rows))
            rows_done -= batch.num_rows - rest.num_rows
            if rest.num_rows:
                yield rest

    def share(self, rows_done: int) -> float:
        return rows_done / int(self.total_rows)

    def close(self) -> None:
        self._file.close()


class _Ipc:
    def __init__(self, source: Source) -> None:
        import pyarrow as pa

        self._map = pa.memory_map(str(source.path))
        self.total_rows: int | None = None
        self._begun, self._count = 0, 0
        try:
            file = pa.ipc.open_file(self._map)
            self._count = file.num_record_batches
            self._batches = (file.get_batch(i) for i in range(self._count))
        except pa.ArrowInvalid:
            self._map.seek(0)
            file = pa.ipc.open_stream(self._map)
            self._batches = iter(file)
        self.names = file.schema.names

    def batches(self, rows_done: int, rows: int) -> Iterator[Any]:
        for batch in self._batches:
            self._begun += 1
            skipped = min(rows_done, batch.num_rows)
            rows_done -= skipped
            for start in range(skipped, batch.num_rows, rows):
                yield batch.slice(start, rows)

    def share(self, rows_done: int) -> float:
        return self._begun / self._count if self._count else 0.0

    def close(self) -> None:
        self._map.close()
