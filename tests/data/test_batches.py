"""batch = f(seed, batch id): every epoch whole, any batch at once, skips, ends, state."""

import itertools
import json
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.core.errors import UserError
from jaxlm.data.batches import BatchPlan, DataConfig, DataState, eval_batches, eval_plan, next_batch_id, train_plan
from jaxlm.data.packing import EMPTY_ROW, concatenate
from jaxlm.data.ramp import check_ramp
from jaxlm.data.rows import ArraySource

Packing = Literal["best_fit", "concat", "none"]
packings = pytest.mark.parametrize("packing", ["best_fit", "concat", "none"])


@pytest.fixture
def split(rng: np.random.Generator) -> ArraySource:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 60, 80))])
    return ArraySource(np.arange(offsets[-1]), offsets)


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(1, 40),
    size=st.integers(1, 50),
    seed=st.integers(0, 99),
    epochs=st.integers(1, 4),
    mix=st.booleans(),
)
def test_each_epoch_holds_every_row_once(num_rows: int, size: int, seed: int, epochs: int, mix: bool) -> None:
    plan = BatchPlan(concatenate(num_rows * 8 + 1, 8), size, seed, mix, epochs)
    assert plan.num_batches == -(-num_rows * epochs // size)
    batches = [plan.row_ids(i) for i in range(plan.num_batches or 0)]
    assert {len(ids) for ids in batches} == {size}
    stream = np.concatenate(batches)
    ids, rest = stream[: num_rows * epochs], stream[num_rows * epochs :]
    assert (rest == EMPTY_ROW).all()
    for epoch, part in enumerate(ids.reshape(epochs, num_rows)):
        assert np.array_equal(np.sort(part), epoch * num_rows + np.arange(num_rows))
        if not mix:
            assert (np.diff(part) == 1).all()


def test_a_batch_depends_on_seed_and_id_alone(split: ArraySource) -> None:
    def plan(seed: int, size: int = 12) -> BatchPlan:
        return train_plan(split, DataConfig(seq_len=16), global_batch_size=size, seed=seed)

    assert np.array_equal(plan(1).row_ids(1_000_000), plan(1).row_ids(1_000_000))
    assert not np.array_equal(plan(1).row_ids(5), plan(2).row_ids(5))
    # The stream of rows is the same however it is cut: two half batches are one whole.
    halves = np.concatenate([plan(1, 6).row_ids(14), plan(1, 6).row_ids(15)])
    assert np.array_equal(plan(1).row_ids(7), halves)


@settings(max_examples=60, deadline=None)
@given(
    base=st.integers(1, 9),
    changes=st.dictionaries(st.integers(1, 20), st.integers(1, 30), max_size=3),
    num_rows=st.integers(1, 40),
    epochs=st.integers(1, 4),
)
def test_batches_that_grow_are_the_same_stream_cut_otherwise(base, changes, num_rows, epochs) -> None:
    rows, ramp = concatenate(num_rows * 8 + 1, 8), tuple(sorted(changes.items()))
    plan, ones = BatchPlan(rows, base, 3, True, epochs, changes=ramp), BatchPlan(rows, 1, 3, True, epochs)
    batches = [plan.row_ids(i) for i in range(plan.num_batches or 0)]
    sizes = [max((at, size) for at, size in ((0, base), *ramp) if at <= i)[1] for i in range(len(batches))]
    assert [len(ids) for ids in batches] == sizes
    stream = np.concatenate(batches)
    count = ones.num_batches or 0
    assert len(stream) - sizes[-1] < count <= len(stream)
    assert np.array_equal(stream[:count], np.concatenate([ones.row_ids(i) for i in range(count)]))
    assert (stream[count:] == EMPTY_ROW).all()


@pytest.mark.parametrize(
    ("ramp", "words"),
    [
        (((0, 8),), "batch 0 after batch 0"),
        (((5, 8), (5, 16)), "batch 5 after batch 5"),
        (((5, 6),), "6 rows from batch 5 on, no multiple of the microbatch of 4"),
        (((5, 0),), "0 rows"),
    ],
)
def test_ramps_that_cannot_be_are_refused(ramp: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_ramp(ramp, microbatch_size=4)


def test_seeking_far_asks_for_that_batch_alone() -> None:
    plan = BatchPlan(concatenate(10**15, 1024, offset_seed=0), 4096, seed=3)
    ids = plan.row_ids(10**9)
    assert ids.shape == (4096,)
    assert len(np.unique(ids)) == 4096
    _, start, length = plan.rows.pieces(ids)
    assert start.max() + length.max() < 10**15


def test_epochs_are_shuffled_anew(split: ArraySource) -> None:
    plan = train_plan(split, DataConfig(seq_len=16), global_batch_size=1, seed=0)
    rows = plan.rows.num_rows
    first, second = (np.array([plan.row_ids(e * rows + i)[0] % rows for i in range(rows)]) for e in (0, 1))
    assert np.array_equal(np.sort(first), np.sort(second))
    assert (first == second).sum() < rows / 4


def test_batches_outside_the_plan_are_refused(split: ArraySource) -> None:
    plan = train_plan(split, DataConfig(seq_len=16, num_epochs=2), global_batch_size=12, seed=0)
    assert plan.num_batches is not None
    for batch_id in (-1, plan.num_batches):
        with pytest.raises(IndexError, match=f"batch_id={batch_id}"):
            plan.row_ids(batch_id)


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 30), skipped=st.sets(st.integers(0, 30)))
def test_next_batch_id_is_the_first_not_skipped(start: int, skipped: set[int]) -> None:
    expected = next(i for i in range(start, 100) if i not in skipped)
    assert next_batch_id(start, tuple(sorted(skipped))) == expected


def test_state_survives_json() -> None:
    state = DataState().after(4).skip([9, 7]).skip(range(8, 10))
    assert state == DataState(5, (7, 8, 9))
    assert DataState.from_json(json.loads(json.dumps(state.to_json()))) == state
    for bad in (
        {},
        {"cursor": 1},
        {"cursor": -1, "skipped": []},
        {"cursor": 1.0, "skipped": []},
        {"cursor": 1, "skipped": ["a"]},
    ):
        with pytest.raises(ValueError, match="data state"):
            DataState.from_json(bad)


@packings
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_evaluation_counts_each_target_once(split: ArraySource, packing: Packing, batch_size: int) -> None:
    config = DataConfig(seq_len=16, packing=packing, shuffle=True, num_epochs=5)
    batches = list(eval_batches(split, config, batch_size=batch_size, pad_id=0))
    assert {batch["tokens"].shape for batch in batches} == {(batch_size, 16)}
    counted = np.concatenate([batch["targets"][batch["loss_mask"] == 1] for batch in batches])
    inside = [np.arange(a + 1, b) for a, b in itertools.pairwise(split.doc_offsets)]
    expected = np.concatenate(inside) if packing != "concat" else np.arange(1, split.num_tokens)
    assert np.array_equal(np.sort(counted), expected)
    if packing == "concat":
        assert np.array_equal(counted, expected)  # Non-overlapping windows in the order of the text.


@packings
def test_a_training_epoch_counts_each_target_once(split: ArraySource, packing: Packing) -> None:
    plan = train_plan(split, DataConfig(seq_len=16, packing=packing), global_batch_size=1, seed=4)
    for epoch in (0, 3):
        ids = np.concatenate([plan.row_ids(epoch * plan.rows.num_rows + i) for i in range(plan.rows.num_rows)])
        _, start, length = plan.rows.pieces(ids)
        spans = zip(start.tolist(), length.tolist(), strict=True)
        targets = np.concatenate([np.arange(begin + 1, begin + size + 1) for begin, size in spans])
        assert len(targets) == len(np.unique(targets)) == plan.rows.num_predictions


def test_too_little_text_is_named_with_its_mend() -> None:
    config = DataConfig(seq_len=256)
    with pytest.raises(UserError) as caught:
        train_plan(ArraySource(np.arange(12)), config, global_batch_size=4, seed=0, name="notes")
    assert str(caught.value) == (
        "num_tokens=12 in corpus 'notes' is less than one sequence of 256: lower data.seq_len or add text"
    )
    # A short validation split is one row; a batch may be larger than all rows.
    plan = eval_plan(ArraySource(np.arange(12)), config, batch_size=8)
    assert (plan.num_batches, plan.rows.num_rows, plan.rows.num_predictions) == (1, 1, 11)
    for tokens, offsets, why in (
        (np.zeros(0), np.array([0]), r"none is held out \(corpus.validation_fraction=0\)"),
        (np.arange(3), np.arange(4), "no document has two tokens, add text"),
    ):
        with pytest.raises(UserError, match=f"corpus 'validation' leave nothing to predict: {why}"):
            eval_plan(ArraySource(tokens, offsets), config, batch_size=8)
    with pytest.raises(UserError, match="leave nothing to predict"):
        train_plan(ArraySource(np.arange(300), np.arange(301)), config, global_batch_size=4, seed=0)


def test_a_config_is_checked_at_birth() -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"seq_len": 0}, "seq_len=0"),
        ({"packing": "firstfit"}, "packing='firstfit'"),
        ({"num_epochs": 0}, "num_epochs=0"),
        ({"read_threads": -1}, "read_threads=-1"),
        ({"read_threads": 8, "prefetch": 4}, "prefetch=4"),
    )
    for fields, message in cases:
        with pytest.raises(ValueError, match=message):
            DataConfig(**fields)
    with pytest.raises(ValueError, match="global_batch_size=0"):
        BatchPlan(concatenate(10, 2), 0)
