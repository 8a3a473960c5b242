"""Tables: TSV without quoting, CSV with it, Parquet."""

import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from jaxlm.data.corpus import Document
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.archives import Input
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.lines import decode, each_line, read_blocks
from jaxlm.io.corpora.records import SET_FIELDS, FieldError, text_of
from jaxlm.io.corpora.streams import ExpansionError

_ESCAPES = str.maketrans({"\x00": "\\"})


def read_tsv(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """One document a line; cells are parted by tabs and hold anything else, quotes too."""
    where = given.where
    names: list[str] | None = None
    with given.open() as stream:
        for block in read_blocks(stream, where, source.limits.max_document_bytes, bad):
            for number, offset, content in each_line(block):
                line = decode(content, where, offset, source, bad, place=f"line {number}")
                line = line and line.removesuffix("\n").removesuffix("\r")
                if not line:
                    continue
                cells = line.split("\t")
                if names is None:
                    names = cells if source.header else [str(n) for n in range(len(cells))]
                    if source.header:
                        continue
                if source.unescape and "\\" in line:
                    cells = [_unescaped(cell) for cell in cells]
                yield from _row(names, cells, source, bad, where, number, offset)


def _unescaped(cell: str) -> str:
    r"""``\n``, ``\t``, ``\r`` and ``\\`` as they are written -> what they stand for."""
    cell = cell.replace("\\\\", "\x00")
    return cell.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").translate(_ESCAPES)


def _row(
    names: list[str], cells: list[str], source: SourceConfig, bad: BadInput, where: str, number: int, offset: int
) -> Iterator[Document]:
    try:
        if len(cells) != len(names):
            raise FieldError(f"has {len(cells)} cells where the first line has {len(names)}")
        text = text_of(dict(zip(names, cells, strict=True)), source)
    except FieldError as error:
        bad.add_at(where, offset, str(error), place=f"line {number}")
    else:
        yield Document(text, f"{where}:{number}")


def read_csv(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """One document a record (RFC 4180: cells may be quoted, with line breaks inside). Origins name its first line."""
    where, limit = given.where, source.limits.max_document_bytes
    csv.field_size_limit(sys.maxsize)  # the reader's own limit is 128 KiB; ours is kept by `feed`
    place = [1, 0, 0]  # line and offset where the record began, its bytes so far
    names: list[str] | None = None

    def feed(stream: BinaryIO) -> Iterator[str]:
        for block in read_blocks(stream, where, limit, bad):
            for number, offset, content in each_line(block):
                if not place[2]:
                    place[:2] = number, offset
                place[2] += len(content)
                if place[2] > limit:
                    raise csv.Error(f"over limits.max_document_bytes={limit}: a quote that is not closed?")
                line = decode(content, where, offset, source, bad, place=f"line {number}")
                yield line if line is not None else "\n"  # noted; a blank line is no record

    with given.open() as stream:
        lines = feed(stream)
        rows = csv.reader(lines, strict=True)
        while True:
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                bad.add_at(where, place[1], f"begins no CSV record ({error})", place=f"line {place[0]}")
                if place[2] > limit:
                    return  # what follows cannot be told apart
                place[2] = 0
                continue
            number, offset = place[0], place[1]
            place[2] = 0
            if not cells:
                continue
            if names is None:
                names = cells if source.header else [str(n) for n in range(len(cells))]
                if source.header:
                    continue
            yield from _row(names, cells, source, bad, where, number, offset)


def read_parquet(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """One document a row; only the columns that the fields name are read. Their declared size is limited."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    where, row = given.where, 0
    try:
        with _seekable(given) as stream, pq.ParquetFile(stream) as table:
            names = table.schema_arrow.names
            columns = []
            for field in source.fields:
                name = field.removesuffix("?")
                column = name if name in names else name.split(".")[0]
                if column in names:
                    columns.append(column)
                elif name == field:
                    told = ", ".join(names[:8])
                    bad.add_at(where, None, f"has no column {name!r} (it has {told}): {SET_FIELDS}")
                    return
            _check_expansion(table.metadata, stream.seek(0, os.SEEK_END), source)
            for batch in table.iter_batches(batch_size=512, columns=sorted(set(columns)), use_threads=False):
                for record in batch.to_pylist():
                    row += 1
                    try:
                        text = text_of(record, source)
                        if len(text) > source.limits.max_document_bytes:
                            limit = source.limits.max_document_bytes
                            raise FieldError(f"has {len(text)} characters, over limits.max_document_bytes={limit}")
                    except FieldError as error:
                        bad.add_at(where, None, str(error), place=f"row {row}")
                        continue
                    yield Document(text, f"{where}:{row}")
    except (pa.ArrowException, UnicodeDecodeError) as error:
        bad.add_at(where, None, f"is not a whole Parquet file after row {row} ({str(error).splitlines()[0]})")


def _check_expansion(metadata: Any, stored: int, source: SourceConfig) -> None:
    # Of groups, not of columns: pyarrow 26 ends the process (abort) when it is asked for a damaged column's sizes.
    expanded = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if expanded > source.limits.expanded(stored):
        raise ExpansionError(f"{expanded} bytes declared by {stored}")


def _seekable(given: Input) -> BinaryIO:
    """The input itself where it can be sought in, else a temporary copy on disk."""
    stream = given.open()
    if given.root is not None and stream.seekable() and not given.name.endswith((".gz", ".zst")):
        return stream
    with stream:
        copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  (the caller closes it)
        shutil.copyfileobj(stream, copy, 1 << 20)
    copy.seek(0)
    return copy
