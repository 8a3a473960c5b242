"""Signatures: shingle sets are those of plain Python, minima agree as often as the Jaccard similarity says."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.text import minhash
from jaxlm.text.minhash import MinHash, choose_bands, hit_probability, shingle_sets, sign, word_runs, words

TEXT = st.lists(st.sampled_from(["a", "B", "b", "Éa", "don't", "x1", "天下", "か", " ", "\n", ", ", "--", "."])).map(
    "".join
)


def plain_words(text):
    """As the column cuts them: runs of letters and digits, a Han or Kana character alone; blind to ASCII case."""
    folded = re.sub("[A-Z]", lambda m: m[0].lower(), text)
    return re.findall(r"[天下か]|[^\W_天下か]+", folded)


def plain_shingles(text, width):
    found = plain_words(text)
    if len(found) < width + minhash.SPARE:
        return set()
    return {tuple(found[i : i + width]) for i in range(len(found) - width + 1)}


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, max_size=5), st.integers(1, 4))
def test_shingle_sets_are_the_sets_of_word_runs(texts, width):
    sets = shingle_sets(texts, width)
    expected = [plain_shingles(text, width) for text in texts]
    assert sets.sizes.tolist() == [len(one) for one in expected]
    assert len(words(texts)[0]) == sum(len(plain_words(text)) for text in texts)
    for i, mine in enumerate(expected):
        own = set(sets.take(np.array([i])).hashes.tolist())
        for j, other in enumerate(expected):
            assert len(own & set(sets.take(np.array([j])).hashes.tolist())) == len(mine & other)


def test_runs_know_their_text_and_place():
    hashes, owners, places = word_runs(["a b c d", "b", "b c d"], 3)
    assert owners.tolist() == [0, 0, 2]
    assert places.tolist() == [0, 1, 0]
    assert hashes[1] == hashes[2] != hashes[0]


def test_what_is_signed_is_the_words_alone():
    config = MinHash(2, 4, 2)
    one, two = "The cat sat -- on the mat.", "the CAT, sat on\n\nthe   mat"
    alone, other = sign([one], config), sign([two], config)
    np.testing.assert_array_equal(alone.keys_nb, other.keys_nb)
    together = sign(["", "a longer text that stands before it", one, "short", two], config)
    np.testing.assert_array_equal(together.keys_nb[[2, 4]], np.repeat(alone.keys_nb, 2, 0))
    assert together.shingles.sizes.tolist() == [0, 6, 5, 0, 5]
    np.testing.assert_array_equal(together.shingles.take(np.array([4, 2])).hashes[:5], alone.shingles.hashes)
    assert (sign([one], MinHash(2, 4, 2, seed=1)).keys_nb != alone.keys_nb).all()


@pytest.mark.parametrize(("num_words", "signed"), [(0, False), (5, False), (6, True), (7, True)])
def test_short_texts_get_no_keys(num_words, signed):
    signatures = sign([" ".join("abcdefg"[:num_words])], MinHash(3, 4, 2))
    assert (signatures.shingles.sizes[0] > 0) == signed
    assert (signatures.keys_nb != 0).all() == signed
    assert (signatures.keys_nb == 0).all() != signed


def test_a_text_larger_than_a_chunk_is_like_any_other(monkeypatch):
    texts = [" ".join(str(i) for i in range(begin, begin + 300)) for begin in (0, 100, 500)] + ["few words"]
    config = MinHash(3, 8, 2)
    whole = sign(texts, config)
    monkeypatch.setattr(minhash, "_CHUNK", 16)
    np.testing.assert_array_equal(sign(texts, config).keys_nb, whole.keys_nb)


@pytest.mark.parametrize("same", [150, 250, 350])
def test_bands_agree_as_often_as_the_formula_says(same):
    draw = random.Random(same)
    texts = []
    for _ in range(400):  # two texts of 400 one-word shingles each, of which `same` are common
        numbers = draw.sample(range(1 << 40), 800 - same)
        texts += [" ".join(map(str, numbers[:400])), " ".join(map(str, numbers[-400:]))]
    config = MinHash(1, 6, 2)
    keys = sign(texts, config).keys_nb
    agree = keys[0::2] == keys[1::2]
    jaccard = same / (800 - same)
    spread = 4 / np.sqrt(400)
    assert abs(agree.mean() - jaccard**2) < spread / np.sqrt(6)
    assert abs(agree.any(1).mean() - hit_probability(jaccard, 6, 2)) < spread / 2


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("recall", [0.5, 0.98, 0.999])
def test_chosen_bands_keep_their_word(threshold, recall):
    bands, rows = choose_bands(threshold, recall, 256)
    assert bands * rows <= 256
    assert hit_probability(threshold, bands, rows) >= recall - 1e-9
    assert bands == 1 or hit_probability(threshold, bands - 1, rows) < recall


def test_the_bands_of_the_issue_miss_what_it_says():
    assert hit_probability(0.63, 14, 8) == pytest.approx(0.3, abs=0.01)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"cannot find pairs at threshold=0\.01"):
        choose_bands(0.01, 0.99, 64)
    with pytest.raises(ValueError, match="rows=0 is below 1"):
        MinHash(3, 4, 0)
    with pytest.raises(ValueError, match="seed=-1 is below 0"):
        MinHash(3, 4, 2, seed=-1)
    assert sign([], MinHash(3, 4, 2)).keys_nb.shape == (0, 4)
