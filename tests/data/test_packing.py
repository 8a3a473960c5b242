"""Every target is counted exactly once, no row overflows, and best fit is what the plain algorithm gives."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.core.errors import UserError
from jaxlm.data.packing import EMPTY_ROW, Rows, concatenate, pack_best_fit

doc_lengths = st.lists(st.integers(0, 60), min_size=1, max_size=60).filter(lambda lengths: max(lengths) >= 2)


def offsets_of(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def targets_of(rows: Rows, row_ids: np.ndarray) -> np.ndarray:
    """The places in the stream of all targets of these rows, sorted."""
    _, start, length = rows.pieces(row_ids)
    spans = zip(start.tolist(), length.tolist(), strict=True)
    return np.sort(np.concatenate([np.arange(begin + 1, begin + size + 1) for begin, size in spans]))


@settings(max_examples=60, deadline=None)
@given(lengths=doc_lengths, seq_len=st.integers(1, 40))
def test_best_fit_counts_every_target_once(lengths: list[int], seq_len: int) -> None:
    offsets = offsets_of(lengths)
    rows = pack_best_fit(offsets, seq_len)
    everything = np.arange(rows.num_rows)
    inside = [np.arange(begin + 1, end) for begin, end in itertools.pairwise(offsets)]
    assert np.array_equal(targets_of(rows, everything), np.concatenate(inside))

    row, start, length = rows.pieces(everything)
    assert np.bincount(row, weights=length, minlength=rows.num_rows).max() <= seq_len
    assert length.min() >= 1
    document = np.searchsorted(offsets, start, side="right") - 1
    assert (start + length < offsets[document + 1]).all()  # No piece leaves its document.
    assert rows.num_predictions == length.sum()
    assert rows.utilisation == pytest.approx(length.sum() / (rows.num_rows * seq_len))


@settings(max_examples=60, deadline=None)
@given(lengths=doc_lengths, seq_len=st.integers(2, 40))
def test_best_fit_needs_as_many_rows_as_the_plain_algorithm(lengths: list[int], seq_len: int) -> None:
    rests = [(n - 1) % seq_len for n in lengths if n > 1 and (n - 1) % seq_len]
    rooms: list[int] = []
    for size in sorted(rests, reverse=True):
        fitting = [i for i, room in enumerate(rooms) if room >= size]
        best = min(fitting, key=lambda i: rooms[i], default=None)
        if best is None:
            rooms.append(seq_len - size)
        else:
            rooms[best] -= size
    full = sum(max(n - 1, 0) // seq_len for n in lengths)

    rows = pack_best_fit(offsets_of(lengths), seq_len)
    row, _, length = rows.pieces(np.arange(rows.num_rows))
    left = seq_len - np.bincount(row, weights=length, minlength=rows.num_rows)
    assert sorted(left.tolist()) == sorted(rooms + [0] * full)


def test_best_fit_keeps_the_order_of_the_corpus(rng: np.random.Generator) -> None:
    rows = pack_best_fit(offsets_of(rng.integers(2, 400, 500).tolist()), 64)
    row, start, _ = rows.pieces(np.arange(rows.num_rows))
    first = start[np.searchsorted(row, np.arange(rows.num_rows))]
    assert (np.diff(first) > 0).all()  # Rows by their first document.
    assert (np.diff(start)[np.diff(row) == 0] > 0).all()  # Documents within a row, too.


def test_best_fit_fills_rows_of_real_looking_documents(rng: np.random.Generator) -> None:
    lengths = np.maximum(rng.lognormal(4, 1.2, 20_000), 2).astype(int)
    rows = pack_best_fit(offsets_of(lengths.tolist()), 256)
    assert rows.utilisation > 0.999
    again = pack_best_fit(offsets_of(lengths.tolist()), 256)
    assert np.array_equal(rows.piece_start, again.piece_start)
    assert rows.piece_length.dtype == np.int32


@settings(max_examples=80, deadline=None)
@given(num_tokens=st.integers(2, 300), seq_len=st.integers(1, 60), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_windows_count_every_target_once_in_every_epoch(num_tokens: int, seq_len: int, seed: int, epoch: int) -> None:
    for rows in (
        concatenate(num_tokens, seq_len, offset=seed * 17),
        concatenate(num_tokens, seq_len, offset_seed=seed),
    ):
        everything = epoch * rows.num_rows + np.arange(rows.num_rows)
        assert np.array_equal(targets_of(rows, everything), np.arange(1, num_tokens))
        row, _, length = rows.pieces(everything)
        filled = np.bincount(row, weights=length)
        assert (filled[:-1] == seq_len).all()
        assert filled[-1] == (num_tokens - 2) % seq_len + 1
        assert np.bincount(row).max() <= 2


def test_windows_are_cut_elsewhere_in_each_epoch_if_asked() -> None:
    moving, still = concatenate(10_000, 64, offset_seed=1), concatenate(10_000, 64)
    assert len({moving.offset_of(epoch) for epoch in range(50)}) > 20
    assert {still.offset_of(epoch) for epoch in range(50)} == {0}
    _, start, length = still.pieces(np.arange(still.num_rows))
    assert np.array_equal(start, np.arange(0, 9_999, 64))
    assert length[-1] == 9_999 % 64


def test_any_ids_in_any_order_across_epochs() -> None:
    for rows in (concatenate(1000, 64, offset_seed=3), pack_best_fit(offsets_of([70, 3, 200, 9, 31]), 64)):
        ids = np.array([5 * rows.num_rows, EMPTY_ROW, 2, 2, rows.num_rows - 1, EMPTY_ROW])
        together = rows.pieces(ids)
        assert (np.diff(together.row) >= 0).all()
        assert not np.isin(together.row, [1, 5]).any()
        for i, row_id in enumerate(ids.tolist()):
            alone = rows.pieces(np.array([row_id]))
            here = together.row == i
            assert np.array_equal(together.start[here], alone.start)
            assert np.array_equal(together.length[here], alone.length)
        assert len(rows.pieces(np.array([EMPTY_ROW])).row) == 0


def test_refuses_nothing_to_predict() -> None:
    with pytest.raises(UserError, match="none of 3 documents has two tokens"):
        pack_best_fit(np.array([0, 1, 2, 3]), 8)
    with pytest.raises(UserError, match="num_tokens=1"):
        concatenate(1, 8)
    with pytest.raises(UserError, match="seq_len=0"):
        concatenate(10, 0)
