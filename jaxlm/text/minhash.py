"""MinHash signatures of a batch of texts, and how many bands of how many rows find a stated Jaccard similarity.

A *shingle* is a run of ``width`` words (`text.column`: letters and digits; a Han or Kana character is a word), blind to
ASCII case, punctuation and white space. Two texts are near copies where their sets of shingles have

    J(A, B) = |A and B| / |A or B|  >=  threshold        (Broder 1997)

The smallest of a random hash over A and over B is the same with probability J. A band is ``rows`` such minima; texts
are compared where they agree in a whole band, of which there are ``bands``, so with probability 1 - (1 - J^rows)^bands.
What is found so is compared shingle by shingle (`text.duplicates`): chance decides what is missed, never what is taken.

If a share c of the words is changed at random, q = (1 - c)^width of the shingles stay and J is near q / (2 - q): for 5,
10 and 20 % of the words 0.75, 0.57 and 0.34 at width 3, but 0.63, 0.42 and 0.20 at width 5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from jaxlm.text.column import TextColumn, hash_runs, mix, prefix_sums

SPARE = 3
"""A text needs this many words above the width: with fewer shingles one equal 32-bit hash would be much of J."""
_CHUNK = 1 << 15  # shingles hashed at a time: they stay in the processor's cache
_BASE = np.uint64(0xD1342543DE82EF95)


def hit_probability(jaccard: float, bands: int, rows: int) -> float:
    """The chance that two texts of this similarity agree in some band."""
    return 1.0 - (1.0 - jaccard**rows) ** bands


def choose_bands(threshold: float, recall: float, max_hashes: int) -> tuple[int, int]:
    """(bands, rows): the most rows, then the fewest bands, that find a pair at the threshold with chance ``recall``.

    More rows mean fewer pairs compared in vain. ValueError where no shape of ``max_hashes`` minima reaches ``recall``.
    """
    for rows in range(max_hashes, 0, -1):
        miss = 1.0 - threshold**rows  # of one band; in floats it may be 1
        bands = math.ceil(math.log(1.0 - recall) / math.log(miss)) if miss < 1.0 else max_hashes + 1
        if bands * rows <= max_hashes:
            return max(bands, 1), rows
    raise ValueError(
        f"max_hashes={max_hashes} cannot find pairs at threshold={threshold} with recall={recall}: "
        f"raise max_hashes or the threshold, or lower recall"
    )


@dataclass(frozen=True)
class MinHash:
    """How signatures are made. All shards of a corpus need the same; so do corpora that are to be compared."""

    width: int
    bands: int
    rows: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "bands", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} is below 0")


class Shingles(NamedTuple):
    """Sets of shingles, one a text: sorted, without repeats."""

    hashes: np.ndarray
    """uint32 [s]."""
    bounds: np.ndarray
    """Those of text i are ``hashes[bounds[i] : bounds[i + 1]]``, int64 [n + 1]."""

    @property
    def sizes(self) -> np.ndarray:
        """Shingles of each text, int64 [n]; 0 for a text too short to have near copies."""
        return np.diff(self.bounds)

    def take(self, rows: np.ndarray) -> "Shingles":
        """The sets of the texts ``rows`` [r], in that order; a text may be taken twice."""
        sizes = self.bounds[rows + 1] - self.bounds[rows]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(bounds[-1]) + np.repeat(self.bounds[rows] - bounds[:-1], sizes)
        return Shingles(self.hashes[places], bounds)


class Signatures(NamedTuple):
    """What is kept of n texts."""

    keys_nb: np.ndarray
    """A number a band, uint64 [n, bands]; 0 in every band: the text is too short."""
    shingles: Shingles


def sign(texts: TextColumn | Sequence[str], config: MinHash) -> Signatures:
    """Band keys and shingle sets of a batch of texts (1 to 4 MB). A text's depend on its own words alone.

    Texts of fewer than ``width + SPARE`` words get no keys and no shingles: only exact copies of them are found.
    """
    shingles = shingle_sets(texts, config.width)
    return Signatures(_band_keys(_minima(shingles, config), config, shingles.sizes > 0), shingles)


def word_runs(texts: TextColumn | Sequence[str], width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hash of every run of ``width`` words uint64 [r], the text of each int64 [r], its place among the words [r]).

    ``texts`` without ``width`` words have no runs. Runs come in the order of texts and words.
    """
    hashes, bounds = words(texts)
    first = np.arange(max(len(hashes) - width + 1, 0))
    owner = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))[: len(first)]
    inside = first + width <= bounds[1:][owner]
    first, owner = first[inside], owner[inside]
    runs = hash_runs(prefix_sums(hashes), first, first + width)
    mix(runs)
    return runs, owner, first - bounds[owner]


def words(texts: TextColumn | Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(hash of every word uint64 [w], those of text i are ``bounds[i] : bounds[i + 1]`` int64 [n + 1])."""
    column = texts if isinstance(texts, TextColumn) else TextColumn(texts)
    before = np.concatenate([[0], np.cumsum(column.is_word)])
    return column.unit_hashes[column.is_word], before[column.units.bounds]


def shingle_sets(texts: TextColumn | Sequence[str], width: int) -> Shingles:
    """The set of shingles of each text, as 32-bit hashes; empty for texts of fewer than ``width + SPARE`` words."""
    column = texts if isinstance(texts, TextColumn) else TextColumn(texts)
    runs, owner, _ = word_runs(column, width)
    long = column.words_n >= width + SPARE
    packed = owner.astype(np.uint64) << np.uint64(32) | runs >> np.uint64(32)
    if not long.all():
        packed = packed[long[owner]]
    packed.sort()
    if len(packed):
        packed = packed[np.concatenate([[True], packed[1:] != packed[:-1]])]
    edges = np.arange(len(column) + 1, dtype=np.uint64) << np.uint64(32)
    return Shingles(packed.astype(np.uint32), np.searchsorted(packed, edges))


@cache
def _multipliers(config: MinHash) -> np.ndarray:
    """uint32 [bands * rows, 2]: an odd factor and a term of each hash."""
    drawn = np.random.default_rng([config.seed, 0x4D48]).integers(0, 1 << 32, (config.bands * config.rows, 2))
    return drawn.astype(np.uint32) | np.array([1, 0], np.uint32)


def _minima(shingles: Shingles, config: MinHash) -> np.ndarray:
    """The smallest of each hash over each set, uint32 [bands * rows, n]; undefined for empty sets."""
    factors = _multipliers(config)
    minima = np.zeros((len(factors), len(shingles.bounds) - 1), np.uint32)
    rows = np.flatnonzero(shingles.sizes)
    starts, ends = shingles.bounds[rows], shingles.bounds[rows + 1]  # nothing lies between: empty sets are empty
    begun = 0
    while begun < len(rows):
        stop = max(int(np.searchsorted(ends, starts[begun] + _CHUNK, side="right")), begun + 1)
        part = shingles.hashes[starts[begun] : ends[stop - 1]]
        places = starts[begun:stop] - starts[begun]
        room = np.empty_like(part)
        for k, (factor, term) in enumerate(factors):
            np.multiply(part, factor, out=room)
            np.add(room, term, out=room)
            minima[k, rows[begun:stop]] = np.minimum.reduceat(room, places)
        begun = stop
    return minima


def _band_keys(minima: np.ndarray, config: MinHash, full: np.ndarray) -> np.ndarray:
    by_row = minima.reshape(config.bands, config.rows, -1)
    keys = np.full((config.bands, minima.shape[1]), config.rows, np.uint64)
    for row in range(config.rows):
        keys *= _BASE
        keys += by_row[:, row]
        mix(keys)
    keys += keys == 0  # 0 means that there is none
    return np.ascontiguousarray((keys * full).T)
