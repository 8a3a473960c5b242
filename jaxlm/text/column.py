"""Many texts as one run of bytes, and what rules read off it: units, lines, paragraphs, hashes, without Python loops.

Units are what the rules count and compare. A *word* is an unbroken run of letters and digits, and each Han or Kana
character is one; a *sign* is an unbroken run of anything else that is not white space ("...", "-", "=="). So "don't" is
three units and "天下" two.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from jaxlm.text.characters import CLASSES, LAST_LETTER, LAST_WORD, SINGLE, SPACE, byte_kinds

NEWLINE = 10
MAX_BYTES = (1 << 31) - 16
_PAD = 72
_LONG = 64  # bytes; longer units are rare and hashed one by one
_KEEP = np.array([(1 << (8 * size)) - 1 for size in range(8)] + [(1 << 64) - 1], np.uint64)
_MIX, _SEED, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93), np.uint64(32)
_BASE = 0xD1342543DE82EF95  # odd, so that it has an inverse modulo 2^64
_CLASS_OF = CLASSES.tobytes() + bytes(256 - len(CLASSES))


class Spans(NamedTuple):
    """Pieces of the texts of a column, in order; no piece lies in two texts."""

    starts: np.ndarray
    """First byte, int64 [s]."""
    ends: np.ndarray
    """One past the last byte, int64 [s]."""
    bounds: np.ndarray
    """The pieces of text i are ``bounds[i] : bounds[i + 1]``, int64 [n + 1]."""

    @property
    def count_n(self) -> np.ndarray:
        """Pieces of each text, int64 [n]."""
        return np.diff(self.bounds)

    @property
    def owners(self) -> np.ndarray:
        """The text that each piece lies in, int64 [s]."""
        return np.repeat(np.arange(len(self.bounds) - 1), self.count_n)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over the pieces of each text, int64 [n] (float64 for floats)."""
        total = np.zeros(len(values) + 1, np.float64 if values.dtype.kind == "f" else np.int64)
        np.cumsum(values, out=total[1:])
        return total[self.bounds[1:]] - total[self.bounds[:-1]]

    def kept(self, mask: np.ndarray) -> "Spans":
        """The pieces where ``mask`` [s] holds."""
        return Spans(self.starts[mask], self.ends[mask], np.concatenate([[0], np.cumsum(mask)])[self.bounds])


class TextColumn:
    """n texts and their cached views. Texts are joined by line breaks, so no unit, line or paragraph crosses a border.

    About 30 bytes of memory a byte of text when all views are in use: give it batches of 1 to 4 MB.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = tuple(texts)
        encoded = [text.encode("utf-8", "surrogatepass") for text in self.texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self.ends_n = np.cumsum(lengths + 1) - 1
        self.starts_n = self.ends_n - lengths
        self.data = b"\n".join(encoded)
        if len(self.data) > MAX_BYTES:
            raise ValueError(f"a batch of {len(self.data)} bytes is above {MAX_BYTES}: cut it into smaller ones")

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def folded(self) -> bytes:
        """The bytes with A-Z as a-z: hashes and searches are blind to ASCII case."""
        return self.data.lower()

    @cached_property
    def raw(self) -> np.ndarray:
        """The bytes and some zeros, uint8 [b + 72]."""
        return np.frombuffer(self.data + bytes(_PAD), np.uint8)

    @cached_property
    def eights(self) -> np.ndarray:
        """Eight folded bytes from each place, as one little-endian number, uint64 [b + 65] (a view)."""
        padded = np.frombuffer(self.folded + bytes(_PAD), np.uint8)
        return np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))

    @cached_property
    def kinds(self) -> np.ndarray:
        """Kind of the character (`text.characters`) that each byte belongs to, uint8 [b]."""
        return byte_kinds(self.data, self.raw)

    @cached_property
    def _leads(self) -> np.ndarray | None:
        """Characters that begin before each place, int32 [b + 1]; None where every byte is a character."""
        if self.data.isascii():
            return None
        total = np.zeros(len(self.data) + 1, np.int32)
        np.cumsum((self.raw[: len(self.data)] & np.uint8(0xC0)) != np.uint8(0x80), out=total[1:])
        return total

    def chars(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Characters of each piece, int64 [s]."""
        if self._leads is None:
            return ends - starts
        return (self._leads[ends] - self._leads[starts]).astype(np.int64)

    @cached_property
    def chars_n(self) -> np.ndarray:
        """Characters of each text, white space too, int64 [n]."""
        return self.chars(self.starts_n, self.ends_n)

    @cached_property
    def kind_counts(self) -> np.ndarray:
        """Characters of each text by kind, int64 [n, 8]."""
        places = np.flatnonzero((self.raw[: len(self.data)] & np.uint8(0xC0)) != np.uint8(0x80))
        keys = self._bounds(places)
        keys = np.repeat(np.arange(len(self)) * 8, np.diff(keys))
        # The joining line breaks stand before the next text's start: they are counted to the text before them.
        counts = np.bincount(keys + self.kinds[places], minlength=8 * len(self)).reshape(-1, 8)
        counts[:-1, SPACE] -= 1
        return counts

    def _bounds(self, places: np.ndarray) -> np.ndarray:
        """Which of the ascending byte places lie in which text, int64 [n + 1]."""
        return np.concatenate([np.searchsorted(places, self.starts_n), [len(places)]])

    # Units

    @cached_property
    def units(self) -> Spans:
        """Words and signs."""
        size = len(self.data)
        if not size:
            none = np.zeros(0, np.int64)
            return Spans(none, none, np.zeros(len(self) + 1, np.int64))
        classes = np.frombuffer(self.kinds.tobytes().translate(_CLASS_OF), np.uint8)
        cut = np.empty(size, bool)
        cut[0] = True
        np.not_equal(classes[1:], classes[:-1], out=cut[1:])
        if self._leads is not None:
            cut |= (classes == SINGLE) & ((self.raw[:size] & np.uint8(0xC0)) != np.uint8(0x80))
        starts = np.flatnonzero(cut)
        ends = np.concatenate([starts[1:], [size]])
        proper = self.kinds[starts] != SPACE
        starts, ends = starts[proper], ends[proper]
        return Spans(starts, ends, self._bounds(starts))

    @cached_property
    def unit_hashes(self) -> np.ndarray:
        """uint64 [u]: equal for units equal up to ASCII case, and (but for one pair in 2^64) for no others."""
        return self._hash(self.units.starts, self.units.ends - self.units.starts)

    @cached_property
    def unit_chars(self) -> np.ndarray:
        """Characters of each unit, int64 [u]."""
        return self.chars(self.units.starts, self.units.ends)

    @cached_property
    def is_word(self) -> np.ndarray:
        """Whether each unit is a word, bool [u]."""
        return self.kinds[self.units.starts] <= LAST_WORD

    @cached_property
    def has_letter(self) -> np.ndarray:
        """Whether each unit has a letter, bool [u]."""
        starts = self.units.starts
        # Between two starts stand one unit and white space, whose kind is the highest.
        return np.minimum.reduceat(self.kinds, starts) <= LAST_LETTER if len(starts) else np.zeros(0, bool)

    @cached_property
    def words_n(self) -> np.ndarray:
        """Words of each text, int64 [n]."""
        return self.units.sums(self.is_word)

    # Lines and paragraphs

    @cached_property
    def lines(self) -> Spans:
        """Lines that are not blank, without the white space at their ends. Only a line feed breaks a line."""
        return self._rows[0]

    @cached_property
    def _rows(self) -> tuple[Spans, np.ndarray, np.ndarray, np.ndarray]:
        """Lines that are not blank; their first units, one past their last ones; their numbers, blank ones counted."""
        breaks = np.flatnonzero(self.raw[: len(self.data)] == NEWLINE)
        edges = np.searchsorted(self.units.starts, np.concatenate([[0], breaks, [len(self.data)]]))
        numbers = np.flatnonzero(edges[1:] > edges[:-1])
        first, last = edges[numbers], edges[numbers + 1]
        starts, ends = self.units.starts[first], self.units.ends[last - 1]
        return Spans(starts, ends, self._bounds(starts)), first, last, numbers

    @cached_property
    def line_hashes(self) -> np.ndarray:
        """uint64 [lines]: equal for lines of the same units in the same order."""
        _, first, last, _ = self._rows
        return self.run_hashes(first, last)

    @cached_property
    def paragraphs(self) -> Spans:
        """Runs of lines between blank ones."""
        return self._blocks[0]

    @cached_property
    def _blocks(self) -> tuple[Spans, np.ndarray]:
        lines, first, last, numbers = self._rows
        begins = np.ones(len(numbers), bool)
        begins[1:] = np.diff(numbers) > 1
        begins[lines.bounds[:-1][lines.count_n > 0]] = True
        starts = np.flatnonzero(begins)
        ends = np.concatenate([starts[1:], [len(numbers)]]) if len(starts) else starts
        spans = Spans(lines.starts[starts], lines.ends[ends - 1], self._bounds(lines.starts[starts]))
        return spans, self.run_hashes(first[starts], last[ends - 1])

    @cached_property
    def paragraph_hashes(self) -> np.ndarray:
        """uint64 [paragraphs]: equal for paragraphs of the same units in the same order."""
        return self._blocks[1]

    # Characters

    @cached_property
    def characters(self) -> Spans:
        """Every character that is no white space."""
        size = len(self.data)
        starts = np.flatnonzero(
            ((self.raw[:size] & np.uint8(0xC0)) != np.uint8(0x80)) & (self.kinds != np.uint8(SPACE))
        )
        first = self.raw[starts]
        lengths = 1 + (first >= 0xC0).astype(np.int64) + (first >= 0xE0) + (first >= 0xF0)
        return Spans(starts, starts + lengths, self._bounds(starts))

    @cached_property
    def character_hashes(self) -> np.ndarray:
        """uint64 [c]."""
        return self._hash(self.characters.starts, self.characters.ends - self.characters.starts)

    # Hashes and searches

    def _hash(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        hashes = lengths.astype(np.uint64)
        hashes *= _SEED
        hashes ^= self.eights[starts] & _KEEP[np.minimum(lengths, 8)]
        mix(hashes)
        rest, begun = np.flatnonzero(lengths > 8), 8
        while rest.size and begun < _LONG:
            part = self.eights[starts[rest] + begun] & _KEEP[np.minimum(lengths[rest] - begun, 8)]
            part ^= hashes[rest]
            mix(part)
            hashes[rest] = part
            begun += 8
            rest = rest[lengths[rest] > begun]
        for i in rest.tolist():
            unit = self.folded[starts[i] : starts[i] + lengths[i]]
            hashes[i] = int.from_bytes(hashlib.blake2b(unit, digest_size=8).digest(), "little")
        return hashes

    @cached_property
    def _unit_sums(self) -> np.ndarray:
        return prefix_sums(self.unit_hashes)

    def run_hashes(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Hash of each run of units ``first : last``, uint64 [runs]."""
        return hash_runs(self._unit_sums, first, last)

    def places(self, pattern: bytes) -> np.ndarray:
        """Bytes where ``pattern`` (in lower case) begins in the folded text, without overlaps, int64, ascending."""
        if len(pattern) == 1:
            return np.flatnonzero(np.frombuffer(self.folded, np.uint8) == pattern[0])
        found, place = [], self.folded.find(pattern)
        while place >= 0:
            found.append(place)
            place = self.folded.find(pattern, place + len(pattern))
        return np.array(found, np.int64)

    def counts_of(self, *patterns: bytes) -> np.ndarray:
        """How often the patterns stand in each text, int64 [n]."""
        return sum((np.diff(self._bounds(self.places(p))) for p in patterns), np.zeros(len(self), np.int64))

    def starts_with(self, spans: Spans, patterns: Sequence[bytes]) -> np.ndarray:
        """Whether each piece begins with one of the patterns (lower case, at most 8 bytes), bool [s]."""
        return self._match(spans, spans.starts, patterns, at_end=False)

    def ends_with(self, spans: Spans, patterns: Sequence[bytes]) -> np.ndarray:
        """Whether each piece ends with one of the patterns (lower case, at most 8 bytes), bool [s]."""
        return self._match(spans, spans.ends, patterns, at_end=True)

    def _match(self, spans: Spans, places: np.ndarray, patterns: Sequence[bytes], *, at_end: bool) -> np.ndarray:
        found = np.zeros(len(places), bool)
        for size in sorted({len(pattern) for pattern in patterns}):
            wanted = [int.from_bytes(pattern, "little") for pattern in patterns if len(pattern) == size]
            here = np.maximum(places - size, 0) if at_end else places
            eights = self.eights[here] & _KEEP[size]
            found |= np.isin(eights, np.array(wanted, np.uint64)) & (spans.ends - spans.starts >= size)
        return found


def mix(values: np.ndarray) -> None:
    """Scrambles uint64 values in place, by steps that can be undone."""
    values *= _MIX
    values ^= values >> _HALF
    values *= _SEED
    values ^= values >> _HALF


@lru_cache(maxsize=4)
def _powers(size: int, base: int) -> np.ndarray:
    powers = np.full(size, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, out=powers)


def _room(size: int) -> int:
    return 1 << max(size, 1024).bit_length()


def prefix_sums(hashes: np.ndarray) -> np.ndarray:
    """What `hash_runs` needs, uint64 [u + 1]: sums of hash_i * base^i modulo 2^64."""
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * _powers(_room(len(hashes)), _BASE)[: len(hashes)], out=sums[1:])
    return sums


def hash_runs(sums: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Polynomial hash of each run ``first : last`` of hashes, at constant cost a run, uint64 [runs]."""
    inverse = _powers(_room(len(sums)), pow(_BASE, -1, 1 << 64))
    return (sums[last] - sums[first]) * inverse[first]
