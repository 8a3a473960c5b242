"""Words as hashes: cut as bytes.split does at ASCII white space, equal hashes for equal words and no others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.text.words import hash_words, split_words


def plain(data):
    """(line, word) by Python's own splitting; NUL is a space too."""
    return [
        (number, word)
        for number, line in enumerate(data.replace(b"\0", b" ").split(b"\n"))
        for word in line.replace(b"\x0b", b" ").replace(b"\x0c", b" ").split()
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b"b", b" ", b"\t", b"\n", b"\0", b"\x1f", b"\x01", b"\x0c", b"\r", b"abcdefgh"]))
)
def test_cuts_are_those_of_split(parts):
    data = b"".join(parts)
    words = split_words(data)
    spelled = [data[s : s + n] for s, n in zip(words.starts.tolist(), words.lengths.tolist(), strict=True)]
    assert list(zip(words.lines.tolist(), spelled, strict=True)) == plain(data)
    firsts = [i == 0 or words.lines[i] != words.lines[i - 1] for i in range(len(words.lines))]
    assert words.first.tolist() == firsts


def test_unicode_spaces_are_no_spaces():
    data = "a\u00a0b\u2003c\u3000d\u0085e f".encode()
    assert split_words(data).lengths.tolist() == [len("a\u00a0b\u2003c\u3000d\u0085e".encode()), 1]


def test_hashes_depend_on_the_word_alone():
    words = [b"a", b"b", b"ab", b"ba", b"a" * 8, b"a" * 9, b"a" * 16, b"a" * 63, b"a" * 64, b"a" * 65, b"a" * 500]
    words += [b"a" * 70 + b"b", b"a" * 7 + b"b", b"\x01", b"\x01\x01", "Straße".encode(), "天下".encode()]
    alone = np.concatenate([hash_words([word]) for word in words])
    np.testing.assert_array_equal(alone, hash_words(words))
    np.testing.assert_array_equal(alone, split_words(b"  " + b"\t \n".join(words) + b" ").hashes)
    assert len(set(alone.tolist())) == len(words)


def test_many_words_do_not_collide():
    words = [b"%d" % i for i in range(200_000)] + [b"prefix-of-a-longer-word-%d" % i for i in range(200_000)]
    assert len(set(hash_words(words).tolist())) == len(words)


@pytest.mark.parametrize("data", [b"", b" ", b"\n\n \n"])
def test_nothing_gives_nothing(data):
    words = split_words(data)
    assert len(words.hashes) == len(words.first) == 0
