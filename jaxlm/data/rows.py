"""Row assembly: from row ids to the arrays of a batch, without a Python operation per token."""

from typing import Protocol

import numpy as np

from jaxlm.data.packing import Rows


class TokenSource(Protocol):
    """One flat stream of tokens, read by random access. ``io.token_dataset.TokenSplit`` is one."""

    @property
    def num_tokens(self) -> int: ...
    @property
    def doc_offsets(self) -> np.ndarray:
        """int64 [num_documents + 1], where each document starts, in tokens."""
        ...

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """The slices starts[i]..starts[i]+lengths[i] of the stream, int32. Safe to call from several threads."""
        ...


class MaskedSource(TokenSource, Protocol):
    """A stream of which only some tokens are learnt. ``data.conversations.ConversationSource`` is one."""

    def read_loss_mask(self, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """For the same slices as ``read``: 1 = a token to be predicted."""
        ...


class ArraySource:
    """A TokenSource over an array in memory: ``ArraySource(tokens, doc_offsets)``."""

    def __init__(self, tokens: np.ndarray, doc_offsets: np.ndarray | None = None):
        self.tokens = np.asarray(tokens, np.int32)
        self.num_tokens = len(self.tokens)
        self.doc_offsets = np.asarray([0, self.num_tokens] if doc_offsets is None else doc_offsets, np.int64)

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        ends = (starts + lengths).tolist()
        return [self.tokens[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]


def make_rows(
    split: TokenSource, rows: Rows, row_ids: np.ndarray, *, seq_len: int, packed: bool, pad_id: int
) -> dict[str, np.ndarray]:
    """The rows of these ids, as arrays [n, t]: t = ``seq_len``, at least the rows' own.

    ``tokens`` and ``targets`` (int32, the token ``rows.shift`` after), ``loss_mask`` (float32, 1 = counted), and with
    ``packed`` also ``segment_ids`` (int32, 1-based, 0 = padding) and ``positions`` (int32, from 0 in each segment). A
    row is filled from the left; past its end stand ``pad_id``, mask 0, segment 0. The id EMPTY_ROW gives a row of
    padding. Of a `MaskedSource` the targets that it does not count have mask 0 too.

    >>> split = ArraySource(np.arange(10, 17), np.array([0, 4, 7]))
    >>> batch = make_rows(split, pack_best_fit(split.doc_offsets, 6), np.array([0]), seq_len=6, packed=True, pad_id=0)
    >>> [batch[key][0].tolist() for key in ("tokens", "targets", "segment_ids", "positions")]
    [[10, 11, 12, 14, 15, 0], [11, 12, 13, 15, 16, 0], [1, 1, 1, 2, 2, 0], [0, 1, 2, 0, 1, 0]]
    """
    if seq_len < rows.seq_len:
        raise ValueError(f"seq_len={seq_len} is less than the rows' own {rows.seq_len}")
    row, start, length = rows.pieces(np.asarray(row_ids, np.int64))
    length = length.astype(np.int64)
    size = len(row_ids) * seq_len
    # Where each piece begins in the batch laid flat: after the pieces before it in its row.
    before = np.cumsum(length) - length
    first_piece = np.searchsorted(row, row)
    begins = row * seq_len + before - before[first_piece]
    segments = np.arange(len(row)) - first_piece + 1

    tokens = np.full(size, pad_id, np.int32)
    targets = np.full(size, pad_id, np.int32)
    loss_mask = np.zeros(size, np.float32)
    segment_ids = np.zeros(size, np.int32) if packed else None
    positions = np.zeros(size, np.int32) if packed else None
    count = np.arange(seq_len, dtype=np.int32)
    ends = (begins + length).tolist()
    # A few slice copies a piece are faster than one gather over all tokens, from pieces of about five tokens on.
    read = split.read(start, length + rows.shift)
    for begin, end, piece, segment in zip(begins.tolist(), ends, read, segments.tolist(), strict=True):
        tokens[begin:end] = piece[: end - begin]
        targets[begin:end] = piece[rows.shift :]
        loss_mask[begin:end] = 1
        if segment_ids is not None and positions is not None:
            segment_ids[begin:end] = segment
            positions[begin:end] = count[: end - begin]

    read_loss_mask = getattr(split, "read_loss_mask", None)
    if read_loss_mask is not None:
        for begin, end, piece in zip(begins.tolist(), ends, read_loss_mask(start + rows.shift, length), strict=True):
            loss_mask[begin:end] = piece

    batch = {"tokens": tokens, "targets": targets, "loss_mask": loss_mask}
    if segment_ids is not None and positions is not None:
        batch |= {"segment_ids": segment_ids, "positions": positions}
    return {name: array.reshape(len(row_ids), seq_len) for name, array in batch.items()}
