"""One source of a corpus: where its documents lie, how they are read, and what may be asked of them.

``io.corpora.sources`` finds the files and reads them. Nothing here opens a file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FORMATS = ("text", "jsonl", "json", "tsv", "csv", "parquet", "html", "warc", "code", "tagged", "tfds")
RECORD_FORMATS = ("jsonl", "json", "tsv", "csv", "parquet", "tfds")
"""Formats whose documents are records with fields."""


@dataclass(frozen=True)
class ReadLimits:
    """What a reader refuses, so that no input can exhaust memory or disk. Bytes are as decompressed.

    An input may expand to ``expansion_floor`` whatever its ratio; above it, to at most ``max_expansion`` times its
    stored size and never beyond ``max_expanded_bytes``. Text packs to a third or a tenth; a gzip bomb to a thousandth.
    """

    max_document_bytes: int = 32 << 20  # a line, a record, a page, or a file that is one document
    max_page_bytes: int = 8 << 20  # of HTML: extraction is slow, and slower than linear on hostile pages
    max_page_tags: int = 200_000  # at most about 10 s of extraction
    max_expansion: float = 200.0
    max_expanded_bytes: int = 64 << 30
    piece_bytes: int = 256 << 20  # a larger file of lines is read in pieces of this size, so that shards can share it
    expansion_floor: int = 16 << 20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "max_expansion" and value < 1:
                raise ValueError(f"{name}={value} is below 1")
        if not self.max_expansion >= 1.0:
            raise ValueError(f"max_expansion={self.max_expansion} is below 1")

    def expanded(self, stored: int) -> int:
        """The most bytes that ``stored`` bytes on disk may expand to."""
        return int(min(self.max_expanded_bytes, max(self.expansion_floor, self.max_expansion * stored)))


@dataclass(frozen=True)
class CodeRules:
    """Which source files are no code that people wrote. The line rules are Codex's (Chen et al. 2021, section 3.1).

    ``suffixes``: only files with one of these (".py"); empty means every language that is known.
    """

    suffixes: tuple[str, ...] = ()
    max_file_bytes: int = 1 << 20
    max_mean_line: float = 100.0  # characters
    max_line: int = 1000
    min_alphanumeric: float = 0.25  # share of the characters
    drop_generated: bool = True  # files whose head says that a program wrote them

    def __post_init__(self) -> None:
        if isinstance(self.suffixes, str) or any(not s.startswith(".") for s in self.suffixes):
            raise ValueError(f"suffixes={self.suffixes!r}: write a tuple of suffixes with their dots, such as ('.py',)")
        if self.max_file_bytes < 1 or self.max_mean_line <= 0 or self.max_line < 1:
            raise ValueError("max_file_bytes, max_mean_line and max_line are above 0")
        if not 0.0 <= self.min_alphanumeric <= 1.0:
            raise ValueError(f"min_alphanumeric={self.min_alphanumeric} is outside 0 .. 1")


@dataclass(frozen=True)
class SourceConfig:
    """One source of a mixture.

    format
        "text": plain text. "tagged": word/TAG text, one document a file (Brown). "code": source files by suffix.
        "jsonl", "json" (an array of records, or one), "tsv" (no quoting), "csv" (RFC 4180), "parquet", "tfds": records.
        "html": pages, their main text. "warc": the HTML responses of a web archive.
    paths
        Files, folders (at any depth) or globs. A zip or tar is opened as a folder (for "code" only where it is named
        itself). A name that ends in .gz or .zst is decompressed as it is read.
    include, exclude
        Globs on a file's path within its folder or archive, or on its name alone: ("c[a-r]??",). Exclusion wins.
    fields
        Of a record: what its text is made of, joined by ``separator``. "title?" may be absent, null or empty.
        "instances.0.output" goes into objects and lists, "instances.*.output" into every item. A list of strings is
        joined by line breaks. Where a table has no header, its columns are "0", "1", ...
    encodings
        Tried in this order for each document. A page's own declaration comes before them.
    recipe
        The cleaning steps of this source; None takes the corpus's.
    priority
        Of two duplicates the one from the source of the higher priority stays.
    """

    name: str
    format: Literal["text", "jsonl", "json", "tsv", "csv", "parquet", "html", "warc", "code", "tagged", "tfds"]
    paths: tuple[str, ...] = ()
    licence: str = "unknown"
    language: str = ""  # ISO 639-1; "" = not stated
    weight: float = 1.0
    priority: int = 0
    recipe: tuple[Any, ...] | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    document: Literal["file", "paragraph", "line"] = "file"  # for "text": what one document is
    fields: tuple[str, ...] = ("text",)
    separator: str = "\n\n"
    records: str = ""  # for "json": the field of a file's one object that holds the array of records
    header: bool = True  # for "tsv" and "csv": whether the first line names the columns
    unescape: bool = False  # for "tsv": \n and \t written as two characters are line breaks and tabs
    encodings: tuple[str, ...] = ("utf-8",)
    title: bool = False  # for "html" and "warc": the page's title before its text
    html_fallback: bool = True  # for "html" and "warc": second extractors where the first finds little (slower)
    code: CodeRules = field(default_factory=CodeRules)
    max_documents: int | None = None  # the first ones of each file
    tfds_name: str | None = None
    tfds_split: str = "train"
    tfds_data_dir: str | None = None
    limits: ReadLimits = field(default_factory=ReadLimits)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"name={self.name!r} of a source: use letters, digits, '.', '_' and '-'")
        where = f"source {self.name!r}"
        for name, allowed in (("format", FORMATS), ("document", ("file", "paragraph", "line"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{where}: {name}={getattr(self, name)!r} is none of {', '.join(allowed)}")
        for name in ("paths", "include", "exclude", "fields", "encodings"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{where}: {name}={getattr(self, name)!r} is one string: write a tuple")
        if (self.format == "tfds") != (self.tfds_name is not None):
            raise ValueError(f"{where}: format={self.format!r} with tfds_name={self.tfds_name!r}: give both or neither")
        if (self.format == "tfds") == bool(self.paths):
            mend = "has no paths, only tfds_name" if self.paths else "needs paths: name files, folders or globs"
            raise ValueError(f"{where}: format={self.format!r} {mend}")
        if not 0.0 < self.weight < float("inf"):
            raise ValueError(f"{where}: weight={self.weight} is not above 0: leave the source out instead")
        if not re.fullmatch(r"([a-z]{2,3})?", self.language):
            raise ValueError(f"{where}: language={self.language!r} is no ISO 639-1 code such as 'en'")
        if not self.licence.strip():
            raise ValueError(f"{where}: licence is empty: name it, or write 'unknown'")
        if not self.fields or not all(name.strip("?") for name in self.fields):
            raise ValueError(f"{where}: fields={self.fields!r}: name at least one field")
        if not self.encodings:
            raise ValueError(f"{where}: encodings is empty: name at least one")
        for encoding in self.encodings:
            _check_encoding(encoding, where)
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"{where}: max_documents={self.max_documents} is below 1: use None for all")


def _check_encoding(encoding: str, where: str) -> None:
    """Lines are cut before they are decoded, so a line break must be one byte."""
    try:
        known = "a\n".encode(encoding) == b"a\n"
    except (LookupError, UnicodeError):
        raise ValueError(f"{where}: encoding {encoding!r} is unknown") from None
    if not known:
        raise ValueError(f"{where}: encoding {encoding!r} has no single-byte line breaks: convert the files to UTF-8")


def check_sources(sources: Sequence[SourceConfig]) -> None:
    """Raises ValueError for no source at all, or two of one name. Missing paths are found by ``find_files``."""
    if not sources:
        raise ValueError("sources is empty: a corpus needs at least one")
    seen: dict[str, int] = {}
    for number, source in enumerate(sources):
        same = seen.setdefault(source.name.lower(), number)  # file names: some disks do not tell case apart
        if same != number:
            raise ValueError(f"sources {same} and {number} are both named {source.name!r}: rename one")
