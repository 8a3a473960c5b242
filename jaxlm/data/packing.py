"""Which tokens stand in which row: documents packed by best fit, one to a row, or windows over the plain stream.

All cut the flat token stream of a split into pieces of p predictions: a piece reads the p + 1 tokens start..start+p
and gives p inputs and p targets. Neighbouring pieces of a document share one token, so every target is counted exactly
once. For masked models (``shift`` 0) a piece is p tokens, each its own target, and neighbours share none.
Rows are counted on without end: row id e * num_rows + i is row i of epoch e, so an id alone says what to read.
"""

import bisect
import dataclasses
from typing import NamedTuple, Protocol

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose
from jaxlm.data.permutation import mix_key

EMPTY_ROW = -1
"""The row id of a row without predictions: it fills the last batch of a pass."""


class Pieces(NamedTuple):
    """What a batch of rows is made of, in the order of rows and of places in a row. All [num_pieces]."""

    row: np.ndarray
    """Which of the rows asked for (an index into ``row_ids``, not a row id)."""
    start: np.ndarray
    """First token in the flat stream of the split, int64."""
    length: np.ndarray
    """Number of predictions; length + shift tokens are read."""


class Rows(Protocol):
    """An index map from row ids to pieces."""

    @property
    def seq_len(self) -> int: ...
    @property
    def num_rows(self) -> int:
        """Rows in one epoch."""
        ...

    @property
    def num_predictions(self) -> int:
        """Targets in one epoch, each counted once."""
        ...

    @property
    def utilisation(self) -> float:
        """The share of positions in all rows that carry a prediction; the rest is padding."""
        ...

    @property
    def segmented(self) -> bool:
        """Whether the pieces of a row are kept apart by segment ids."""
        ...

    @property
    def streamed(self) -> bool:
        """Whether a row goes on where the same row of the batch before ended."""
        ...

    @property
    def shift(self) -> int:
        """How far targets lie after their inputs: 1 = the next token, 0 = the token itself (masked models)."""
        ...

    def pieces(self, row_ids: np.ndarray) -> Pieces: ...


@dataclasses.dataclass(frozen=True, eq=False)
class PackedRows:
    """Rows of whole documents or pieces of them, the same in every epoch. About 12 bytes a piece and 8 a row."""

    seq_len: int
    piece_start: np.ndarray
    """int64 [num_pieces]"""
    piece_length: np.ndarray
    """int32 [num_pieces], predictions"""
    row_offsets: np.ndarray
    """int64 [num_rows + 1]: row i is made of the pieces row_offsets[i]..row_offsets[i + 1]."""
    num_predictions: int
    segmented: bool = True
    streamed: bool = False
    shift: int = 1

    @property
    def num_rows(self) -> int:
        return len(self.row_offsets) - 1

    @property
    def utilisation(self) -> float:
        return self.num_predictions / (self.num_rows * self.seq_len)

    def pieces(self, row_ids: np.ndarray) -> Pieces:
        places = np.flatnonzero(row_ids >= 0)
        rows = row_ids[places] % self.num_rows
        first = self.row_offsets[rows]
        count = self.row_offsets[rows + 1] - first
        ends = np.cumsum(count)
        piece = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - count), count)
        return Pieces(np.repeat(places, count), self.piece_start[piece], self.piece_length[piece])


@dataclasses.dataclass(frozen=True)
class WindowRows:
    """Windows of ``seq_len`` predictions over the stream of documents laid end to end. Takes no memory.

    Row i of epoch e covers the predictions [i T, min((i+1) T, N)) of the stream turned round by o_e places, where the
    N = num_tokens - 1 predictions close to a ring. ``offset_seed`` draws o_e below T for each epoch, so that windows
    are not cut at the same places twice; None keeps it at ``offset``. One row at most lies across the seam, as two
    pieces.
    """

    num_tokens: int
    seq_len: int
    offset: int = 0
    offset_seed: int | None = None
    segmented: bool = False
    streamed: bool = False
    shift: int = 1

    @property
    def num_predictions(self) -> int:
        return self.num_tokens - self.shift

    @property
    def num_rows(self) -> int:
        return -(-self.num_predictions // self.seq_len)

    @property
    def utilisation(self) -> float:
        return self.num_predictions / (self.num_rows * self.seq_len)

    def offset_of(self, epoch: int) -> int:
        """The number of places by which the stream is turned in this epoch, in [0, seq_len)."""
        if self.offset_seed is None:
            return self.offset
        # The epoch's order has key (seed, SHUFFLE, epoch); one more part makes this an unrelated draw.
        return mix_key(self.offset_seed, int(Purpose.SHUFFLE), epoch, 1) % self.seq_len

    def pieces(self, row_ids: np.ndarray) -> Pieces:
        total = self.num_predictions
        place = np.flatnonzero(row_ids >= 0)
        epoch, row = np.divmod(row_ids[place], self.num_rows)
        begin = row * self.seq_len
        length = np.minimum(self.seq_len, total - begin)
        offset = np.zeros(len(epoch), np.int64)
        for e in set(epoch.tolist()):
            offset[epoch == e] = self.offset_of(e)
        start = (begin + offset) % total
        over = start + length - total
        if not (over > 0).any():
            return Pieces(place, start, length)
        # The row across the seam: its second piece starts the stream again.
        at = np.flatnonzero(over > 0)
        head = length.copy()
        head[at] -= over[at]
        return Pieces(
            np.insert(place, at + 1, place[at]), np.insert(start, at + 1, 0), np.insert(head, at + 1, over[at])
        )


def concatenate(
    num_tokens: int, seq_len: int, offset: int = 0, *, offset_seed: int | None = None, shift: int = 1
) -> WindowRows:
    """Plain concatenation: the stream cut into windows, the last, shorter one kept.

    With ``shift`` 0 rows have segments, since a model that looks ahead must be told what is padding.

    Raises:
      UserError: fewer than two tokens, so there is nothing to predict.
    """
    _check_seq_len(seq_len)
    if num_tokens < 2:
        raise UserError(f"num_tokens={num_tokens}: there is nothing to predict in fewer than two tokens, add text")
    return WindowRows(num_tokens, seq_len, offset % (num_tokens - shift), offset_seed, not shift, shift=shift)


def pack_best_fit(doc_offsets: np.ndarray, seq_len: int, *, shift: int = 1) -> PackedRows:
    """Best-fit decreasing: each piece goes, longest first, into the fullest row that still has room for it.

    A document of n tokens has n - shift predictions. It is cut into pieces of ``seq_len``, each a row of its own, and a
    rest; only the rests are fitted (Ding et al. 2024, "Fewer truncations improve language modeling"). Rests of one
    length and rows of one room are moved together, so the Python operations number far fewer than the documents. Rows
    stand in the order of the first document that they hold.

    Args:
      doc_offsets: int64 [num_documents + 1], where each document starts in the flat stream, in tokens.
      seq_len: predictions a row.
      shift: 1 = each token predicts the next; 0 = itself, so that a document's last token stands in a row too.

    Raises:
      UserError: no document has two tokens, so there is nothing to predict.
    """
    start, length, num_full = _cut(doc_offsets, seq_len, shift)
    rest_length = length[num_full:]
    order = np.argsort(-rest_length, kind="stable")
    bins = np.empty(len(order), np.int64)
    bins[order] = _best_fit_decreasing(rest_length[order], seq_len)

    row = np.concatenate([np.arange(num_full), bins + num_full])
    return _in_order(start, length, row, seq_len, shift)


def one_a_row(doc_offsets: np.ndarray, seq_len: int, *, shift: int = 1) -> PackedRows:
    """No packing: the pieces of `pack_best_fit`, each in a row of its own, padded. No row needs segments then, unless
    its model looks ahead (``shift`` 0) and must be told what is padding.

    Raises:
      UserError: no document has two tokens, so there is nothing to predict.
    """
    start, length, _ = _cut(doc_offsets, seq_len, shift)
    rows = _in_order(start, length, np.arange(len(start)), seq_len, shift)
    return dataclasses.replace(rows, segmented=not shift)


def _cut(doc_offsets: np.ndarray, seq_len: int, shift: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(start, int64; length, int32; how many of them are full) of the pieces: the full ones first, then the rests."""
    _check_seq_len(seq_len)
    offsets = np.asarray(doc_offsets, np.int64)
    predictions = np.maximum(np.diff(offsets) - shift, 0)
    full, rest = np.divmod(predictions, seq_len)
    if not predictions.any():
        raise UserError(f"none of {len(predictions)} documents has two tokens: there is nothing to predict, add text")
    full_doc = np.repeat(np.arange(len(full)), full)
    within = np.arange(len(full_doc)) - np.repeat(np.cumsum(full) - full, full)
    full_start = offsets[full_doc] + within * seq_len
    rest_doc = np.flatnonzero(rest)
    rest_start = offsets[rest_doc] + full[rest_doc] * seq_len
    start = np.concatenate([full_start, rest_start])
    length = np.concatenate([np.full(len(full_start), seq_len, np.int32), rest[rest_doc].astype(np.int32)])
    return start, length, len(full_start)


def _in_order(start: np.ndarray, length: np.ndarray, row: np.ndarray, seq_len: int, shift: int) -> PackedRows:
    """Number the rows by the first token that they hold, and lay out their pieces in the order of the stream."""
    order = np.lexsort((start, row))
    count = np.bincount(row)
    first = np.cumsum(count) - count
    rank = np.empty(len(count), np.int64)
    rank[np.argsort(start[order][first], kind="stable")] = np.arange(len(count))
    order = np.lexsort((start, rank[row]))
    row_offsets = np.zeros(len(count) + 1, np.int64)
    np.cumsum(np.bincount(rank[row]), out=row_offsets[1:])
    num_predictions = int(length.sum(dtype=np.int64))
    return PackedRows(seq_len, start[order], length[order], row_offsets, num_predictions, shift=shift)


def _best_fit_decreasing(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The bin of each item, int64 [n]. ``lengths`` fall, and lie in [1, capacity).

    All items of one length are placed together. A bin of room r takes r // length of them before another does: each
    one makes it the fullest that fits. So one NumPy assignment fills a whole group of bins of equal room.
    """
    bin_of = np.empty(len(lengths), np.int64)
    groups: dict[int, list[np.ndarray]] = {}  # Room left -> bins, as chunks; never an empty list.
    rooms: list[int] = []  # The keys of ``groups``, sorted.
    num_bins = 0

    def put(room: int, chunk: np.ndarray) -> None:
        if len(chunk) and room:
            if room not in groups:
                groups[room] = []
                bisect.insort(rooms, room)
            groups[room].append(chunk)

    def fill(bins: np.ndarray, room: int, length: int, begin: int, end: int) -> int:
        """Place items begin..end into ``bins``, as many as go; the place of the first item left over."""
        each = room // length
        used = min(len(bins), -(-(end - begin) // each))
        placed = min(used * each, end - begin)
        bin_of[begin : begin + placed] = np.repeat(bins[:used], each)[:placed]
        in_last = placed - (used - 1) * each
        put(room - each * length, bins[: used - 1])
        put(room - in_last * length, bins[used - 1 : used])
        put(room, bins[used:])
        return begin + placed

    values, counts = np.unique(-lengths, return_counts=True)  # Negated: longest first.
    begin = 0
    for length, count in zip((-values).tolist(), counts.tolist(), strict=True):
        end = begin + count
        while begin < end:
            # A group taken comes back with too little room, unless the items ran out: this loop ends.
            at = bisect.bisect_left(rooms, length)
            if at < len(rooms):
                room = rooms.pop(at)
                chunks = groups.pop(room)
                bins = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
            else:
                room = capacity
                needed = -(-(end - begin) // (capacity // length))
                bins = np.arange(num_bins, num_bins + needed)
                num_bins += needed
            begin = fill(bins, room, length, begin, end)
    return bin_of


def _check_seq_len(seq_len: int) -> None:
    if seq_len < 1:
        raise UserError(f"seq_len={seq_len} must be at least 1")
