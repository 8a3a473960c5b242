"""Figures of tokenizers on texts: counted by hand, and additive."""

import numpy as np
import pytest

from jaxlm.evals.tokenizers import TokenizerFigures, add_figures, measure_tokens

VOCAB = 300
IS_BYTE = (np.arange(VOCAB) >= 128) & (np.arange(VOCAB) < 256)
IS_UNKNOWN = np.arange(VOCAB) == 299


def measure(texts, ids=None):
    ids = [np.frombuffer(text.encode(), np.uint8) for text in texts] if ids is None else ids
    return measure_tokens(texts, ids, is_byte_v=IS_BYTE, is_unknown_v=IS_UNKNOWN)


def test_bytes_of_english_and_chinese():
    english = measure(["two words, and a sign!"])
    assert (english.num_words, english.num_tokens, english.byte_tokens) == (5, 22, 0)
    assert english.bytes_per_token == 1
    assert english.fertility == pytest.approx(22 / 5)
    chinese = measure(["春眠不覺曉"])
    assert (chinese.num_words, chinese.num_chars, chinese.fertility, chinese.byte_share) == (5, 5, 3, 1)
    assert chinese.chars_per_token == pytest.approx(1 / 3)


def test_unknown_and_used_ids():
    found = measure(["ab", "b"], [np.array([97, 299]), np.array([97])])
    assert (found.unknown_share, found.used_ids) == (pytest.approx(1 / 3), 2)


def test_parts_add_up_to_the_whole():
    texts = ["one two", "", "三四", "five"]
    parts = [measure([text]) for text in texts]
    whole = measure(texts)
    assert add_figures(parts)._replace(used_ids=0) == whole._replace(used_ids=0)
    assert add_figures([]) == TokenizerFigures()
    assert measure([]).fertility == 0
    assert whole.to_dict()["num_texts"] == 4


def test_texts_without_ids_are_refused():
    with pytest.raises(ValueError, match="2 texts and 1 arrays"):
        measure(["a", "b"], [np.array([1])])
