"""Where words begin and end among tokens, whatever the tokenizer: tables over its ids."""

import re
from typing import NamedTuple

import numpy as np

from jaxlm.text.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class WordEdges(NamedTuple):
    """Two bool tables [v]. Between two tokens lies a border of words if the second begins one or the first ends one."""

    begins_v: np.ndarray
    ends_v: np.ndarray


def word_edges(tokenizer: Tokenizer) -> WordEdges:
    """A word is an unbroken run of letters and digits, however many tokens spell it; the space before it belongs to it
    where the tokenizer puts it into the first piece. All else stands alone, and so does each Han or Kana character,
    as far as ids show: bytes from 0x80 count as letters, those that begin a character from U+3000 to U+9FFF as Han.
    """
    begins_v, ends_v = np.ones((2, tokenizer.vocab_size), bool)
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token_str(token)
        byte = _BYTE.fullmatch(text)
        if byte:
            begins_v[token], ends_v[token] = 0xE3 <= int(byte[1], 16) <= 0xE9, False
        elif text and token not in tokenizer.special_tokens.values():
            begins_v[token], ends_v[token] = not _joins(text[0]), not _joins(text[-1])
    return WordEdges(begins_v, ends_v)


def _joins(character: str) -> bool:
    """Whether a character goes on a word: a letter or digit of a script that sets words apart."""
    return character.isalnum() and not "\u3000" <= character <= "\u9fff"
