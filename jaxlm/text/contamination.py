"""Whether a text holds items of an evaluation set: runs of words in common, blind to case, punctuation and white space.

An item is found in a text where the text holds at least ``share`` of the item's different runs of ``width`` words, and
as many of them as ``matched_words`` words in a row have. One long run alone (GPT-3's rule: any 13 words; Brown et al.
2020, appendix C) misses two in ten of the short items once one word in ten is changed, and takes a long item for found
because of one sentence that it quotes. A share, as of tokens in Llama 2 (Touvron et al. 2023, appendix A.6), allows the
runs to be short, so that a changed word spoils few. ``docs/deduplication.md`` has the figures.

Both are compared in Unicode's normal form KC: an accented letter is one character, however it was typed, and a
full-width digit or a ligature is the plain one, as in corpora that were brought to that form.

Items of fewer words than a run are found where all their words stand in a row. Items under ``min_words`` words cannot
be told from ordinary text: they are listed, not looked for.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxlm.text.characters import HAN, KANA
from jaxlm.text.column import TextColumn
from jaxlm.text.minhash import word_runs, words


@dataclass(frozen=True)
class Overlap:
    """What counts as holding an item."""

    width: int = 5
    """Words in a run."""
    share: float = 0.2
    """Least share of an item's runs."""
    matched_words: int = 8
    """Least words of an item that the runs found could span; of a shorter item all."""
    min_words: int = 5
    """Items of fewer words are not looked for."""
    han_factor: int = 2
    """The three numbers of words are so many times larger for items that are mostly Han or Kana: a character counts as
    a word there, and is about half of one."""

    def __post_init__(self) -> None:
        for name in ("width", "matched_words", "min_words", "han_factor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")
        if self.matched_words < self.width:
            raise ValueError(f"matched_words={self.matched_words} is below width={self.width}: one run has more")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share={self.share} is outside 0 .. 1 (0 excluded)")


class EvalItem(NamedTuple):
    """One item of an evaluation set."""

    name: str
    """Where it stands: "mmlu/astronomy:17"."""
    text: str


class RunTable(NamedTuple):
    """The runs of one length and the items that hold them."""

    length: int
    """Words in a run."""
    hashes: np.ndarray
    """uint64 [r], ascending, each once."""
    bounds: np.ndarray
    """The items of run i are ``items[bounds[i] : bounds[i + 1]]``, int64 [r + 1]."""
    items: np.ndarray
    """int32 [p]."""
    present: np.ndarray
    """Whether some run's hash begins with these bits, bool [2^k]: tells nearly all other runs without a search."""


class ItemIndex(NamedTuple):
    """Evaluation items, ready to be looked up."""

    overlap: Overlap
    names: tuple[str, ...]
    runs: np.ndarray
    """Different runs of each item, int64 [items]; 0: not looked for."""
    needed: np.ndarray
    """Runs that a text must hold of each, int64 [items]."""
    tables: tuple[RunTable, ...]

    @property
    def unchecked(self) -> np.ndarray:
        """Items of fewer than ``min_words`` words, int64."""
        return np.flatnonzero(self.runs == 0)


class Findings(NamedTuple):
    """Which items stand in which texts of a batch, sorted by text, the fullest match first."""

    text: np.ndarray
    """Place of the text in the batch, int64 [f]."""
    item: np.ndarray
    """Place of the item in the index, int64 [f]."""
    share: np.ndarray
    """Share of the item's runs that the text holds, f32 [f]."""
    start: np.ndarray
    """First character of the text that belongs to a match, int64 [f]."""
    end: np.ndarray
    """One past the last, int64 [f]."""

    def first(self, num_texts: int) -> np.ndarray:
        """For each text the place of its fullest match among the findings, -1 where it is clean, int64 [num_texts]."""
        places = np.searchsorted(self.text, np.arange(num_texts + 1))
        return np.where(places[1:] > places[:-1], places[:-1], -1)


def build_index(items: Sequence[EvalItem], overlap: Overlap | None = None) -> ItemIndex:
    """The index of all evaluation items that a corpus is to be free of."""
    overlap = overlap or Overlap()
    column = _column([item.text for item in items])
    single = np.isin(column.kinds[column.units.starts], (HAN, KANA))
    factor = np.where(2 * column.units.sums(single) > column.words_n, overlap.han_factor, 1)
    lengths = np.minimum(column.words_n, overlap.width * factor)  # of the item's runs
    lengths[column.words_n < overlap.min_words * factor] = 0
    runs = np.zeros(len(items), np.int64)
    tables = []
    for length in np.unique(lengths[lengths > 0]).tolist():
        hashes, owners, _ = word_runs(column, length)
        kept = lengths[owners] == length
        hashes, owners = hashes[kept], owners[kept]
        order = np.lexsort((owners, hashes))
        once = order[_changes(hashes[order], owners[order])]
        hashes, owners = hashes[once], owners[once]
        runs += np.bincount(owners, minlength=len(items))
        starts = _changes(hashes, hashes)
        bounds = np.concatenate([starts, [len(hashes)]])
        tables.append(RunTable(length, hashes[starts], bounds, owners.astype(np.int32), _present(hashes[starts])))
    spanned = np.minimum(overlap.matched_words * factor - lengths + 1, runs)
    needed = np.maximum(np.ceil(overlap.share * runs - 1e-9).astype(np.int64), spanned)
    return ItemIndex(overlap, tuple(item.name for item in items), runs, needed, tuple(tables))


def find_items(texts: TextColumn | Sequence[str], index: ItemIndex) -> Findings:
    """The items that the texts of a batch hold. A text's findings depend on it alone.

    Texts are brought to normal form KC, as items are, and places count in that; a column has to be in it already.
    """
    column = texts if isinstance(texts, TextColumn) else _column(texts)
    parts = [_matches(column, table, index) for table in index.tables]
    text, item, share, first, last = (
        np.concatenate([np.zeros(0, np.int64), *(part[i] for part in parts)]) for i in range(5)
    )
    order = np.lexsort((item, -share, text))
    text, item, first, last = (values[order].astype(np.int64) for values in (text, item, first, last))
    begin = column.chars(column.starts_n[text], first)
    return Findings(text, item, share[order].astype(np.float32), begin, begin + column.chars(first, last))


def _column(texts: Sequence[str]) -> TextColumn:
    return TextColumn([unicodedata.normalize("NFKC", text) for text in texts])


def _matches(column: TextColumn, table: RunTable, index: ItemIndex) -> tuple[np.ndarray, ...]:
    """(texts, items, shares, first byte of a match, one past the last byte) of the items that one table finds."""
    runs, owners, places = word_runs(column, table.length)
    kept = table.present[runs >> _shift(table.present)]
    runs, owners, places = runs[kept], owners[kept], places[kept]
    run = np.minimum(np.searchsorted(table.hashes, runs), len(table.hashes) - 1)
    kept = table.hashes[run] == runs
    run, owners, places = run[kept], owners[kept], places[kept]
    order = np.lexsort((places, run, owners))
    run, owners, places = run[order], owners[order], places[order]
    # A run that a text repeats counts once.
    starts = _changes(owners, run)
    ends = np.concatenate([starts[1:], [len(run)]]) - 1 if len(starts) else starts
    run, owners, first, last = run[starts], owners[starts], places[starts], places[ends]
    # Each run stands for all items that hold it.
    held = np.diff(table.bounds)[run]
    before = np.cumsum(held) - held
    items = table.items[np.arange(held.sum()) + np.repeat(table.bounds[run] - before, held)]
    owners, first, last = (np.repeat(values, held) for values in (owners, first, last))
    order = np.lexsort((items, owners))
    items, owners, first, last = items[order], owners[order], first[order], last[order]
    starts = _changes(owners, items)
    if len(starts):
        first, last = np.minimum.reduceat(first, starts), np.maximum.reduceat(last, starts)
    items, owners = items[starts], owners[starts]
    count = np.diff(np.concatenate([starts, [len(order)]]))
    kept = count >= index.needed[items]
    items, owners, count, first, last = items[kept], owners[kept], count[kept], first[kept], last[kept]
    _, bounds = words(column)
    spans = column.units.kept(column.is_word)
    first, last = bounds[owners] + first, bounds[owners] + last + table.length - 1
    return owners, items, count / index.runs[items], spans.starts[first], spans.ends[last]


def _changes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where a pair differs from the one before it, from 0 on."""
    if not len(first):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], np.flatnonzero((first[1:] != first[:-1]) | (second[1:] != second[:-1])) + 1])


def _present(hashes: np.ndarray) -> np.ndarray:
    present = np.zeros(1 << max(16, min(26, (16 * len(hashes)).bit_length())), bool)
    present[hashes >> _shift(present)] = True
    return present


def _shift(present: np.ndarray) -> np.uint64:
    return np.uint64(64 - (len(present).bit_length() - 1))
