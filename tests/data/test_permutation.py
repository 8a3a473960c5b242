"""A keyed permutation is a bijection at every size, and different keys shuffle differently."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data.permutation import MAX_SIZE, mix_key, permute


def test_is_a_bijection_for_every_small_n() -> None:
    for n in range(1, 301):
        assert np.array_equal(np.sort(permute(np.arange(n), n, mix_key(7, n))), np.arange(n)), n


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 50_000), key=st.integers(0, 2**64 - 1))
def test_is_a_bijection(n: int, key: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2**40, MAX_SIZE), key=st.integers(0, 2**64 - 1))
def test_stays_inside_and_apart_where_n_is_vast(n: int, key: int) -> None:
    places = permute(np.array([*range(200), *range(n - 200, n)]), n, key)
    assert places.dtype == np.int64
    assert places.min() >= 0
    assert places.max() < n
    assert len(np.unique(places)) == 400


def test_an_index_goes_where_it_goes_alone_or_in_any_shape() -> None:
    whole = permute(np.arange(1000), 1000, 3)
    assert permute(17, 1000, 3) == whole[17]
    assert np.array_equal(permute(np.arange(1000).reshape(10, 100), 1000, 3), whole.reshape(10, 100))
    assert permute(np.zeros(0, np.int64), 1000, 3).shape == (0,)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_reaches_every_order_about_equally_often(n: int) -> None:
    num_keys = 20 * math.factorial(n) + 300
    seen = Counter(tuple(permute(np.arange(n), n, key).tolist()) for key in range(num_keys))
    expected = num_keys / math.factorial(n)
    freedom = math.factorial(n) - 1
    chi2 = sum((count - expected) ** 2 / expected for count in seen.values())
    assert len(seen) == math.factorial(n)
    assert abs(chi2 - freedom) < 5 * math.sqrt(2 * freedom) + 5


def test_places_are_uniform_and_keys_unrelated() -> None:
    n, num_keys = 1000, 300
    table = np.zeros((20, 20))
    for key in range(num_keys):
        np.add.at(table, (np.arange(n) // 50, permute(np.arange(n), n, mix_key(0, 2, key)) // 50), 1)
    expected = n * num_keys / 400
    assert ((table - expected) ** 2 / expected).sum() / 361 == pytest.approx(1, abs=0.35)

    big = 100_000
    a, b = permute(np.arange(big), big, 5), permute(np.arange(big), big, 6)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.015
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < 0.015
    assert (a == b).sum() < 12
    assert (np.abs(np.diff(a)) == 1).sum() < 15


def test_the_order_is_part_of_every_run() -> None:
    """Changing these numbers changes what every seed trains on: a changelog entry, and a new format version."""
    assert mix_key(1, 2, 3) == 0xD0734750FDE362B3
    assert permute(np.arange(8), 1_000_003, 42).tolist() == [
        277706,
        196054,
        94974,
        80880,
        485659,
        657115,
        457687,
        502792,
    ]


def test_refuses_what_has_no_place() -> None:
    with pytest.raises(ValueError, match="n=0 "):
        permute(0, 0, 1)
    with pytest.raises(ValueError, match=r"outside \[0, 10\)"):
        permute(np.array([3, 10]), 10, 1)
