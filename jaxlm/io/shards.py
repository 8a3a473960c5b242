"""Shards of documents on disk: Parquet files that are written once, in order, and read in batches.

A row is a document: the source that it came from, where it stands in it, and its text. What was removed is kept in
files of the same kind, with the step, the reason and the figure that decided in place of the text.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_BYTES = 4 << 20
_EXCERPT = 300  # characters

KEPT = pa.schema([("source", pa.string()), ("origin", pa.string()), ("part", pa.string()), ("text", pa.string())])
REMOVED = pa.schema(
    [
        ("source", pa.string()),
        ("origin", pa.string()),
        ("step", pa.string()),
        ("reason", pa.string()),
        ("value", pa.float32()),
        ("detail", pa.string()),
        ("num_bytes", pa.int64()),
        ("excerpt", pa.string()),
    ]
)


class Record(NamedTuple):
    """One document of a shard."""

    source: str
    origin: str
    part: str
    text: str


class Removal(NamedTuple):
    """One removed document. ``detail``: what it was found equal to, if that is why."""

    source: str
    origin: str
    step: str
    reason: str
    value: float
    detail: str
    num_bytes: int
    excerpt: str


def removal(record: Record, step: str, reason: str, value: float = float("nan"), detail: str = "") -> Removal:
    """The note of ``record``'s removal."""
    size = len(record.text.encode())
    return Removal(record.source, record.origin, step, reason, value, detail, size, record.text[:_EXCERPT])


class ShardWriter:
    """Appends rows to one Parquet file; rows are gathered into groups of about 4 MiB. Close it, or use ``with``."""

    def __init__(self, path: str | Path, schema: pa.Schema = KEPT) -> None:
        self.num_rows = 0
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, version="2.6")

    def add(self, row: tuple[Any, ...]) -> None:
        """Appends one row: a Record or a Removal, as the schema says."""
        self._rows.append(row)
        self._bytes += len(row[-1])
        self.num_rows += 1
        if self._bytes >= ROW_GROUP_BYTES or len(self._rows) >= 65_536:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(c, field.type) for c, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._rows, self._bytes = [], 0

    def close(self) -> None:
        """Writes what is left and the footer."""
        self._flush()
        self._writer.close()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.close()
        else:
            self._writer.close()


def read_rows(path: str | Path, *, batch_rows: int = 4096) -> Iterator[list[Record]]:
    """The documents of a shard in order, in lists of at most one row group's."""
    for columns in _read_columns(path, KEPT.names, batch_rows):
        yield [Record(*row) for row in zip(*columns, strict=True)]


def read_texts(path: str | Path, *, batch_rows: int = 4096) -> Iterator[list[str]]:
    """The texts alone."""
    for (texts,) in _read_columns(path, ["text"], batch_rows):
        yield texts


def read_sources(path: str | Path) -> list[str]:
    """The source of each document."""
    return pq.read_table(path, columns=["source"], use_threads=False).column(0).to_pylist()


def read_origins(path: str | Path, rows: Sequence[int]) -> list[str]:
    """Where the documents of some rows stand."""
    column = pq.read_table(path, columns=["origin"], use_threads=False).column(0)
    return column.take(pa.array(rows, pa.int64())).to_pylist()


def read_removed(path: str | Path) -> Iterator[Removal]:
    """The removals noted in a file, in order."""
    for columns in _read_columns(path, REMOVED.names, 4096):
        yield from map(Removal._make, zip(*columns, strict=True))


def _read_columns(path: str | Path, names: list[str], batch_rows: int) -> Iterator[list[list[Any]]]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):  # a group at a time: memory stays at one group's
            for batch in file.iter_batches(batch_rows, row_groups=[group], columns=names, use_threads=False):
                yield [column.to_pylist() for column in batch.columns]


def num_rows(paths: Iterable[str | Path]) -> list[int]:
    """Documents in each file, from its footer."""
    return [pq.read_metadata(path).num_rows for path in paths]
