"""From keys to pairs, from pairs to the documents that stay: exact copies, near copies, clusters.

Documents are known by a number in the order of the whole corpus. A step works on arrays, so that a corpus of many
shards is taken one band, and one range of keys, at a time:

    sign (`text.minhash`)  texts of a shard   -> band keys, shingle sets
    band_pairs             one band's keys    -> pairs that agree in it
    merge_pairs            pairs of bands     -> each pair once
    verify                 pairs, shingles    -> the pairs whose exact Jaccard similarity passes
    cluster                pairs, priorities  -> which documents stay, and for whom the others go

Pairs are uint32 [p, 2], the lower number first.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from jaxlm.text.dedup import normal_key
from jaxlm.text.minhash import Shingles

MAX_DOCUMENTS = 1 << 32


class ShingleReader(Protocol):
    """Where `verify` finds shingle sets: `Shingles` in memory, or files (`run.corpus.shingle_files`)."""

    @property
    def sizes(self) -> np.ndarray:
        """Shingles of each document, int64 [n]."""
        ...

    def take(self, rows: np.ndarray) -> Shingles:
        """The sets of the documents ``rows``, in that order."""
        ...


def exact_keys(texts: Sequence[str]) -> np.ndarray:
    """16 bytes a text that are equal for texts equal up to case and white space (`normal_key`), uint64 [n, 2]."""
    return np.frombuffer(b"".join(map(normal_key, texts)), np.uint64).reshape(-1, 2)


def exact_pairs(keys_n2: np.ndarray, numbers_n: np.ndarray | None = None) -> np.ndarray:
    """Pairs of documents of one exact key: each with the lowest-numbered of its kind. uint32 [p, 2]."""
    numbers = _numbers(numbers_n, len(keys_n2))
    order = np.lexsort((keys_n2[:, 1], keys_n2[:, 0]))  # stable: numbers ascend among equal keys
    ordered = keys_n2[order]
    same = (ordered[1:] == ordered[:-1]).all(1)
    heads = _heads(same)
    return _unpack(np.sort(_pack(numbers[order[heads[1:][same]]], numbers[order[1:][same]])))


def band_pairs(keys_n: np.ndarray, numbers_n: np.ndarray | None = None, *, reach: int = 4) -> np.ndarray:
    """Pairs of documents that agree in one band, uint32 [p, 2], sorted, each once.

    keys_n
        The band's keys, uint64 [n]; 0: the document has none.
    numbers_n
        The documents' numbers, ascending, int64 [n]; None: 0, 1, 2 ... Give them where ``keys_n`` is a part of the
        corpus (a range of keys, or without the documents that are exact copies).
    reach
        Each document is paired with the first of its key and with the ``reach`` before it: all pairs where
        at most ``reach + 1`` documents share a key, and where many do, a number that grows with them, not their square.
    """
    numbers = _numbers(numbers_n, len(keys_n))
    order = np.argsort(keys_n, kind="stable")  # numbers ascend among equal keys
    order = order[np.searchsorted(keys_n[order], 1) :]
    ordered, numbers = keys_n[order], numbers[order]
    same = ordered[1:] == ordered[:-1]
    heads = _heads(same)
    packed = [_pack(numbers[heads[1:][same]], numbers[1:][same])]
    for step in range(1, reach + 1):
        near = ordered[step:] == ordered[:-step]
        if not near.any():
            break
        packed.append(_pack(numbers[:-step][near], numbers[step:][near]))
    return _unpack(_distinct(np.concatenate(packed)))


def merge_pairs(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The pairs of several bands, sorted, each once, uint32 [p, 2]."""
    return _unpack(_distinct(np.concatenate([np.zeros(0, np.uint64), *(_pack(p[:, 0], p[:, 1]) for p in parts)])))


class Verified(NamedTuple):
    """The pairs that are near copies."""

    pairs: np.ndarray
    """uint32 [p, 2], in the order given."""
    jaccard: np.ndarray
    """f32 [p]."""


def verify(pairs: np.ndarray, shingles: ShingleReader, threshold: float, *, chunk_shingles: int = 1 << 20) -> Verified:
    """The pairs whose shingle sets have a Jaccard similarity of at least ``threshold``, by counting.

    Memory: about 40 bytes for each of ``chunk_shingles`` shingles, whatever the number of pairs. Pairs in ascending
    order read the files in order. The hashes have 32 bits: J is off by about the sets' size / 2^32.
    """
    sizes = shingles.sizes[pairs]  # read once: of files it is put together anew
    smaller, larger = sizes.min(1), sizes.max(1)
    # J is at most smaller / larger: most pairs in vain are told by their sizes alone.
    able = (smaller > 0) & (smaller >= (threshold - 1e-9) * larger)
    pairs = pairs[able]
    jaccard = np.zeros(len(pairs))
    totals = np.cumsum(sizes[able].sum(1))
    begun = 0
    while begun < len(pairs):
        room = (totals[begun - 1] if begun else 0) + chunk_shingles
        stop = max(int(np.searchsorted(totals, room, side="right")), begun + 1)
        jaccard[begun:stop] = _jaccard(pairs[begun:stop].astype(np.int64), shingles)
        begun = stop
    near = jaccard >= threshold
    return Verified(pairs[near], jaccard[near].astype(np.float32))


class Clusters(NamedTuple):
    """What becomes of n documents."""

    kept_n: np.ndarray
    """bool [n]."""
    leader_n: np.ndarray
    """The document of its cluster that is kept, int64 [n]; its own number where it is itself kept."""


def cluster(pairs: np.ndarray, priority_n: np.ndarray) -> Clusters:
    """Joins documents over their pairs; of each cluster one stays: of the highest priority, then the lowest number.

    priority_n
        int [n], a document's source's; higher stays. One for each document of the corpus, paired or not.

    A cluster is what pairs connect, so two of its members need not be near each other: a chain of small edits is one.
    """
    count = len(priority_n)
    numbers = np.arange(count)
    if not len(pairs):
        return Clusters(np.ones(count, bool), numbers)
    first, second = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    if pairs.max() >= count:
        raise ValueError(f"a pair names document {pairs.max()}, but there are {count} priorities")
    members = np.unique(np.concatenate([first, second]))
    edges = np.searchsorted(members, first), np.searchsorted(members, second)
    graph = sparse.coo_array((np.ones(len(first), np.int8), edges), shape=(len(members), len(members)))
    _, labels = csgraph.connected_components(graph, directed=False)
    order = np.lexsort((members, -priority_n[members].astype(np.int64), labels))
    same = labels[order][1:] == labels[order][:-1]
    leader = numbers.copy()
    leader[members[order]] = members[order[_heads(same)]]
    return Clusters(leader == numbers, leader)


def _numbers(numbers_n: np.ndarray | None, count: int) -> np.ndarray:
    numbers = np.arange(count) if numbers_n is None else numbers_n
    if len(numbers) != count:
        raise ValueError(f"there are {len(numbers)} numbers for {count} keys")
    if count and not 0 <= int(numbers[-1]) < MAX_DOCUMENTS:
        raise ValueError(f"document number {numbers[-1]} is outside 0 .. {MAX_DOCUMENTS - 1}")
    return numbers


def _heads(same: np.ndarray) -> np.ndarray:
    """Place of the first of each run; ``same`` says where a place continues the one before it. int64 [len + 1]."""
    places = np.arange(len(same) + 1)
    places[1:][same] = 0
    return np.maximum.accumulate(places)


def _pack(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first.astype(np.uint64) << np.uint64(32) | second.astype(np.uint64)


def _unpack(packed: np.ndarray) -> np.ndarray:
    pairs = np.empty((len(packed), 2), np.uint32)
    pairs[:, 0] = packed >> np.uint64(32)
    pairs[:, 1] = packed.astype(np.uint32)
    return pairs


def _distinct(packed: np.ndarray) -> np.ndarray:
    packed.sort()  # not np.unique, which is far slower
    return packed[np.concatenate([[True], packed[1:] != packed[:-1]])] if len(packed) else packed


def _jaccard(pairs: np.ndarray, shingles: ShingleReader) -> np.ndarray:
    documents, places = np.unique(pairs, return_inverse=True)
    sets = shingles.take(documents)  # each read once
    rows = places.reshape(-1, 2)
    sizes = sets.sizes[rows].sum(1)
    tags = np.arange(len(pairs), dtype=np.uint64) << np.uint64(32)
    both = np.concatenate(
        [np.repeat(tags, sets.sizes[side]) | sets.take(side).hashes for side in (rows[:, 0], rows[:, 1])]
    )
    both.sort()
    twice = both[1:][both[1:] == both[:-1]]
    common = np.bincount((twice >> np.uint64(32)).astype(np.int64), minlength=len(pairs))
    return common / (sizes - common)
