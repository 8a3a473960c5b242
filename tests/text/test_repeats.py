"""Repeated lines: counts are those of plain Python, parts add up, and only what is repeated goes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.text.repeats import count_lines, drop_repeated, merge_counts

TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "c d", "", "  ", "--", "天下"])).map("\n".join), max_size=8)


def lists(counts):
    return [column.tolist() for column in counts]


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(0, 8))
def test_counts_are_documents_and_add_up(texts, cut):
    whole = count_lines(texts, np.arange(len(texts)))
    expected = Counter(line for text in texts for line in {one.strip() for one in text.split("\n")} - {""})
    assert sorted(whole.documents.tolist()) == sorted(expected.values())
    assert (np.diff(whole.hashes.astype(object)) > 0).all()
    cut = min(cut, len(texts))
    parts = [count_lines(texts[:cut], np.arange(cut)), count_lines(texts[cut:], np.arange(cut, len(texts)))]
    assert lists(merge_counts(parts)) == lists(whole)
    assert lists(merge_counts(parts[::-1])) == lists(whole)
    assert lists(merge_counts([whole.part(i, 3) for i in range(3)])) == lists(whole)


def test_parts_are_ranges_that_leave_nothing_out():
    counts = count_lines(["\n".join(map(str, range(1000)))], np.arange(1))
    sizes = [len(counts.part(i, 4).hashes) for i in range(4)]
    assert sum(sizes) == 1000
    assert min(sizes) > 150
    with pytest.raises(ValueError, match="part 4 is none of 4"):
        counts.part(4, 4)


def test_what_is_repeated_goes_and_the_first_keeps_it():
    texts = [
        "Home | About\nfirst text\nShare this\n",
        "Home | About\n\n second text \n share  THIS",
        "home | about\nshare this",
    ]
    numbers = np.array([5, 6, 9])
    counts = count_lines(texts, numbers)
    assert len(counts.above(3).hashes) == 0
    found = drop_repeated(texts, numbers, counts.above(2))
    assert found.texts == [texts[0], "\n second text ", ""]
    assert found.lines_n.tolist() == [0, 2, 2]
    assert found.bytes_n.tolist() == [len(a) - len(b) for a, b in zip(texts, found.texts, strict=True)]
    every = drop_repeated(texts, numbers, counts.above(2), keep_first=False)
    assert every.texts == ["first text\n", "\n second text ", ""]


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(0, 3))
def test_no_other_line_goes(texts, most):
    numbers = np.arange(len(texts))
    repeated = count_lines(texts, numbers).above(most)
    found = drop_repeated(texts, numbers, repeated, keep_first=False)
    documents = Counter(line for text in texts for line in {one.strip() for one in text.split("\n")})
    for text, left in zip(texts, found.texts, strict=True):
        lines = [line for line in text.split("\n") if not line.strip() or documents[line.strip()] <= most]
        assert left == ("\n".join(lines) if any(line.strip() for line in lines) else ("" if left != text else text))
    again = drop_repeated(found.texts, numbers, repeated, keep_first=False)
    assert again.texts == found.texts
    assert again.lines_n.sum() == 0


def test_short_lines_are_left_alone():
    texts = ["}\na long enough line"] * 3
    counts = count_lines(texts, np.arange(3), min_chars=5)
    assert counts.documents.tolist() == [3]
    assert drop_repeated(texts, np.arange(3), counts, min_chars=5).texts == [texts[0], "}", "}"]


def test_paragraphs_go_whole():
    text = "All rights\nreserved.\n\nOf its own {}.\n\nAll rights\nreserved."
    texts = [text.format(i) for i in range(3)]
    counts = count_lines(texts, np.arange(3), unit="paragraph").above(1)
    found = drop_repeated(texts, np.arange(3), counts, unit="paragraph")
    assert found.texts[0] == texts[0]
    assert [one.strip() for one in found.texts[1:]] == ["Of its own 1.", "Of its own 2."]
    assert found.lines_n.tolist() == [0, 2, 2]
    with pytest.raises(ValueError, match="unit='page' is none of line, paragraph"):
        count_lines(texts, np.arange(3), unit="page")  # pyright: ignore[reportArgumentType]


def test_nothing_gives_nothing():
    assert len(merge_counts([]).hashes) == 0
    assert drop_repeated([], np.arange(0), merge_counts([])).texts == []
