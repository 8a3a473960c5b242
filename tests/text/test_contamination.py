"""Evaluation items in texts: whole ones are always found, edited ones mostly, a few words in common are no find."""

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.text.contamination import EvalItem, Overlap, build_index, find_items

WORDS = [f"{a}{b}" for a in "bcdfghjklm" for b in ("at", "est", "ong", "ure", "ine")]


def sentence(draw, count):
    return " ".join(draw.choice(WORDS) for _ in range(count))


def index_of(*texts, **overlap):
    return build_index([EvalItem(f"set:{i}", text) for i, text in enumerate(texts)], Overlap(**overlap))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(5, 60), st.integers(0, 30), st.integers(0, 30))
def test_a_whole_item_is_found_where_it_stands(seed, count, before, after):
    draw = random.Random(seed)
    item = sentence(draw, count)
    written = item.upper().replace(" ", draw.choice([", ", "\n", "  -- "]))
    prefix = "é" * (before > 0) + sentence(draw, before) + " "
    text = prefix + written + ". " + "z" + sentence(draw, after)
    found = find_items(["clean", text], index_of(sentence(draw, 20), item))
    mine = found.item == 1
    assert found.text[mine].tolist() == [1]
    assert found.share[mine].tolist() == [1.0]
    start, end = int(found.start[mine][0]), int(found.end[mine][0])
    assert start <= len(prefix)
    assert end >= len(prefix) + len(written)
    assert found.first(2)[0] == -1
    assert found.item[found.first(2)[1]] in (0, 1)


def test_the_span_is_in_characters():
    text = "天天 éé: What is the CAPITAL of France, then? It is old"
    found = find_items([text], index_of("What is the capital of France then"))
    assert text[int(found.start[0]) : int(found.end[0])] == "What is the CAPITAL of France, then"


def test_a_finding_depends_on_its_text_alone():
    draw = random.Random(0)
    items = [sentence(draw, 30) for _ in range(5)]
    texts = [items[3], "nothing of it", items[1] + " and " + items[3], ""]
    index = index_of(*items)
    together = find_items(texts, index)
    alone = [find_items([text], index) for text in texts]
    for i, one in enumerate(alone):
        for name in ("item", "share", "start", "end"):
            np.testing.assert_array_equal(getattr(together, name)[together.text == i], getattr(one, name))
    assert together.first(4).tolist() == [0, -1, 1, -1]


def test_both_thresholds_hold():
    words = [f"w{i}" for i in range(44)]  # 40 runs of 5
    index = index_of(" ".join(words), share=0.2, matched_words=8)
    assert len(find_items([" ".join(words[:11])], index).item) == 0  # 7 runs
    assert find_items([" ".join(words[:12])], index).share.tolist() == [np.float32(0.2)]  # 8 runs
    short = index_of(" ".join(words[:12]), share=0.2, matched_words=8)  # 8 runs, of which 2 are a fifth, and 4 needed
    assert len(find_items([" ".join(words[:7])], short).item) == 0
    assert find_items([" ".join(words[:8])], short).share.tolist() == [0.5]


def test_runs_that_a_text_repeats_count_once():
    words = [f"w{i}" for i in range(44)]
    assert len(find_items([" ".join(words[:9] * 9)], index_of(" ".join(words))).item) == 0


def test_short_items_are_found_whole_or_not_looked_for():
    index = index_of("two plus two is four", "one two three", "", "?!", min_words=3)
    assert index.unchecked.tolist() == [2, 3]
    assert find_items(
        ["so Two plus two is FOUR.", "two plus two is five", "one, two, three!"], index
    ).item.tolist() == [0, 1]
    assert index_of("one two three").unchecked.tolist() == [0]


def test_han_characters_are_half_words():
    item = "孔子是中國古代的思想家和教育家"  # 15 characters: 6 runs of 10
    index = index_of(item)
    assert index.runs.tolist() == [6]
    assert find_items(["有人說" + item + "吧"], index).share.tolist() == [1.0]
    assert len(find_items(["孔子是中國古代的人"], index).item) == 0


def test_items_and_texts_may_be_decomposed():
    item = "Où sont passés les élèves de cette école à présent"
    forms = [unicodedata.normalize(form, item) for form in ("NFC", "NFD")]
    for one in forms:
        found = find_items([f"é {text}." for text in forms], index_of(one))
        assert found.share.tolist() == [1.0, 1.0]
        assert found.start.tolist() == [2, 2]


def test_items_are_found_in_corpora_of_plain_forms():
    item = "２０２４年 the ﬁrst ofﬁcer ﬂew ＡＢＣ home in the ﬁnal hour"
    plain = unicodedata.normalize("NFKC", item)
    assert plain != unicodedata.normalize("NFC", item)
    for one in (item, plain):
        assert find_items([item, plain, unicodedata.normalize("NFKD", item)], index_of(one)).share.tolist() == [1.0] * 3


def test_changed_items_are_found():
    draw = random.Random(1)
    items = [sentence(draw, draw.randrange(30, 80)) for _ in range(300)]
    texts = []
    for item in items:
        words = item.split()
        for place in draw.sample(range(len(words)), len(words) // 10):
            words[place] = "changed"
        texts.append("before it " + " ".join(words) + " and after")
    found = find_items(texts, index_of(*items))
    assert len(set(found.text[found.text == found.item].tolist())) >= 0.99 * len(items)
    others = [sentence(draw, 300) for _ in range(300)]
    assert len(find_items(others, index_of(*items)).item) == 0


def test_nothing_finds_nothing():
    assert len(find_items(["any text at all"], build_index([])).item) == 0
    assert len(find_items([], index_of("one two three four five")).item) == 0


def test_bad_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"share=0\.0 is outside"):
        Overlap(share=0.0)
    with pytest.raises(ValueError, match="matched_words=3 is below width=5"):
        Overlap(matched_words=3)
    with pytest.raises(ValueError, match="min_words=0 is below 1"):
        Overlap(min_words=0)
