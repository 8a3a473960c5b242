"""Paths, bytes and lines of corpus files, and what to do with bad ones."""

import glob
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from jaxlm.core.errors import UserError

_BOM = b"\xef\xbb\xbf"
MAX_LISTED = 100


class BadRecord(NamedTuple):
    """One bad file, line or record. ``offset``: its byte in the (decompressed) file, None for a file as a whole."""

    file: str
    offset: int | None
    reason: str


@dataclass
class BadInput:
    """Where bad files, lines and records go: the first one raises, or with ``skip`` all are counted, 100 listed.

    Records that are left out on purpose, and are not bad, are counted beside them: ``passed``, reason -> records.
    """

    skip: bool = False
    count: int = 0
    listed: list[str] = field(default_factory=list)
    records: list[BadRecord] = field(default_factory=list)
    passed: dict[str, int] = field(default_factory=dict)
    passed_listed: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Raises UserError(message), or notes it."""
        self._note(message, BadRecord("", None, message))

    def add_at(self, file: str, offset: int | None, reason: str, *, place: str = "") -> None:
        """The same with its parts: "FILE PLACE REASON at byte OFFSET". ``place``: "line 3"."""
        where = f"{file} {place}".rstrip()
        at = "" if offset is None else f" (byte {offset})"
        self._note(f"{where} {reason}{at}", BadRecord(file, offset, reason))

    def _note(self, message: str, record: BadRecord) -> None:
        if not self.skip:
            raise UserError(f"{message}; mend it, or set corpus.on_bad=skip")
        self.count += 1
        if len(self.listed) < MAX_LISTED:
            self.listed.append(message)
            self.records.append(record)

    def pass_over(self, reason: str, where: str) -> None:
        """Counts a record that is not bad and yet no document: without text, of another kind."""
        self.passed[reason] = self.passed.get(reason, 0) + 1
        if len(self.passed_listed) < MAX_LISTED:
            self.passed_listed.append(f"{where}: {reason}")

    @property
    def num_passed(self) -> int:
        """Records passed over, for whatever reason."""
        return sum(self.passed.values())


def expand_paths(paths: tuple[str, ...], suffixes: tuple[str, ...], bad: BadInput) -> list[Path]:
    """The files that ``paths`` name, in order: a file, a glob (sorted), a folder (its files at any depth, sorted).

    In a folder only files with one of ``suffixes`` count (all if there are none) and hidden ones never.
    """
    found: list[Path] = []
    for name in paths:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
            matches = [p for p in inside if not suffixes or p.name.endswith(suffixes)]
            if not matches:
                bad.add(f"folder {path} holds no {' or '.join(suffixes) or 'readable'} file")
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if os.path.isfile(p)]
            if not matches:
                bad.add(f"no file at {path}")
        found.extend(matches)
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def hash_files(paths: list[Path]) -> list[str]:
    """sha256 (hex) of each file's bytes as they lie on disk; "" for one that cannot be read."""
    hashes = []
    for path in paths:
        try:
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError:
            hashes.append("")
    return hashes


@contextmanager
def reading(path: Path, bad: BadInput) -> Iterator[None]:
    """Turns what can go wrong while reading ``path`` into one bad input."""
    try:
        yield
    except EOFError:
        bad.add(f"{path} is truncated: its gzip stream ends early")
    except (gzip.BadGzipFile, zlib.error) as error:
        bad.add(f"{path} is not a whole gzip file ({error})")
    except OSError as error:
        bad.add(f"cannot read {path}: {error.strerror or error}")


def open_bytes(path: Path) -> BinaryIO:
    """The file's content as a stream of bytes; a name that ends in .gz is decompressed as it is read."""
    return cast(BinaryIO, gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb"))


def read_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, offset of its first byte, bytes with the line end) of every line, without a byte order mark.

    Lines end at ``\\n`` alone; offsets count decompressed bytes.
    """
    offset = 0
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            start = len(_BOM) if number == 1 and line.startswith(_BOM) else 0
            yield number, offset + start, line[start:]
            offset += len(line)


def read_all(path: Path) -> tuple[int, bytes]:
    """(offset of the first byte, all bytes), without a byte order mark."""
    with open_bytes(path) as file:
        content = file.read()
    start = len(_BOM) if content.startswith(_BOM) else 0
    return start, content[start:]


def decode_utf8(content: bytes, where: str, offset: int, bad: BadInput) -> str | None:
    """The text of ``content``, or None after noting the first byte that is not UTF-8, counted from the file's start."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        bad.add(f"{where} is not UTF-8 at byte {offset + error.start} (0x{content[error.start]:02x})")
        return None
