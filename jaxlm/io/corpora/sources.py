"""The documents of a source, whatever its format: find its files, then read each of them, in bounded memory.

The account of a source is whole: every record is a document that was yielded, a bad one (``bad.count``), or one passed
over for a stated reason (``bad.passed``: no text, no HTML, generated code).
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import Document
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora import archives, code, html, plain, records, tables, tfds_records, warc
from jaxlm.io.corpora.archives import Input, SourceFile
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.streams import reading

# What a reader yields: the documents of one file. What is bad or passed over is noted.
Reader = Callable[[Input, SourceConfig, BadInput], Iterator[Document]]

READERS: dict[str, Reader] = {
    "text": plain.read_text,
    "tagged": plain.read_tagged,
    "jsonl": records.read_jsonl,
    "json": records.read_json,
    "tsv": tables.read_tsv,
    "csv": tables.read_csv,
    "parquet": tables.read_parquet,
    "html": html.read_html,
    "warc": warc.read_warc,
    "code": code.read_code,
}

SUFFIXES: dict[str, tuple[str, ...]] = {
    "text": (),
    "tagged": (),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "tsv": (".tsv", ".tab"),
    "csv": (".csv",),
    "parquet": (".parquet", ".pq"),
    "html": (".html", ".htm", ".xhtml"),
    "warc": (".warc",),
    "code": tuple(code.LANGUAGES),
}
"""Files of a folder or an archive that count, before .gz or .zst; () means all. A file that is named is always read."""


def find_files(source: SourceConfig, bad: BadInput) -> list[SourceFile]:
    """The files of ``source`` in a stable order; each can be read by itself, in any process.

    A member of a zip or of a plain tar is a file of its own; a compressed tar, which can only be read through, is one.
    A file that is named twice is read once.

    Raises:
        UserError: the source has no file at all.
    """
    if source.format == "tfds":
        return tfds_records.find_files(source)
    suffixes = (source.code.suffixes if source.format == "code" else ()) or SUFFIXES[source.format]
    found = archives.find_files(source, suffixes, bad)
    if not found:
        where = " ".join(source.paths)
        raise UserError(f"source {source.name!r} has no file at {where}: mend paths, include or exclude")
    return found


def read_source(file: SourceFile, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """Every document of one file, none of them empty."""
    documents = _read(file, source, bad)
    return documents if source.max_documents is None else itertools.islice(documents, source.max_documents)


def _read(file: SourceFile, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    if source.format == "tfds":
        yield from _with_text(tfds_records.read_tfds(file, source, bad), bad)
        return
    suffixes = (source.code.suffixes if source.format == "code" else ()) or SUFFIXES[source.format]
    with reading(str(file), bad):
        for one in archives.inputs(file, source, suffixes, bad):
            before = bad.count, bad.num_passed
            count = 0
            with reading(one.where, bad):
                for document in _with_text(READERS[source.format](one, source, bad), bad):
                    count += 1
                    yield document
            if not count and before == (bad.count, bad.num_passed):
                bad.add_at(one.where, None, "is empty: it holds no text")


def _with_text(documents: Iterator[Document], bad: BadInput) -> Iterator[Document]:
    for document in documents:
        if document.text and not document.text.isspace():
            yield document
        else:
            bad.pass_over("no text", document.origin)


def account(bad: BadInput) -> dict[str, Any]:
    """What was not read, as JSON data: counts by reason, and the first of each kind with file and offset."""
    return {
        "bad": bad.count,
        "bad_records": [record._asdict() for record in bad.records],
        "passed": dict(sorted(bad.passed.items())),
        "passed_listed": list(bad.passed_listed),
    }
