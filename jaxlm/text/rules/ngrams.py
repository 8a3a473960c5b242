"""Repeated n-grams inside each text of a batch, whatever the units: words, lines or characters.

An (n + 1)-gram is repeated only where both its n-grams are. So the orders are taken upwards, and each looks only at the
places that the one before it left: of ordinary text the first order costs a sort, and the rest next to nothing.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.text.column import hash_runs, mix, prefix_sums

_ODD = np.uint64(0x9E3779B97F4A7C15)


class Groups(NamedTuple):
    """The n-grams that stand at least twice in one text."""

    order: int
    places: np.ndarray
    """First unit of each occurrence, int64 [m]: those of one n-gram together, ascending."""
    first: np.ndarray
    """Whether it is the first of its n-gram, bool [m]."""


def repeated_ngrams(hashes: np.ndarray, bounds: np.ndarray, orders: Sequence[int]) -> Iterator[Groups]:
    """`Groups` of each of the ascending ``orders``; the units of text i have ``hashes[bounds[i] : bounds[i + 1]]``."""
    count = len(hashes)
    if not orders or not count:
        return
    sums = prefix_sums(hashes)
    owners = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    limits = bounds[1:][owners]
    salts = np.arange(1, len(bounds), dtype=np.uint64)
    mix(salts)
    places = np.arange(count)
    twice = np.ones(count + 1, bool)
    for order in range(orders[0], orders[-1] + 1):
        if order > orders[0]:
            places = np.flatnonzero(twice[:-1] & twice[1:])
        places = places[places + order <= limits[places]]
        keys = hash_runs(sums, places, places + order)
        keys *= _ODD
        keys ^= salts[owners[places]]
        chosen, first = _group(keys)
        places = places[chosen]
        twice[:] = False
        twice[places] = True
        if order in orders:
            yield Groups(order, places, first)


def repeats(hashes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """True where a unit stood before in the same text, bool [u]."""
    repeated = np.zeros(len(hashes), bool)
    for groups in repeated_ngrams(hashes, bounds, (1,)):
        repeated[groups.places[~groups.first]] = True
    return repeated


def _group(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the keys that are there more than once, by key and ascending, and which is the first of its key."""
    bits = max(len(keys), 1).bit_length()
    mask = np.uint64((1 << bits) - 1)
    # One sort of numbers is many times faster than a stable argsort: the place rides in the low bits.
    packed = (keys & ~mask) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & mask).astype(np.int64)
    high = packed & ~mask
    same = high[1:] == high[:-1]
    near = np.flatnonzero(same)
    same[near] = keys[order[near]] == keys[order[near + 1]]
    after = np.concatenate([[False], same]) if len(keys) else same
    before = np.concatenate([same, [False]]) if len(keys) else same
    member = after | before
    return order[member], ~after[member]


def top_share(groups: Groups, chars: np.ndarray, bounds: np.ndarray, total_n: np.ndarray, gap: int) -> np.ndarray:
    """Share of a text's characters in its most frequent repeated n-gram (of equals the longest), float64 [n].

    chars: of each unit [u]; gap: characters counted between two units of an n-gram. 0 where nothing repeats.
    """
    best = np.zeros(len(bounds) - 1, np.int64)
    starts = np.flatnonzero(groups.first)
    if len(starts):
        counts = np.diff(np.concatenate([starts, [len(groups.places)]]))
        places = groups.places[starts]
        sizes = _lengths(chars, places, places + groups.order) + gap * (groups.order - 1)
        owners = np.searchsorted(bounds, places, "right") - 1
        np.maximum.at(best, owners, counts << 32 | np.minimum(sizes, (1 << 31) - 1))
    return (best >> 32) * (best & ((1 << 32) - 1)) / np.maximum(total_n, 1)


def repeated_share(groups: Groups, chars: np.ndarray, bounds: np.ndarray, total_n: np.ndarray) -> np.ndarray:
    """Share of a text's characters in n-grams that stood before, each character once, float64 [n]."""
    places = np.sort(groups.places[~groups.first])
    # The next occurrence may begin inside this one: what they share is counted with the next.
    stops = np.minimum(places + groups.order, np.concatenate([places[1:], [len(chars)]]) if len(places) else places)
    owners = np.searchsorted(bounds, places, "right") - 1
    covered = np.bincount(owners, _lengths(chars, places, stops), minlength=len(bounds) - 1)
    return covered / np.maximum(total_n, 1)


def _lengths(chars: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    total = np.zeros(len(chars) + 1, np.int64)
    np.cumsum(chars, out=total[1:])
    return total[last] - total[first]
