"""The reserved symbols and the tokenizer configuration."""

import pytest

from jaxlm.core.errors import UserError
from jaxlm.text.tokenizer import SPECIALS, TokenizerConfig, check_text


def test_specials_are_distinct_and_in_a_fixed_order():
    assert len(set(SPECIALS)) == len(SPECIALS) == 25
    assert SPECIALS[:5] == ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "words"}, "words"),
        ({"vocab_size": 256}, "vocab_size=256"),
        ({"character_coverage": 0.1}, "character_coverage"),
        ({"max_train_bytes": 0}, "max_train_bytes"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, named):
    with pytest.raises(ValueError, match=named):
        TokenizerConfig(**fields)


def test_vocab_size_is_not_read_by_byte_and_char():
    assert TokenizerConfig(kind="byte", vocab_size=2).kind == "byte"


def test_check_text_names_the_surrogate_and_its_place():
    check_text("😀\x00\ufffd")
    with pytest.raises(UserError, match=r"U\+D83D at character 2"):
        check_text("ab\ud83d")
