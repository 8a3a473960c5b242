"""Gopher's rules at both sides of every threshold, and their n-grams against a loop."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.text.column import TextColumn
from jaxlm.text.rules.gopher import GopherQuality, GopherRepetition
from jaxlm.text.rules.ngrams import repeated_ngrams, repeated_share, repeats, top_share

STOPS = "the cat sat and "


def reason(rule, text):
    verdicts = rule.judge(TextColumn([text, "another text"]))
    return "" if verdicts.reason_n[0] < 0 else verdicts.reasons[verdicts.reason_n[0]]


def lines(first, count, rest, total):
    return "\n".join([first] * count + [rest] * (total - count))


QUALITY = [
    (GopherQuality(), STOPS + "word " * 46, STOPS + "word " * 45, "fewer than 50 words"),
    (GopherQuality(max_words=60), STOPS + "word " * 56, STOPS + "word " * 57, "more than 60 words"),
    (GopherQuality(stop_words=("be",), min_stop_words=0), "aaa " * 50, "aa " * 50, "mean word below 3 characters"),
    (GopherQuality(min_stop_words=0), "abcdefghij " * 50, "a" * 11 + (" " + "b" * 11) * 50,
     "mean word above 10 characters"),
    (GopherQuality(), STOPS + "word " * 86 + "# " * 10, STOPS + "word " * 85 + "# " * 11, "many hash signs"),
    (GopherQuality(), STOPS + "word " * 85 + "... " * 10 + "end", STOPS + "word " * 84 + "… " * 11 + "end",
     "many ellipses"),
    (GopherQuality(min_stop_words=0), lines("- one word here", 9, "the and line", 10) + " more" * 20,
     lines("• one word here", 19, "the and line", 20), "bullet lines"),
    (GopherQuality(min_stop_words=0, max_symbol_ratio=1.0), lines("one two three four five six...", 3, "one " * 6, 10),
     lines("one two three four five six…", 4, "one " * 6, 10), "lines that end in an ellipsis"),
    (GopherQuality(), STOPS + "word " * 76 + "1995 " * 20, STOPS + "word " * 75 + "1995 " * 21,
     "few words with a letter"),
    (GopherQuality(), "The word And " + "word " * 50, "The the THE " + "word " * 50, "fewer than 2 stop words"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "kept", "removed", "why"), QUALITY, ids=[row[3] for row in QUALITY])
def test_quality_at_its_thresholds(rule, kept, removed, why):
    assert reason(rule, kept) == ""
    assert reason(rule, removed) == why


def words(count, start=0):
    """Different words of 8 characters."""
    return [f"word{i:04d}" for i in range(start, start + count)]


def repetition(**only):
    """A rule with all limits off but those given."""
    off = GopherRepetition(1.0, 1.0, 1.0, 1.0, (), ())
    return dataclasses.replace(off, **only)


def test_repeated_lines_and_paragraphs_at_their_thresholds():
    seven = words(7)
    for glue, key in (("\n", "lines"), ("\n\n", "paragraphs")):
        rule = repetition(**{f"max_{key}": 0.3})
        assert reason(rule, glue.join(seven + seven[:3])) == ""
        assert reason(rule, glue.join(seven + seven[:4])) == f"repeated {key}"
        rule = repetition(**{f"max_{key[:-1]}_chars": 0.2})
        assert reason(rule, glue.join([*words(8), "word0000", "x" * 40])) == ""
        assert reason(rule, glue.join([*words(3), "word0000"])) == f"characters in repeated {key}"


def test_equal_up_to_case_and_white_space_is_a_repeat():
    assert reason(repetition(max_lines=0.3), "One  line\none line") == "repeated lines"


@pytest.mark.parametrize(("order", "limit"), GopherRepetition().top)
def test_most_frequent_ngram_at_its_threshold(order, limit):
    rule = repetition(top=((order, limit),))
    gram = words(order)
    size = 2 * len(" ".join(gram))
    for filler in range(2, 60):
        text = " ".join(gram + ["x"] + words(filler, 100) + gram)
        assert (reason(rule, text) != "") == (size / len(text) > limit)
    assert reason(rule, " ".join(gram)) == ""  # once is no repetition, though it is the whole text


@pytest.mark.parametrize(("order", "limit"), GopherRepetition().repeated)
def test_repeated_ngrams_at_their_threshold(order, limit):
    rule = repetition(repeated=((order, limit),))
    gram = words(order)
    for filler in range(1, 120):
        text = " ".join([*gram, "x", *words(filler, 100), *gram])
        assert (reason(rule, text) != "") == (8 * order / len(text) > limit)
    assert reason(rule, " ".join([*gram, *gram[:-1]])) == ""  # one word short of a repeat


def plain_ngrams(units, order):
    grams = [tuple(units[i : i + order]) for i in range(len(units) - order + 1)]
    counts = Counter(grams)
    covered: set[int] = set()
    for i, gram in enumerate(grams):
        if gram in grams[:i]:
            covered.update(range(i, i + order))
    most = max([(n, sum(map(len, g)) + order - 1) for g, n in counts.items() if n > 1], default=(0, 0))
    return most[0] * most[1], sum(len(units[i]) for i in covered)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "."]), max_size=24), min_size=1, max_size=4))
def test_ngrams_are_those_of_a_loop(texts):
    column = TextColumn([" ".join(units) for units in texts])
    bounds, total = column.units.bounds, np.full(len(texts), 1)
    orders = (2, 3, 5)
    tops, covers = np.zeros((3, len(texts))), np.zeros((3, len(texts)))
    for groups in repeated_ngrams(column.unit_hashes, bounds, orders):
        tops[orders.index(groups.order)] = top_share(groups, column.unit_chars, bounds, total, 1)
        covers[orders.index(groups.order)] = repeated_share(groups, column.unit_chars, bounds, total)
    for row, order in enumerate(orders):
        plain = [plain_ngrams(units, order) for units in texts]
        assert list(zip(tops[row], covers[row], strict=True)) == plain


def test_repeats_marks_all_but_the_first_of_each_text():
    hashes = np.array([5, 6, 5, 5, 5, 6], np.uint64)
    assert repeats(hashes, np.array([0, 4, 6])).tolist() == [False, False, True, True, False, False]
    assert repeats(hashes[:0], np.array([0, 0])).tolist() == []


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: GopherQuality(min_words=5, max_words=4), "no range"),
        (lambda: GopherQuality(max_bullet_lines=1.5), "no share"),
        (lambda: GopherQuality(min_stop_words=9), "stop words"),
        (lambda: GopherRepetition(top=((3, 0.1), (2, 0.1))), "ascend"),
        (lambda: GopherRepetition(repeated=((5, 1.2),)), "no share"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_empty_texts_are_removed_not_crashed_on():
    column = TextColumn(["", " \n "])
    assert GopherQuality().judge(column).reason_n.tolist() == [0, 0]
    assert GopherRepetition().judge(column).kept_n.tolist() == [True, True]
