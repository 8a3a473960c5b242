"""Lines and paragraphs that stand in many documents (menus, licences, "share this"), counted and dropped.

Counting is over a corpus in pieces: `count_lines` of each batch, `merge_counts` of batches and shards (in parts by
hash, if the whole is too much for memory), `above` for what is repeated too often, `drop_repeated` for the texts.
Lines are equal if their words and signs are, blind to ASCII case and to the white space between them. Blank ones are
neither counted nor dropped.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxlm.text.column import TextColumn, mix

Unit = Literal["line", "paragraph"]


class LineCounts(NamedTuple):
    """How many documents each line stands in. Sorted by hash, each once."""

    hashes: np.ndarray
    """uint64 [h]."""
    documents: np.ndarray
    """Documents that hold it, a document counting once however often it repeats the line, int64 [h]."""
    first: np.ndarray
    """The lowest number of them, int64 [h]."""

    def above(self, most: int) -> "LineCounts":
        """The lines that stand in more than ``most`` documents: what `drop_repeated` needs."""
        kept = self.documents > most
        return LineCounts(self.hashes[kept], self.documents[kept], self.first[kept])

    def part(self, index: int, parts: int) -> "LineCounts":
        """Those of part ``index`` of ``parts`` ranges of hashes: merged range by range, counts need little memory."""
        if not 0 <= index < parts:
            raise ValueError(f"part {index} is none of {parts}")
        ends = np.searchsorted(self.hashes, _edges(index, parts))
        end = len(self.hashes) if index + 1 == parts else ends[1]
        return LineCounts(*(column[ends[0] : end] for column in self))


def count_lines(
    texts: TextColumn | Sequence[str], numbers_n: np.ndarray, *, unit: Unit = "line", min_chars: int = 1
) -> LineCounts:
    """The counts of a batch of texts whose document numbers are ``numbers_n`` int64 [n].

    Units of fewer than ``min_chars`` characters are left out ("}", "else:", "Yes."): they repeat by right.
    """
    hashes, owners, _, _ = _pieces(texts, unit, min_chars)
    numbers = np.asarray(numbers_n, np.int64)[owners]
    order = np.lexsort((numbers, hashes))
    hashes, numbers = hashes[order], numbers[order]
    new = np.ones(len(hashes), bool)
    new[1:] = hashes[1:] != hashes[:-1]
    other = new.copy()  # once a document
    other[1:] |= numbers[1:] != numbers[:-1]
    starts = np.flatnonzero(new)
    documents = np.add.reduceat(other, starts, dtype=np.int64) if len(starts) else np.zeros(0, np.int64)
    return LineCounts(hashes[starts], documents, numbers[starts])


def merge_counts(parts: Sequence[LineCounts]) -> LineCounts:
    """The counts of several batches or shards of different documents, added. In any order the result is the same."""
    hashes = np.concatenate([np.zeros(0, np.uint64), *(part.hashes for part in parts)])
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    documents = np.concatenate([np.zeros(0, np.int64), *(part.documents for part in parts)])[order]
    first = np.concatenate([np.zeros(0, np.int64), *(part.first for part in parts)])[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(hashes)), bool), hashes[1:] != hashes[:-1]]))
    if not len(starts):
        return LineCounts(hashes, documents, first)
    return LineCounts(hashes[starts], np.add.reduceat(documents, starts), np.minimum.reduceat(first, starts))


class Dropped(NamedTuple):
    """Texts without their repeated lines."""

    texts: list[str]
    """In order; the very text given where nothing went, "" where nothing is left."""
    lines_n: np.ndarray
    """Lines (or paragraphs) that went from each, int64 [n]."""
    bytes_n: np.ndarray
    """Bytes that went from each, int64 [n]."""


def drop_repeated(
    texts: TextColumn | Sequence[str],
    numbers_n: np.ndarray,
    repeated: LineCounts,
    *,
    unit: Unit = "line",
    min_chars: int = 1,
    keep_first: bool = True,
) -> Dropped:
    """The texts without the lines of ``repeated`` (from ``above``).

    ``keep_first``: the document that a line stood in first keeps it. ``unit`` and ``min_chars`` as in the counting.
    """
    column = texts if isinstance(texts, TextColumn) else TextColumn(texts)
    hashes, owners, starts, ends = _pieces(column, unit, min_chars)
    place = np.searchsorted(repeated.hashes, hashes)
    gone = place < len(repeated.hashes)
    gone[gone] = repeated.hashes[place[gone]] == hashes[gone]
    if keep_first:
        gone[gone] = repeated.first[place[gone]] != np.asarray(numbers_n, np.int64)[owners[gone]]
    owners, starts, ends = owners[gone], starts[gone], ends[gone]
    kept, bytes_n = list(column.texts), np.zeros(len(column), np.int64)
    bounds = np.searchsorted(owners, np.arange(len(column) + 1))
    for i in np.unique(owners).tolist():
        mine = slice(bounds[i], bounds[i + 1])
        whole = column.data[column.starts_n[i] : column.ends_n[i]]
        left = _without(whole, starts[mine] - column.starts_n[i], ends[mine] - column.starts_n[i])
        kept[i], bytes_n[i] = left.decode("utf-8", "surrogatepass"), len(whole) - len(left)
    return Dropped(kept, np.diff(bounds), bytes_n)


def _without(whole: bytes, starts: np.ndarray, ends: np.ndarray) -> bytes:
    """The text without these pieces and the line breaks after them; "" if only white space is left."""
    parts, place = [], 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        begin = whole.rfind(b"\n", 0, start) + 1  # white space at both ends of the line goes with it
        parts.append(whole[place:begin])
        stop = whole.find(b"\n", end)
        place = len(whole) if stop < 0 else stop + 1
    left = b"".join([*parts, whole[place:]])
    if not left.strip():
        return b""
    return left if whole.endswith(b"\n") else left.removesuffix(b"\n")


def _pieces(
    texts: TextColumn | Sequence[str], unit: Unit, min_chars: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(hashes, owners, first bytes, one past the last bytes) of the lines or paragraphs that count."""
    column = texts if isinstance(texts, TextColumn) else TextColumn(texts)
    if unit not in ("line", "paragraph"):
        raise ValueError(f"unit={unit!r} is none of line, paragraph")
    spans, hashes = (
        (column.lines, column.line_hashes) if unit == "line" else (column.paragraphs, column.paragraph_hashes)
    )
    long = column.chars(spans.starts, spans.ends) >= min_chars
    hashes = hashes[long]
    mix(hashes)
    return hashes, spans.owners[long], spans.starts[long], spans.ends[long]


def _edges(index: int, parts: int) -> np.ndarray:
    """The first hash of a range and that of the next one, uint64 [2]."""
    return np.array([(index << 64) // parts, min(((index + 1) << 64) // parts, (1 << 64) - 1)], np.uint64)
