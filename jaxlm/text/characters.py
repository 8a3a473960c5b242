"""What kind of character each byte of UTF-8 text belongs to: tables over ASCII, decoding only where it ends."""

import unicodedata
from functools import cache

import numpy as np

LATIN, LETTER, HAN, KANA, DIGIT, PUNCTUATION, SYMBOL, SPACE = range(8)
"""Latin letters; letters and marks of other scripts that set words apart; Han; Hiragana and Katakana; decimal digits;
punctuation; all other signs (symbols, control and format characters, lone surrogates); white space (`str.isspace`) and
NUL. In this order: what makes a word comes before what does not, letters before digits."""

LAST_LETTER, LAST_WORD = KANA, DIGIT
WORD, SINGLE, SIGN = range(3)
CLASSES = np.array([WORD, WORD, SINGLE, SINGLE, WORD, SIGN, SIGN, 3], np.uint8)
"""Kind -> how it joins its neighbours: letters and digits run on; Han and Kana stand alone; signs run on; space."""

_TABLED = 0x20000  # below: a table; above: Han up to the last ideograph block, signs from there on
_LAST_HAN = 0x323AF
_HAN = (
    (0x2E80, 0x2FDF),
    (0x3005, 0x3005),
    (0x3007, 0x3007),
    (0x3021, 0x3029),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
)
_KANA = ((0x3041, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F))
_JOINERS = (0x200C, 0x200D)  # stand inside words of Persian and of Indian scripts


def kind_of(code: int) -> int:
    """The kind of one code point."""
    if any(first <= code <= last for first, last in _HAN):
        return HAN
    if any(first <= code <= last for first, last in _KANA):
        return KANA
    if code >= _TABLED:
        return HAN if code <= _LAST_HAN else SYMBOL
    character = chr(code)
    if character.isspace() or code == 0:
        return SPACE
    category = unicodedata.category(character)
    if category[0] in "LM" or code in _JOINERS:
        latin = category[0] == "L" and (code < 0x250 or 0x1E00 <= code <= 0x1EFF or 0xFF21 <= code <= 0xFF5A)
        return LATIN if latin else LETTER
    if category[0] == "N":
        return DIGIT
    return PUNCTUATION if category[0] == "P" else SYMBOL


@cache
def marks() -> str:
    """Combining marks and joiners, for a class of `re`: they go on a word, and Python's ``\\w`` lacks them."""
    codes = [code for code in range(_TABLED) if unicodedata.category(chr(code)) in ("Mn", "Mc") or code in _JOINERS]
    starts = [code for i, code in enumerate(codes) if not i or codes[i - 1] != code - 1]
    ends = [code for i, code in enumerate(codes) if i + 1 == len(codes) or codes[i + 1] != code + 1]
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(starts, ends, strict=True))


ASCII_KINDS = bytes(kind_of(code) for code in range(128)) + bytes([SYMBOL]) * 128
"""For `bytes.translate`: right where the text is ASCII."""


@cache
def _table() -> np.ndarray:
    return np.fromiter((kind_of(code) for code in range(_TABLED)), np.uint8, _TABLED)


def byte_kinds(data: bytes, raw: np.ndarray) -> np.ndarray:
    """uint8 [len(data)]: the kind of the character that each byte belongs to. ``raw``: the bytes and 3 more, as uint8.

    ``data`` is UTF-8; surrogates in their three-byte form count as signs.
    """
    kinds = np.frombuffer(data.translate(ASCII_KINDS), np.uint8)
    leads = np.flatnonzero(raw[: len(data)] >= 0xC0)
    if not len(leads):
        return kinds
    kinds = kinds.copy()
    first = raw[leads]
    second, third, fourth = (raw[leads + i].astype(np.int32) & 0x3F for i in (1, 2, 3))
    code = (first & np.uint8(0x1F)).astype(np.int32) << 6 | second
    three, four = first >= 0xE0, first >= 0xF0
    code = np.where(three, (first & np.uint8(0x0F)).astype(np.int32) << 12 | second << 6 | third, code)
    code = np.where(four, (first & np.uint8(7)).astype(np.int32) << 18 | second << 12 | third << 6 | fourth, code)
    kind = np.where(code <= _LAST_HAN, np.uint8(HAN), np.uint8(SYMBOL))
    low = code < _TABLED
    kind[low] = _table()[code[low]]
    kinds[leads], kinds[leads + 1] = kind, kind
    kinds[leads[three] + 2] = kind[three]
    kinds[leads[four] + 3] = kind[four]
    return kinds
