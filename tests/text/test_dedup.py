"""Laws of the splitting and copy-finding keys."""

import numpy as np

from jaxlm.text.dedup import copied_shares, normal_key, repeated_shares, shingle_hashes, unit_hash


def test_unit_hash_is_uniform_and_fixed():
    values = np.array([unit_hash(str(i)) for i in range(4000)])
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02
    assert unit_hash("jaxlm") == unit_hash("jaxlm")
    assert unit_hash("") != unit_hash(" ")


def test_normal_key_forgets_case_and_white_space():
    assert normal_key("Return  the\n Value.") == normal_key("return the value.")
    assert normal_key("a b") != normal_key("ab")


def test_shingles_are_the_runs_of_words():
    assert len(shingle_hashes("one two three four", 5)) == 0
    assert len(shingle_hashes("one two three four five six", 5)) == 2
    inside = shingle_hashes("zero one two three four five", 5)
    assert shingle_hashes("one, two, three, four: five!", 5)[0] in inside


def test_copied_share_counts_known_runs():
    reference = ["the quick brown fox jumps over the lazy dog", "short"]
    texts = ["the quick brown fox jumps over the lazy dog", "the quick brown fox jumps high up now", "none of this", ""]
    np.testing.assert_allclose(copied_shares(texts, reference, 5), [1.0, 0.25, 0.0, 0.0])
    np.testing.assert_allclose(copied_shares(texts, [], 5), 0.0)


def test_repeated_shares_look_at_earlier_texts_alone():
    first, second = "one two three four five six seven", "one two three four five six eight"
    shares = repeated_shares([first, second, "short", first, first + " " + first])
    np.testing.assert_allclose(shares[:4], [0, 2 / 3, 0, 1])
    assert repeated_shares([first + " " + first])[0] == 0
