"""A column reads what plain Python reads, one text at a time: units, lines, paragraphs, kinds; and its hashes agree."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.text.characters import DIGIT, HAN, KANA, LATIN, LETTER, PUNCTUATION, SPACE, SYMBOL, kind_of
from jaxlm.text.column import TextColumn

PIECES = [
    "a",
    "B",
    "xyz",
    " ",
    "\n",
    "\n\n",
    "\t",
    "5",
    "...",
    "-",
    "é",
    "ß",
    "天",
    "下",
    "か",
    "。",
    "\u3000",
    "𠀀",
    "😀",
    "\u0301",
]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), max_size=6)


def plain_units(text):
    """Words and signs by a loop over characters."""
    units, last = [], None
    for character in text:
        kind = kind_of(ord(character))
        if kind == SPACE:
            last = None
            continue
        group = "word" if kind in (LATIN, LETTER, DIGIT) else "sign" if kind in (PUNCTUATION, SYMBOL) else None
        if group is not None and group == last:
            units[-1] += character
        else:
            units.append(character)
        last = group
    return units


def spelled(column, spans):
    """The pieces of each text."""
    pieces = [column.data[s:e].decode("utf-8", "surrogatepass") for s, e in zip(spans.starts, spans.ends, strict=True)]
    return [pieces[a:b] for a, b in zip(spans.bounds[:-1], spans.bounds[1:], strict=True)]


def plain_paragraphs(text):
    paragraphs, open_ = [], False
    for line in text.split("\n"):
        if not plain_units(line):
            open_ = False
        elif open_:
            paragraphs[-1] += "\n" + line
        else:
            paragraphs.append(line)
            open_ = True
    return [paragraph.strip() for paragraph in paragraphs]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_views_are_those_of_a_loop(texts):
    column = TextColumn(texts)
    assert spelled(column, column.units) == [plain_units(text) for text in texts]
    lines = [[line.strip() for line in text.split("\n") if line.strip()] for text in texts]
    assert spelled(column, column.lines) == lines
    assert spelled(column, column.paragraphs) == [plain_paragraphs(text) for text in texts]
    assert spelled(column, column.characters) == [[c for c in text if kind_of(ord(c)) != SPACE] for text in texts]
    assert column.chars_n.tolist() == [len(text) for text in texts]
    assert column.unit_chars.tolist() == [len(unit) for text in texts for unit in plain_units(text)]
    letters = [any(kind_of(ord(c)) <= KANA for c in unit) for text in texts for unit in plain_units(text)]
    assert column.has_letter.tolist() == letters
    assert column.is_word.tolist() == [kind_of(ord(unit[0])) <= DIGIT for text in texts for unit in plain_units(text)]
    kinds = [[sum(kind_of(ord(c)) == kind for c in text) for kind in range(8)] for text in texts]
    assert column.kind_counts.tolist() == kinds


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_a_text_does_not_see_its_neighbours(texts):
    column = TextColumn(texts)
    for i, text in enumerate(texts):
        alone, here = TextColumn([text]), slice(*column.units.bounds[i : i + 2])
        np.testing.assert_array_equal(column.unit_hashes[here], alone.unit_hashes)
        here = slice(*column.lines.bounds[i : i + 2])
        np.testing.assert_array_equal(column.line_hashes[here], alone.line_hashes)
        here = slice(*column.paragraphs.bounds[i : i + 2])
        np.testing.assert_array_equal(column.paragraph_hashes[here], alone.paragraph_hashes)


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""], ["\n"], [" ", "a", ""], ["\udc80x", "\ud800"]])
def test_columns_of_little_or_nothing(texts):
    column = TextColumn(texts)
    for view in (column.units.count_n, column.lines.count_n, column.paragraphs.count_n, column.chars_n, column.words_n):
        assert len(view) == len(texts)
    assert column.kind_counts.shape == (len(texts), 8)
    assert len(column.counts_of(b"a")) == len(texts)


def test_hashes_are_equal_for_equal_units_up_to_case_and_for_no_others():
    units = [f"word{i}" for i in range(50_000)] + ["a" * n for n in range(1, 100)] + ["b" * 63 + "c", "é", "É"]
    column = TextColumn([" ".join(units)])
    assert len(np.unique(column.unit_hashes)) == len(units)
    np.testing.assert_array_equal(TextColumn([" ".join(units).upper().replace("É", "é")]).unit_hashes[:1000],
                                  column.unit_hashes[:1000])  # fmt: skip


def test_hashes_of_runs_depend_on_the_run_alone():
    column = TextColumn(["one two three one two three", "three one  two"])
    runs = column.run_hashes(np.array([0, 3, 7]), np.array([2, 5, 9]))
    assert runs[0] == runs[1] == runs[2]
    assert column.run_hashes(np.array([1]), np.array([3]))[0] != runs[0]  # "two three"
    assert TextColumn(["a b", "b a"]).line_hashes[0] != TextColumn(["a b", "b a"]).line_hashes[1]


def test_ends_and_beginnings():
    column = TextColumn(["- a list...", "x", "Ends. ", "…"])
    assert column.starts_with(column.lines, [b"-"]).tolist() == [True, False, False, False]
    ends = column.ends_with(column.lines, [b"...", b".", "…".encode()])
    assert ends.tolist() == [True, False, True, True]
    assert column.ends_with(column.lines, [b"a list.."]).tolist() == [False] * 4


def test_kinds_agree_with_unicode():
    """Every character of the Basic Multilingual Plane is space, letter, digit or sign as Python says."""
    for code in range(0x10000):
        character, kind = chr(code), kind_of(code)
        if character.isspace():
            assert kind == SPACE
        elif unicodedata.category(character)[0] == "L":
            assert kind in (LATIN, LETTER, HAN, KANA), hex(code)
        elif character.isdecimal():
            assert kind == DIGIT, hex(code)
        elif unicodedata.category(character)[0] == "P":
            assert kind in (PUNCTUATION, KANA), hex(
                code
            )  # the Katakana middle dot's half-width form stands in the block
