"""Junk made from good text and pages: what it must be, and that what is meant to be mended can be."""

import numpy as np
import pytest

from jaxlm.text.edits.markup import StripMarkup
from jaxlm.text.edits.unicode import RepairUnicode
from jaxlm.text.junk import misread, near_copy, numbers, spam, strip_page, tagged, typographic

TEXT = 'He said "no" -- it\'s not <so> & never was...\n\nThe "second" line of it.'


def _rng():
    return np.random.default_rng(0)


def test_misread_text_is_mended_to_the_typographic_one():
    better = typographic(TEXT)
    assert "\u201cno\u201d \u2014 it\u2019s" in better
    wrong = misread(better)
    assert "itâ€™s" in wrong
    pytest.importorskip("ftfy")
    assert RepairUnicode().edit(wrong)[0] == better


def test_tags_come_out_again():
    wrong = tagged(TEXT, _rng())
    assert '<p class="text">' in wrong
    assert "&lt;so&gt;" in wrong
    assert StripMarkup().edit(wrong)[0].split() == TEXT.split()


def test_a_page_without_its_tags_has_its_furniture_apart():
    page = (
        "<title>T</title><style>p {\n margin: 0;\n}</style><!-- unseen --><ul><li>Home<li>Next</ul>"
        "<p>What is said\nhere is &amp; stays the text.</p><footer>Terms</footer>"
    )
    found = strip_page(page, "What is said here is & stays the text.")
    text = ["What is said", "here is & stays the text."]
    assert found.lines == ["T", "p {", "margin: 0;", "}", "Home", "Next", *text, "Terms"]
    assert found.furniture == [line for line in found.lines if line not in text]


def test_spam_numbers_and_copies():
    text = spam(["alpha", "beta", "gamma", "delta"], 900, _rng())
    assert 900 <= len(text) + 3 < 1000
    assert len({word.strip(",.|!") for word in text.split()}) < 20
    for seed in range(6):
        listed = numbers(600, np.random.default_rng(seed))
        assert 590 < len(listed) < 800
        assert all(character in "0123456789abcdef.- \n" for character in listed)
    words = " ".join(f"word{i}" for i in range(2000))
    copy = near_copy(words, 0.05, ["other"], _rng())
    changed = sum(a != b for a, b in zip(words.split(), copy.split(), strict=True))
    assert 60 < changed < 140
    assert near_copy(words, 0.05, ["other"], _rng()) == copy
