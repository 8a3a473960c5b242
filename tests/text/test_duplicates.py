"""From keys to the documents that stay: pairs and Jaccard are those of plain Python, one of each cluster stays."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.text.duplicates import band_pairs, cluster, exact_keys, exact_pairs, merge_pairs, verify
from jaxlm.text.minhash import MinHash, Shingles, shingle_sets, sign

KEYS = st.lists(st.integers(0, 5), max_size=30)


def ragged(sets):
    hashes = [np.sort(np.array(sorted(one), np.uint32)) for one in sets]
    bounds = np.concatenate([[0], np.cumsum([len(one) for one in hashes])]).astype(np.int64)
    return Shingles(np.concatenate([np.zeros(0, np.uint32), *hashes]), bounds)


def tuples(pairs):
    return list(map(tuple, pairs.tolist()))


def test_exact_pairs_are_with_the_first_of_a_kind():
    texts = ["One two.", "other", "one  TWO.", "one two", "Other", "ONE two.", ""]
    assert tuples(exact_pairs(exact_keys(texts))) == [(0, 2), (0, 5), (1, 4)]
    assert tuples(exact_pairs(exact_keys(texts), np.arange(10, 17))) == [(10, 12), (10, 15), (11, 14)]
    assert len(exact_pairs(exact_keys([]))) == 0


@settings(max_examples=200, deadline=None)
@given(KEYS)
def test_few_of_a_key_are_all_paired(keys):
    array = np.array(keys, np.uint64)
    expected = [(a, b) for a, b in itertools.combinations(range(len(keys)), 2) if keys[a] == keys[b] != 0]
    assert tuples(band_pairs(array, reach=len(keys) + 1)) == expected


@settings(max_examples=200, deadline=None)
@given(KEYS, st.integers(1, 3))
def test_many_of_a_key_stay_connected(keys, reach):
    pairs = band_pairs(np.array(keys, np.uint64), reach=reach)
    assert len(pairs) <= (reach + 1) * len(keys)
    leader = cluster(pairs, np.zeros(len(keys))).leader_n
    assert leader.tolist() == [keys.index(key) if key else i for i, key in enumerate(keys)]


@settings(max_examples=50, deadline=None)
@given(KEYS)
def test_ranges_of_keys_give_the_pairs_of_the_whole(keys):
    array = np.array(keys, np.uint64)
    parts = [np.flatnonzero(array % 2 == half) for half in (0, 1)]
    found = merge_pairs([band_pairs(array[part], part) for part in parts])
    np.testing.assert_array_equal(found, band_pairs(array))


def test_copies_by_the_hundred_thousand_stay_linear():
    count = 100_000
    pairs = band_pairs(np.full(count, 7, np.uint64))
    assert len(pairs) < 5 * count
    kept = cluster(pairs, np.zeros(count, np.int8)).kept_n
    assert kept.sum() == 1
    assert kept[0]


def test_each_pair_comes_once():
    parts = [np.array([[0, 1], [2, 3]], np.uint32), np.zeros((0, 2), np.uint32), np.array([[0, 1]], np.uint32)]
    assert tuples(merge_pairs(parts)) == [(0, 1), (2, 3)]
    assert merge_pairs([]).shape == (0, 2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 12)), min_size=2, max_size=8), st.floats(0.05, 1.0), st.integers(1, 40))
def test_what_is_verified_is_what_python_counts(sets, threshold, chunk):
    pairs = np.array(list(itertools.combinations(range(len(sets)), 2)), np.uint32)
    found = verify(pairs, ragged(sets), threshold, chunk_shingles=chunk)
    jaccard = {(a, b): len(sets[a] & sets[b]) / max(len(sets[a] | sets[b]), 1) for a, b in pairs.tolist()}
    assert tuples(found.pairs) == [pair for pair, value in jaccard.items() if value >= threshold]
    np.testing.assert_allclose(found.jaccard, [jaccard[pair] for pair in tuples(found.pairs)], rtol=1e-6)


def test_a_pair_at_the_threshold_passes():
    sets = ragged([{1, 2, 3}, {2, 3, 4}, {3, 4, 5}])
    pairs = np.array([[0, 1], [0, 2], [1, 2]], np.uint32)
    assert tuples(verify(pairs, sets, 0.5).pairs) == [(0, 1), (1, 2)]
    assert tuples(verify(pairs, sets, 0.2).pairs) == tuples(pairs)
    seven = ragged([set(range(7)), set(range(10))])
    assert tuples(verify(pairs[:1], seven, 0.7).pairs) == [(0, 1)]


def test_who_stays_is_of_the_highest_priority_and_then_the_first():
    pairs = np.array([[0, 3], [3, 5], [1, 2]], np.uint32)
    found = cluster(pairs, np.array([0, 1, 1, 0, 0, 2]))
    assert found.leader_n.tolist() == [5, 1, 1, 5, 4, 5]  # 0 and 5 are joined through 3
    assert found.kept_n.tolist() == [False, True, False, False, True, True]
    assert cluster(np.zeros((0, 2), np.uint32), np.zeros(3)).kept_n.all()
    assert len(cluster(np.zeros((0, 2), np.uint32), np.zeros(0)).kept_n) == 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14))), st.lists(st.integers(0, 2), min_size=15, max_size=15)
)
def test_clusters_are_what_pairs_connect(links, priorities):
    pairs = np.array([sorted(link) for link in links if link[0] != link[1]], np.uint32).reshape(-1, 2)
    found = cluster(pairs, np.array(priorities))
    label = list(range(15))
    for a, b in pairs.tolist():
        label = [label[a] if one == label[b] else one for one in label]
    for i in range(15):
        members = [j for j in range(15) if label[j] == label[i]]
        assert found.leader_n[i] == min(members, key=lambda j: (-priorities[j], j))
    np.testing.assert_array_equal(found.kept_n, found.leader_n == np.arange(15))


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="2 numbers for 3 keys"):
        band_pairs(np.ones(3, np.uint64), np.arange(2))
    with pytest.raises(ValueError, match=r"outside 0 \.\. 4294967295"):
        band_pairs(np.ones(1, np.uint64), np.array([1 << 32]))
    with pytest.raises(ValueError, match="a pair names document 7, but there are 3 priorities"):
        cluster(np.array([[1, 7]], np.uint32), np.zeros(3))


def test_shards_together_are_the_whole():
    rng = np.random.default_rng(0)
    base = [" ".join(map(str, rng.integers(0, 10_000, 60))) for _ in range(40)]
    texts = base + [text + " one two" for text in base[:15]]
    config = MinHash(3, 12, 3)
    whole = sign(texts, config)
    shards = [sign(texts[i : i + 9], config) for i in range(0, len(texts), 9)]
    keys = np.concatenate([shard.keys_nb for shard in shards])
    np.testing.assert_array_equal(keys, whole.keys_nb)
    pairs = merge_pairs([band_pairs(keys[:, band]) for band in range(config.bands)])
    found = verify(pairs, shingle_sets(texts, 3), 0.8)
    assert tuples(found.pairs) == [(i, 40 + i) for i in range(15)]
