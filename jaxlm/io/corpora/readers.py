"""Documents of text, JSONL and Parquet files, one after the other, in bounded memory (but for whole-file documents)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.data.corpus import CorpusConfig, Document
from jaxlm.io.corpora.files import BadInput, decode_utf8, read_all, read_lines, reading

# What a reader yields: one document, or none for a file, line or record that was bad or empty.
Reader = Callable[[Path, CorpusConfig, BadInput], Iterator[Document]]

SUFFIXES: dict[str, tuple[str, ...]] = {
    "text": (),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
    "parquet": (".parquet",),
}


def read_file(path: Path, config: CorpusConfig, bad: BadInput) -> Iterator[Document]:
    """Every document of one file of ``config.source``. An empty file, or one without documents, is bad input."""
    count = skipped_before = 0
    skipped_before = bad.count
    with reading(path, bad):
        for document in READERS[config.source](path, config, bad):
            if document.text:
                count += 1
                yield document
    if not count and bad.count == skipped_before:
        bad.add(f"{path} is empty: it holds no text")


def _text_file(path: Path, config: CorpusConfig, bad: BadInput) -> Iterator[Document]:
    if config.document == "file":
        offset, content = read_all(path)
        text = decode_utf8(content, str(path), offset, bad)
        if text is not None:
            yield Document(text, str(path))
        return
    lines: list[str] = []
    first = 1
    for number, offset, content in read_lines(path):
        line = decode_utf8(content, f"{path} line {number}", offset, bad)
        if line is None:
            continue
        line = line.removesuffix("\n").removesuffix("\r")
        if config.document == "line":
            if line.strip():
                yield Document(line, f"{path}:{number}")
        elif line.strip():
            if not lines:
                first = number
            lines.append(line)
        elif lines:
            yield Document("\n".join(lines), f"{path}:{first}")
            lines = []
    if lines:
        yield Document("\n".join(lines), f"{path}:{first}")


def _jsonl_file(path: Path, config: CorpusConfig, bad: BadInput) -> Iterator[Document]:
    for number, offset, content in read_lines(path):
        if not content.strip():
            continue
        where = f"{path} line {number}"
        line = decode_utf8(content, where, offset, bad)
        if line is None:
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            bad.add(f"{where} is not JSON ({error})")
            continue
        except RecursionError:
            bad.add(f"{where} is nested too deeply")
            continue
        text = _field_of(record, config.text_field, where, bad)
        if text is not None:
            yield Document(text, f"{path}:{number}")


def _field_of(record: Any, name: str, where: str, bad: BadInput) -> str | None:
    if not isinstance(record, dict):
        bad.add(f"{where} is a JSON {type(record).__name__}, not an object")
    elif name not in record:
        near = ", ".join(list(record)[:8]) or "nothing"
        bad.add(f"{where} has no field {name!r} (it has {near}): set corpus.text_field")
    else:
        return check_value(record[name], name, where, bad)
    return None


def check_value(value: Any, name: str, where: str, bad: BadInput) -> str | None:
    """``value`` if it is text that has a UTF-8 form, else None after noting why not."""
    if not isinstance(value, str):
        bad.add(f"{where}: field {name!r} is {type(value).__name__}, not text")
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        bad.add(f"{where}: field {name!r} holds the lone surrogate U+{ord(value[error.start]):04X}")
        return None
    return value


def _parquet_file(path: Path, config: CorpusConfig, bad: BadInput) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if config.text_field not in names:
                bad.add(f"{path} has no column {config.text_field!r} (it has {', '.join(names[:8])}): set text_field")
                return
            for batch in table.iter_batches(batch_size=1024, columns=[config.text_field]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    text = check_value(value, config.text_field, f"{path} row {row}", bad)
                    if text is not None:
                        yield Document(text, f"{path}:{row}")
    except (pa.ArrowException, UnicodeDecodeError) as error:
        bad.add(f"{path} is not a whole Parquet file after row {row} ({str(error).splitlines()[0]})")


READERS: dict[str, Reader] = {"text": _text_file, "jsonl": _jsonl_file, "parquet": _parquet_file}
