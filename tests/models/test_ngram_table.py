"""Hash tables laid out in closed form: everything put in is found, nothing else."""

import numpy as np
import pytest

from jaxlm.models.ngram_table import bucket_of, is_wide, make_rows, pack, payload_of, search


def random_keys(rng, size, columns):
    keys = np.unique(rng.integers(0, 1 << 40, size).astype(np.uint64))
    if columns == 1:
        return (keys,)
    return keys % np.uint64(97) << np.uint64(50), keys  # many keys share a first column


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("size", [0, 1, 2, 100, 20_000])
def test_what_is_put_in_is_found(rng, columns, size):
    keys = random_keys(rng, size, columns)
    payload = np.arange(len(keys[0]), dtype=np.uint64)
    rows, slots = make_rows(keys, payload)
    order = rng.permutation(len(payload))
    at, found, values = search(rows, tuple(column[order] for column in keys))
    assert found.all()
    np.testing.assert_array_equal(at, slots[order])
    np.testing.assert_array_equal(values, payload[order])
    absent = (*keys[:-1], keys[-1] + np.uint64(1 << 41))
    assert not search(rows, absent)[1].any()


def test_slots_are_those_of_linear_probing(rng):
    """The closed form against probing one key after another, in the order of the buckets."""
    keys = random_keys(rng, 500, 1)[0]
    rows, slots = make_rows((keys,), keys)
    buckets = bucket_of((keys,), 800)
    taken = set()
    for i in np.lexsort((np.arange(len(keys)), buckets)).tolist():
        slot = int(buckets[i])
        while slot in taken:
            slot += 1
        taken.add(slot)
        assert slots[i] == slot
    assert max(taken) < len(rows) - 1


def test_the_layout_of_too_many_keys_for_one_number(rng, monkeypatch):
    keys = random_keys(rng, 3000, 1)
    rows, slots = make_rows(keys, keys[0])
    monkeypatch.setattr("jaxlm.models.ngram_table.PACKED_BITS", 0)
    for a, b in zip(make_rows(keys, keys[0]), (rows, slots), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_colliding_bucket_is_a_walk():
    keys = np.arange(1 << 14, dtype=np.uint64)
    crowded = keys[bucket_of((keys,), 64) == 5]
    rows, _ = make_rows((crowded,), crowded)
    _, found, values = search(rows, (crowded,))
    assert found.all()
    np.testing.assert_array_equal(values, crowded)


def test_buckets_beyond_32_bits():
    keys = np.arange(1000, dtype=np.uint64)
    buckets = bucket_of((keys,), 3 << 33)
    assert buckets.min() >= 0
    assert buckets.max() < 3 << 33


def test_numbers_too_large_for_one_key_take_two(rng):
    """Contexts of 45 bits and ids of 30: more than 64 bits together."""
    context, word = rng.integers(0, 1 << 45, 300), rng.integers(0, 1 << 30, 300)
    payload = payload_of(rng.normal(size=300), rng.normal(size=300))
    assert is_wide(1 << 45, 1 << 30)
    assert not is_wide(1 << 25, 1 << 30)
    rows, _ = make_rows(pack(context, word, 2, 1 << 30), payload)
    assert rows.shape[1] == 3
    _, found, values = search(rows, pack(context, word, 2, 1 << 30))
    assert found.all()
    np.testing.assert_array_equal(values, payload)
    assert not search(rows, pack(context + 1, word, 2, 1 << 30))[1].any()
