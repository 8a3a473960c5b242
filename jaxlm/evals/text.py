"""What the text of samples says, without a model: are its words real, and is it written or copied?"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.text.characters import marks

# Letters in a row, with their marks, are a word; where a script has no spaces (Han, Kana), each character is one.
_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_LETTER = rf"[^\W\d_{_WIDE}]"
_WORD = re.compile(rf"[{_WIDE}]|{_LETTER}+(?:[{marks()}]+{_LETTER}*)*")


class KnownWords(NamedTuple):
    """How many words of the samples occur in the training text."""

    known: int
    total: int
    unknown: tuple[str, ...]
    """The invented words, each once, in the order met."""

    @property
    def share(self) -> float | None:
        """None if the samples hold no word."""
        return self.known / self.total if self.total else None


class Copy(NamedTuple):
    """The longest stretch of a sample that stands verbatim in the training text."""

    length: int
    """In characters."""
    text: str
    sample: int
    """Which sample holds it; -1 if nothing is shared."""
    position: int
    """Where it stands in the training text; -1 if nothing is shared."""


def words(text: str) -> list[str]:
    """Lower-case words: runs of letters, and single characters of scripts without spaces.

    >>> words("It's item_3, 天下")
    ['it', 's', 'item', '天', '下']
    """
    return _WORD.findall(text.lower())


def vocabulary(texts: Iterable[str]) -> frozenset[str]:
    """All words of the training texts."""
    known: set[str] = set()
    for text in texts:
        known.update(words(text))
    return frozenset(known)


def known_words(samples: Iterable[str], known: frozenset[str]) -> KnownWords:
    """Share of the samples' words that ``known`` (see :func:`vocabulary`) holds.

    A sample that breaks off in mid-word counts that piece as a word; chance is not 0, since short words are easily hit.
    """
    found = [word for sample in samples for word in words(sample)]
    unknown = [word for word in found if word not in known]
    return KnownWords(len(found) - len(unknown), len(found), tuple(dict.fromkeys(unknown)))


_BASE = 0x9E3779B97F4A7C15  # odd, so that powers of it can be divided out modulo 2^64
_TABLE_BITS = 20


def _powers(base: int, count: int) -> np.ndarray:
    """1, B, B^2, ... modulo 2^64."""
    return np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full(count - 1, base, np.uint64)]), dtype=np.uint64)


class _Hashes:
    """Hashes of all windows of a text, modulo 2^64: prefix sums of c_i B^i, a window's difference shifted to i = 0."""

    def __init__(self, text: str, powers: np.ndarray, inverse_powers: np.ndarray):
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        mixed = (codes.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
        sums = np.cumsum(mixed * powers[: len(codes)], dtype=np.uint64)
        self.prefix = np.concatenate([np.zeros(1, np.uint64), sums])
        self.inverse_powers = inverse_powers

    def of(self, length: int) -> np.ndarray:
        """One hash for each start, uint64; none if the text is shorter than ``length``."""
        count = max(0, len(self.prefix) - length)
        return (self.prefix[length : length + count] - self.prefix[:count]) * self.inverse_powers[:count]


def _find(samples: Sequence[str], hashed: Sequence[_Hashes], text: str, piece: _Hashes, length: int) -> Copy | None:
    """A window of ``length`` that a sample shares with ``text``, or None. Hash hits are verified on the characters."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for number, hashes in enumerate(hashed):
        for start, value in enumerate(hashes.of(length).tolist()):
            wanted.setdefault(value, []).append((number, start))
    # A bit table over the top bits drops nearly every window before the exact look-up.
    shift = np.uint64(64 - _TABLE_BITS)
    table = np.zeros(1 << _TABLE_BITS, bool)
    table[(np.fromiter(wanted, np.uint64, len(wanted)) >> shift).astype(np.int64)] = True
    values = piece.of(length)
    for position in np.flatnonzero(table[(values >> shift).astype(np.int64)]).tolist():
        window = text[position : position + length]
        for number, start in wanted.get(int(values[position]), ()):
            if samples[number][start : start + length] == window:
                return Copy(length, window, number, position)
    return None


def longest_copy(samples: Sequence[str], training_text: str, *, chunk: int = 1 << 20) -> Copy:
    """The longest substring that any sample shares with the training text.

    The training text is read in chunks that overlap by the longest possible match. In each, one look asks if anything
    longer than the best so far is shared, and only then a binary search asks how long: parts of a shared string are
    shared too. Windows are compared by rolling hash (Karp and Rabin 1987) and hits are verified on the characters.
    Time and memory are linear in the training text and in the samples.
    """
    best = Copy(0, "", -1, -1)
    longest = min(max((len(sample) for sample in samples), default=0), len(training_text))
    if not longest:
        return best
    most = max(chunk + longest, *(len(sample) for sample in samples))
    powers, inverse_powers = _powers(_BASE, most), _powers(pow(_BASE, -1, 1 << 64), most)
    hashed = [_Hashes(sample, powers, inverse_powers) for sample in samples]
    for start in range(0, len(training_text), chunk):
        text = training_text[start : start + chunk + longest]
        piece = _Hashes(text, powers, inverse_powers)
        low, high = best.length, min(longest, len(text))
        probe = low + 1
        while low < high:
            found = _find(samples, hashed, text, piece, probe)
            if found is None:
                high = probe - 1
            else:
                best, low = found._replace(position=start + found.position), probe
            probe = (low + high + 1) // 2
    return best
