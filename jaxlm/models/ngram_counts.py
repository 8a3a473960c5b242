"""Counting n-grams of every order by sorting, without a Python loop over them.

Each n-gram is a context (its first n-1 words, as a number among the (n-1)-grams) and a word. For each order the rows
(context, word, position) are sorted; equal neighbours are one n-gram, and its number goes back to the positions, where
it is the context of the next order. Rows fit one 64-bit key unless vocabulary, contexts and text are all huge.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.models.ngram_sort import BLOCK, Allocate, Keys, Sorter, sort_in_memory
from jaxlm.models.ngram_table import KEY_BITS


class Grams(NamedTuple):
    """The n-grams of one order, in the order of their words; their index in it is their number."""

    context: np.ndarray
    """Number of the first n-1 words among the order below, [g]. Does not decrease. Empty for order 1."""
    word: np.ndarray
    """The last word, [g]."""
    suffix: np.ndarray
    """Number of the last n-1 words among the order below, [g]. Empty for order 1."""
    counts: np.ndarray
    """Times seen, int64 [g]."""
    num_starting: int
    """How many of them, counted from ``first_starting``, begin with the start symbol."""
    first_starting: int


def join_sequences(
    sequences: Iterable[np.ndarray | Sequence[int]], *, vocab_size: int, bos_id: int, eos_id: int | None
) -> np.ndarray:
    """All sequences behind one another, each behind ``bos_id`` and, if there is one, before ``eos_id``; int32.

    A sequence may begin with ``bos_id`` and end with ``eos_id`` itself: neither is then added. ``bos_id`` may be
    ``vocab_size``, which no sequence holds. Raises UserError for ids
    outside the vocabulary, or a start symbol inside a sequence.
    """
    parts: list[np.ndarray] = []
    for number, sequence in enumerate(sequences):
        ids = np.asarray(sequence)
        if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
            raise UserError(
                f"sequence {number} has shape {ids.shape} and type {ids.dtype}: pass 1-d arrays of token ids"
            )
        ids = ids.astype(np.int64)
        if ids.size and ids[0] == bos_id < vocab_size:
            ids = ids[1:]
        if ids.size and (ids.min() < 0 or ids.max() >= vocab_size):
            raise UserError(
                f"sequence {number} has ids {ids.min()}..{ids.max()}: the vocabulary is 0..{vocab_size - 1}"
            )
        if (ids == bos_id).any():
            raise UserError(f"sequence {number} holds the start symbol {bos_id} inside: cut it there")
        end = [] if eos_id is None or (ids.size and ids[-1] == eos_id) else [eos_id]
        parts.append(np.concatenate([[bos_id], ids, end]).astype(np.int32))
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def count_ngrams(
    tokens: np.ndarray,
    *,
    order: int,
    vocab_size: int,
    bos_id: int,
    sorter: Sorter = sort_in_memory,
    allocate: Allocate = np.empty,
    block_size: int = BLOCK,
    key_bits: int = KEY_BITS,
) -> list[Grams]:
    """The n-grams of each order 1 .. ``order``.

    Args:
      tokens: ids [t] of all sequences, each behind ``bos_id`` (see `join_sequences`); no n-gram reaches over it.
      vocab_size: ids are below it, ``bos_id`` too.
      sorter: how rows are sorted; another one spills to disk.
      allocate: where arrays as long as the text or the n-grams lie.
      block_size: positions turned into rows at once.
      key_bits: rows wider than this take two columns (a test makes them).
    """
    length = len(tokens)
    word_bits, position_bits = vocab_size.bit_length(), max(1, length).bit_length()
    offsets = _offsets(tokens, bos_id, allocate)
    counts = np.zeros(vocab_size, np.int64)
    for begin in range(0, length, 1 << 20):  # large blocks: each costs as much as the vocabulary is long
        counts += np.bincount(tokens[begin : begin + (1 << 20)], minlength=vocab_size)
    none = np.zeros(0, np.int32)
    found = [Grams(none, np.arange(vocab_size, dtype=np.int32), none, counts, 1, bos_id)]
    ids = tokens
    for n in range(2, order + 1):
        below = found[-1]
        wide = (len(below.word)).bit_length() + word_bits + position_bits > key_bits

        def rows(n: int = n, ids: np.ndarray = ids, wide: bool = wide) -> Iterator[Keys]:
            for begin in range(0, length, block_size):
                position = np.flatnonzero(offsets[begin : begin + block_size] >= n - 1)
                position += begin
                low = tokens[position].astype(np.int64)
                low <<= position_bits
                low |= position
                position -= 1
                context = ids[position].astype(np.int64)
                if not wide:
                    context <<= word_bits + position_bits
                    context |= low
                    yield (context.view(np.uint64),)
                elif len(position):
                    yield context.view(np.uint64), low.view(np.uint64)

        numbers = allocate(length, np.int32 if length < 1 << 31 else np.int64) if n < order else None
        gatherer = _Gatherer(ids, numbers, word_bits, position_bits, allocate)
        for columns in sorter(rows()):
            gatherer.add(columns)
        context, word, suffix, seen = gatherer.arrays()
        # Contexts that begin with the start symbol lie side by side, and so do their continuations.
        first = np.searchsorted(context, below.first_starting)
        last = np.searchsorted(context, below.first_starting + below.num_starting)
        found.append(Grams(context, word, suffix, seen, int(last - first), int(first)))
        if numbers is not None:
            ids = numbers
    return found


def _offsets(tokens: np.ndarray, bos_id: int, allocate: Allocate) -> np.ndarray:
    """How far each position lies behind its start symbol, at most 255, uint8 [t]."""
    offsets = allocate(len(tokens), np.uint8)
    carried = 0
    for begin in range(0, len(tokens), BLOCK):
        part = np.asarray(tokens[begin : begin + BLOCK])
        index = np.arange(len(part))
        start = np.maximum.accumulate(np.where(part == bos_id, index, -1 - carried))
        distance = index - start
        offsets[begin : begin + len(part)] = np.minimum(distance, 255)
        carried = int(distance[-1])
    return offsets


class _Gatherer:
    """Sorted rows, block by block, into n-grams and their counts."""

    def __init__(
        self, ids: np.ndarray, numbers: np.ndarray | None, word_bits: int, position_bits: int, allocate: Allocate
    ):
        self.ids, self.numbers = ids, numbers
        self.word_bits, self.position_bits = word_bits, position_bits
        length = len(ids)
        small = np.int32 if length < 1 << 31 else np.int64
        # There are at most as many n-grams as positions; what stays unused is never touched.
        self.context, self.suffix = allocate(length, small), allocate(length, small)
        self.word, self.counts = allocate(length, np.int32), allocate(length, np.int64)
        self.last: tuple[int, ...] | None = None
        self.total = 0

    def add(self, columns: Keys) -> None:
        low = columns[-1]
        if not len(low):
            return
        shift = np.uint64(self.position_bits)
        position = (low & np.uint64((1 << self.position_bits) - 1)).view(np.int64)
        grams = (*columns[:-1], low >> shift)
        new = np.empty(len(low), bool)
        np.not_equal(grams[0][1:], grams[0][:-1], out=new[1:])
        for column in grams[1:]:
            new[1:] |= column[1:] != column[:-1]
        new[0] = tuple(int(column[0]) for column in grams) != self.last
        self.last = tuple(int(column[-1]) for column in grams)
        if self.numbers is not None:
            number = np.cumsum(new)
            number += self.total - 1
            self.numbers[position] = number
        starts = np.flatnonzero(new)
        if not new[0]:  # the first rows belong to the n-gram that the block before ended with
            self.counts[self.total - 1] += int(starts[0]) if len(starts) else len(low)
        here = slice(self.total, self.total + len(starts))
        if len(grams) == 1:
            head = grams[0][starts]
            self.context[here] = head >> np.uint64(self.word_bits)
            self.word[here] = head & np.uint64((1 << self.word_bits) - 1)
        else:
            self.context[here], self.word[here] = grams[0][starts], grams[1][starts]
        # The n-gram of the order below that ends where a position ends an n-gram is its suffix.
        self.suffix[here] = self.ids[position[starts]]
        self.counts[here] = np.diff(starts, append=len(low))
        self.total += len(starts)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """context, word, suffix and counts of all n-grams."""
        return tuple(array[: self.total] for array in (self.context, self.word, self.suffix, self.counts))
