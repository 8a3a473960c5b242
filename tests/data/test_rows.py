"""Rows hold what the index map says: inputs, targets one further, segments, positions, padding."""

import numpy as np
import pytest

from jaxlm.data.packing import EMPTY_ROW, concatenate, pack_best_fit
from jaxlm.data.rows import ArraySource, make_rows


def source_of(lengths: list[int]) -> ArraySource:
    """Documents whose tokens are all different, so that a token tells its place."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return ArraySource(np.arange(100, 100 + offsets[-1]), offsets)


def test_the_docstring_example() -> None:
    split = source_of([4, 3])
    batch = make_rows(split, pack_best_fit(split.doc_offsets, 6), np.array([0]), seq_len=6, packed=True, pad_id=0)
    assert {name: array.tolist() for name, array in batch.items()} == {
        "tokens": [[100, 101, 102, 104, 105, 0]],
        "targets": [[101, 102, 103, 105, 106, 0]],
        "loss_mask": [[1, 1, 1, 1, 1, 0]],
        "segment_ids": [[1, 1, 1, 2, 2, 0]],
        "positions": [[0, 1, 2, 0, 1, 0]],
    }


@pytest.mark.parametrize("seq_len", [1, 7, 64])
def test_rows_say_the_same_as_a_loop_over_tokens(seq_len: int, rng: np.random.Generator) -> None:
    split = source_of(rng.integers(0, 90, 60).tolist())
    rows = pack_best_fit(split.doc_offsets, seq_len)
    ids = np.array([EMPTY_ROW, *rng.permutation(rows.num_rows)[:20], EMPTY_ROW, 0])
    batch = make_rows(split, rows, ids, seq_len=seq_len, packed=True, pad_id=9)
    for i, row_id in enumerate(ids.tolist()):
        expected = []
        if row_id != EMPTY_ROW:
            for segment in range(rows.row_offsets[row_id], rows.row_offsets[row_id + 1]):
                start, number = rows.piece_start[segment], segment - rows.row_offsets[row_id] + 1
                for position in range(rows.piece_length[segment]):
                    token = 100 + start + position
                    expected.append((token, token + 1, 1, number, position))
        expected += [(9, 9, 0, 0, 0)] * (seq_len - len(expected))
        names = ("tokens", "targets", "loss_mask", "segment_ids", "positions")
        got = list(zip(*(batch[name][i].tolist() for name in names), strict=True))
        assert got == expected


def test_windows_need_no_segments_and_cross_the_seam() -> None:
    split = source_of([10])
    rows = concatenate(10, 4, offset=3)
    batch = make_rows(split, rows, np.arange(rows.num_rows), seq_len=4, packed=False, pad_id=0)
    assert set(batch) == {"tokens", "targets", "loss_mask"}
    assert batch["tokens"].tolist() == [[103, 104, 105, 106], [107, 108, 100, 101], [102, 0, 0, 0]]
    assert batch["targets"].tolist() == [[104, 105, 106, 107], [108, 109, 101, 102], [103, 0, 0, 0]]
    assert batch["loss_mask"].sum() == 9


def test_dtypes_shapes_and_wider_rows() -> None:
    split = source_of([5, 9])
    batch = make_rows(split, pack_best_fit(split.doc_offsets, 4), np.array([0, 1]), seq_len=8, packed=True, pad_id=0)
    assert {array.shape for array in batch.values()} == {(2, 8)}
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "tokens": "int32",
        "targets": "int32",
        "loss_mask": "float32",
        "segment_ids": "int32",
        "positions": "int32",
    }
    with pytest.raises(ValueError, match="seq_len=2 is less than the rows' own 4"):
        make_rows(split, pack_best_fit(split.doc_offsets, 4), np.array([0]), seq_len=2, packed=True, pad_id=0)
