"""Words of a text as numbers, without a Python loop over them: cut at ASCII white space, 64-bit hash of each word.

Text is bytes here: a space is one of the six ASCII white-space characters and NUL, never a Unicode one, as in the other
n-gram toolkits. Two words of one hash would be taken for one: at a million words the odds of any such pair are 3e-8.
"""

import hashlib
from typing import NamedTuple

import numpy as np

NEWLINE = 10
_SPACES = np.zeros(256, bool)
_SPACES[[0, 9, 10, 11, 12, 13, 32]] = True
_PAD = 72
_LONG = 64  # bytes; longer words are rare and hashed one by one
_KEEP = np.array([(1 << (8 * size)) - 1 for size in range(8)] + [(1 << 64) - 1], np.uint64)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SEED = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


class Words(NamedTuple):
    """The words of a piece of text, in order."""

    starts: np.ndarray
    """Byte where each word begins, int64 [w]."""
    lengths: np.ndarray
    """Its length in bytes, int64 [w]."""
    lines: np.ndarray
    """The line that it stands in, from 0, int64 [w]."""
    hashes: np.ndarray
    """uint64 [w]; equal for equal words."""

    @property
    def first(self) -> np.ndarray:
        """True where a word is the first of its line, bool [w]."""
        return np.concatenate([np.ones(min(1, len(self.lines)), bool), self.lines[1:] != self.lines[:-1]])


def split_words(data: bytes) -> Words:
    """The words of ``data``; a word never crosses its end, so pieces of a text are cut at line breaks."""
    padded = np.frombuffer(data + bytes(_PAD), np.uint8)
    raw = padded[: len(data)]
    cuts = np.flatnonzero(raw <= 32)
    kinds = raw[cuts]
    proper = _SPACES[kinds]
    if not proper.all():  # a control character inside a word
        cuts, kinds = cuts[proper], kinds[proper]
    # A word lies between two cuts that are not neighbours; the text's two ends are cuts as well.
    edges = np.concatenate([[-1], cuts, [len(data)]])
    lengths = np.diff(edges) - 1
    newlines = np.concatenate([[False], kinds == NEWLINE])
    lines = np.cumsum(newlines)
    kept = np.flatnonzero(lengths > 0)
    starts, lengths = edges[kept] + 1, lengths[kept]
    return Words(starts, lengths, lines[kept], _hash(padded, starts, lengths))


def hash_words(words: list[bytes]) -> np.ndarray:
    """The hash of each word, uint64 [w]: that of `split_words`. The words hold no white space and are not empty."""
    return split_words(b"\n".join(words)).hashes


def _hash(padded: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    # Eight bytes at any place of the text, as one number.
    eights = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    hashes = lengths.astype(np.uint64)
    hashes *= _SEED
    hashes ^= eights[starts] & _KEEP[np.minimum(lengths, 8)]
    _mix(hashes)
    rest = np.flatnonzero(lengths > 8)
    begun = 8
    while rest.size and begun < _LONG:
        part = eights[starts[rest] + begun] & _KEEP[np.minimum(lengths[rest] - begun, 8)]
        part ^= hashes[rest]
        _mix(part)
        hashes[rest] = part
        begun += 8
        rest = rest[lengths[rest] > begun]
    for i in rest.tolist():
        word = padded[starts[i] : starts[i] + lengths[i]].tobytes()
        hashes[i] = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
    return hashes


def _mix(values: np.ndarray) -> None:
    """Steps that can be undone, so that different eights of short words of one length stay different."""
    values *= _MIX
    values ^= values >> _HALF
    values *= _SEED
    values ^= values >> _HALF
