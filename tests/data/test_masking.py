"""Masks are a function of (seed, row id, place): shares, whole words, hosts, resume; and rows of shift 0."""

import dataclasses

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataConfig, eval_plan, make_batch, train_plan
from jaxlm.data.masking import MaskingConfig, make_masking
from jaxlm.data.packing import EMPTY_ROW, concatenate, one_a_row, pack_best_fit
from jaxlm.data.rows import ArraySource, make_rows
from jaxlm.io.tokenizers import ByteTokenizer, CharTokenizer
from jaxlm.text.tokenizer import MASK
from jaxlm.text.word_edges import word_edges

TOKENIZER = ByteTokenizer()
MASK_ID = TOKENIZER.special_tokens[MASK]
WORDS = "the quick brown fox jumps over a lazy dog, and don't 42 times "


def source(documents: int = 200) -> ArraySource:
    rng = np.random.default_rng(0)
    words = WORDS.split()
    texts = [TOKENIZER.encode(" ".join(rng.choice(words, 40)), bos=True, eos=True) for _ in range(documents)]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    return ArraySource(np.concatenate(texts), offsets)


def plan_of(split: ArraySource, *, seed: int = 3, size: int = 8, **masking):
    transform = make_masking(MaskingConfig(**masking), TOKENIZER, seed=seed)
    data = DataConfig(seq_len=64)
    return train_plan(split, data, global_batch_size=size, seed=seed, transform=transform, shift=0)


def batches(split, plan, ids):
    parts = [make_batch(split, plan, plan.row_ids(i), pad_id=TOKENIZER.pad_id) for i in ids]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_shares_are_15_percent_of_ordinary_tokens_and_80_10_10_of_these():
    split = source()
    batch = batches(split, plan_of(split), range(60))
    chosen, targets, tokens = batch["loss_mask"] > 0, batch["targets"], batch["tokens"]
    ordinary = targets < 256
    assert not chosen[~ordinary].any()
    assert np.array_equal(tokens[~chosen], targets[~chosen])

    def near(hits: np.ndarray, share: float) -> None:
        assert abs(hits.mean() - share) < 4.5 * np.sqrt(share * (1 - share) / hits.size), (hits.mean(), share)

    near(chosen[ordinary], 0.15)
    masked, kept = tokens[chosen] == MASK_ID, tokens[chosen] == targets[chosen]
    near(masked, 0.8)
    near(kept, 0.1 + 0.1 / 256)  # a random token may be the token itself
    drawn = tokens[chosen][~masked & ~kept]
    assert (drawn < 256).all()
    assert len(np.unique(drawn)) > 200


def test_a_part_of_a_batch_has_the_masks_of_the_whole():
    """Any split over hosts, and any batch as the first after a resume."""
    split = source(50)
    plan = plan_of(split)
    for batch_id in (0, 7, 10**6):
        ids = plan.row_ids(batch_id)
        whole = make_batch(split, plan, ids, pad_id=0)
        for ways in (2, 4):
            for host in range(ways):
                part = make_batch(split, plan, ids[host::ways], pad_id=0)
                for name, array in part.items():
                    assert np.array_equal(array, whole[name][host::ways]), name


def test_masks_change_with_epoch_and_seed_alone():
    split = source(20)
    plan = plan_of(split)
    rows = plan.rows.num_rows
    first, again = (make_batch(split, plan, np.arange(rows) + shift, pad_id=0) for shift in (0, rows))
    assert np.array_equal(first["targets"], again["targets"])
    both = (first["loss_mask"] > 0) & (again["loss_mask"] > 0)
    assert both.sum() < 0.3 * first["loss_mask"].sum()  # unrelated: 15 % in common
    other = make_batch(split, plan_of(split, seed=4), np.arange(rows), pad_id=0)
    assert not np.array_equal(first["loss_mask"], other["loss_mask"])
    one, two = (
        eval_plan(
            split,
            DataConfig(seq_len=64),
            batch_size=4,
            transform=make_masking(MaskingConfig(), TOKENIZER, seed=seed, evaluation=True),
            shift=0,
        )
        for seed in (0, 5)
    )
    a, b = (make_batch(split, plan, plan.row_ids(1), pad_id=0) for plan in (one, two))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_whole_words_are_chosen_whole():
    split = source(50)
    batch = batches(split, plan_of(split, whole_words=True), range(10))
    found = {True: 0, False: 0}
    for targets, chosen, segments in zip(batch["targets"], batch["loss_mask"] > 0, batch["segment_ids"], strict=True):
        letters = np.array([chr(t).isalnum() if t < 256 else False for t in targets.tolist()])
        edges = np.flatnonzero((np.diff(letters) != 0) | (np.diff(segments) != 0)) + 1
        for run in np.split(np.arange(len(targets)), edges):
            if letters[run[0]]:
                assert chosen[run].all() or not chosen[run].any()
                found[bool(chosen[run[0]])] += 1
    assert 0.1 < found[True] / sum(found.values()) < 0.2


def test_word_edges_of_bytes():
    edges = word_edges(TOKENIZER)
    a, space, lead, tail = ord("a"), ord(" "), 0xE4, 0xBA
    assert not edges.begins_v[a]
    assert edges.ends_v[space]
    assert edges.begins_v[lead]  # Han: each character stands alone
    assert not edges.begins_v[tail]
    assert edges.begins_v[TOKENIZER.eos_id]
    assert edges.ends_v[TOKENIZER.eos_id]


@pytest.mark.parametrize("shape", [pack_best_fit, one_a_row])
def test_rows_of_shift_0_hold_every_token_once_as_its_own_target(shape, rng):
    lengths = rng.integers(1, 40, 30)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    split = ArraySource(np.arange(100, 100 + offsets[-1]), offsets)
    rows = shape(offsets, 16, shift=0)
    batch = make_rows(split, rows, np.arange(rows.num_rows), seq_len=16, packed=rows.segmented, pad_id=0)
    real = batch["segment_ids"] > 0
    assert np.array_equal(np.sort(batch["tokens"][real]), split.tokens)
    assert np.array_equal(batch["tokens"], batch["targets"])
    assert rows.num_predictions == split.num_tokens == int(batch["loss_mask"].sum())


def test_windows_of_shift_0_hold_every_token_and_say_what_is_padding():
    split = ArraySource(np.arange(100, 111))
    rows = concatenate(11, 4, offset_seed=1, shift=0)
    batch = make_rows(split, rows, np.arange(rows.num_rows), seq_len=4, packed=rows.segmented, pad_id=0)
    assert np.array_equal(np.sort(batch["tokens"][batch["segment_ids"] > 0]), split.tokens)


def test_padding_rows_stay_empty_and_refusals():
    split = source(5)
    plan = plan_of(split)
    batch = make_batch(split, plan, np.array([EMPTY_ROW, 0]), pad_id=TOKENIZER.pad_id)
    assert not batch["loss_mask"][0].any()
    assert batch["loss_mask"][1].any()
    with pytest.raises(UserError, match="char tokenizer has no <mask>"):
        make_masking(MaskingConfig(), CharTokenizer("abc"), seed=0)
    for change in ({"rate": 0.0}, {"mask_share": 1.2}, {"random_share": 0.3}):
        with pytest.raises(ValueError, match=r"masking\."):
            dataclasses.replace(MaskingConfig(), **change)
