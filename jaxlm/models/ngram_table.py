"""Open-addressing hash tables made and searched with whole arrays.

Linear probing has a closed form. Let the keys be sorted by bucket; the i-th then lies in slot

    i + max over j <= i of (bucket_j - j)

which is ``cumsum``-like and needs no loop. Searching probes all wanted keys at once and goes on with those that met
another key. A row holds a key of one or two 64-bit columns and one column of payload, so a hit costs one cache line.
"""

from collections.abc import Callable, Iterator

import numpy as np

Store = Callable[[tuple[int, int], Iterator[np.ndarray]], np.ndarray]
"""``store(shape, blocks)``: the array of that shape whose rows come in blocks, in memory or in a file."""

KEY_BITS = 64

EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
"""The first column of a free row; no key begins with it."""

SPACE = 1.6
"""Buckets for each key: a search looks at 1.8 rows where it finds, 2.9 where it does not."""

BLOCK = 1 << 16
"""Rows put together at once, so that they stay in the cache."""

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT = np.uint64(32)


def num_buckets(num_keys: int) -> int:
    """Buckets of a table of that many keys."""
    return max(8, int(num_keys * SPACE))


def bucket_of(columns: tuple[np.ndarray, ...], buckets: int) -> np.ndarray:
    """The bucket of each key, int64 [m]."""
    mixed = columns[0] * _A
    mixed ^= mixed >> _SHIFT
    if len(columns) > 1:
        mixed ^= columns[1] * _B
        mixed *= _A
        mixed ^= mixed >> _SHIFT
    mixed *= _B
    mixed >>= _SHIFT
    if buckets < 1 << 32:
        mixed *= np.uint64(buckets)
        mixed >>= _SHIFT
    else:  # 32 bits do not reach: neighbours share the finer part
        mixed = (mixed.astype(np.float64) * (buckets / 2**32)).astype(np.uint64)
    return mixed.view(np.int64)


def lay_out(columns: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray, int]:
    """For distinct keys: their indices in the order of the table, int64 [m], the slot of each of those, int64 [m], and
    the number of rows of the table (the last row is free)."""
    size = len(columns[0])
    buckets = num_buckets(size)
    bucket = bucket_of(columns, buckets)
    bits = max(1, size.bit_length())
    if bits + buckets.bit_length() <= 63:  # one sort of (bucket, index) packed together
        bucket <<= bits
        bucket |= np.arange(size)
        bucket.sort()
        order = bucket & ((1 << bits) - 1)
        bucket >>= bits
    else:
        order = np.argsort(bucket, kind="stable")
        bucket = bucket[order]
    index = np.arange(size)
    bucket -= index
    slots = np.maximum.accumulate(bucket, out=bucket)
    slots += index
    last = int(slots[-1]) if size else 0
    return order, slots, max(buckets, last + 1) + 1


def in_memory(shape: tuple[int, int], blocks: Iterator[np.ndarray]) -> np.ndarray:
    """The default `Store`."""
    rows = np.empty(shape, np.uint64)
    begin = 0
    for block in blocks:
        rows[begin : begin + len(block)] = block
        begin += len(block)
    return rows


def make_rows(
    columns: tuple[np.ndarray, ...], payload: np.ndarray, store: Store = in_memory
) -> tuple[np.ndarray, np.ndarray]:
    """The table of distinct keys: its rows, uint64 [r, columns + 1], and the row of each key, int64 [m]."""
    order, slots, num_rows = lay_out(columns)
    width = len(columns) + 1

    def blocks() -> Iterator[np.ndarray]:
        for begin in range(0, num_rows, BLOCK):
            block = np.zeros((min(BLOCK, num_rows - begin), width), np.uint64)
            block[:, 0] = EMPTY
            first, last = np.searchsorted(slots, [begin, begin + BLOCK])
            part, places = order[first:last], slots[first:last] - begin
            filled = np.empty((len(part), width), np.uint64)
            for i, column in enumerate((*columns, payload)):
                filled[:, i] = column.take(part)
            block[places] = filled
            if begin + BLOCK >= num_rows:
                block[-1, 1] = num_buckets(len(payload))
            yield block

    rows = store((num_rows, width), blocks())
    placed = np.empty_like(slots)
    placed[order] = slots
    return rows, placed


def search(rows: np.ndarray, columns: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where keys lie.

    Returns:
      slots: int64 [m], of no meaning where a key is absent.
      found: bool [m].
      payload: uint64 [m], of no meaning where a key is absent.
    """
    width = rows.shape[1] - 1
    slots = bucket_of(columns, _buckets_of(rows))
    seen = rows.take(slots, axis=0)
    found = _equal(seen, columns)
    payload = seen[:, width].copy()
    # What met another key goes on to the next row; what met a free row is absent.
    pending = np.flatnonzero(~(found | (seen[:, 0] == EMPTY)))
    places = slots.take(pending)
    wanted = tuple(column.take(pending) for column in columns)
    while pending.size:
        places += 1
        seen = rows.take(places, axis=0)
        hit = _equal(seen, wanted)
        go = np.flatnonzero(~(hit | (seen[:, 0] == EMPTY)))
        hit = np.flatnonzero(hit)
        done = pending.take(hit)
        found[done] = True
        slots[done] = places.take(hit)
        payload[done] = seen[:, width].take(hit)
        pending, places, wanted = pending.take(go), places.take(go), tuple(column.take(go) for column in wanted)
    return slots, found, payload


def _equal(seen: np.ndarray, columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """Which rows hold the keys, bool [m]."""
    equal = seen[:, 0] == columns[0]
    for i in range(1, len(columns)):
        equal &= seen[:, i] == columns[i]
    return equal


def _buckets_of(rows: np.ndarray) -> int:
    """The number of buckets, kept in the free last row."""
    return int(rows[-1, 1])


def word_bits(vocab_size: int) -> int:
    """Bits of an id in a packed key."""
    return max(1, (vocab_size - 1).bit_length())


def pack(context: np.ndarray, word: np.ndarray, num_columns: int, vocab_size: int) -> tuple[np.ndarray, ...]:
    """The key columns of (context int64 [m], word int64 [m])."""
    if num_columns == 1:
        return (((context << word_bits(vocab_size)) | word).view(np.uint64),)
    return context.view(np.uint64), word.view(np.uint64)


def payload_of(logprobs: np.ndarray, backoffs: np.ndarray) -> np.ndarray:
    """Two f32 [m] as one uint64 [m]."""
    both = np.empty((len(logprobs), 2), np.float32)
    both[:, 0], both[:, 1] = logprobs, backoffs
    return both.view(np.uint64)[:, 0]


def add_table(
    context: np.ndarray,
    word: np.ndarray,
    payload: np.ndarray,
    *,
    num_contexts: int,
    vocab_size: int,
    store: Store = in_memory,
    key_bits: int = KEY_BITS,
) -> tuple[np.ndarray, np.ndarray]:
    """The table of one order, and the row of each of its n-grams.

    Args:
      context: number of each n-gram's context, int64 [g], below ``num_contexts``.
      key_bits: (context, word) takes two columns where it needs as many bits or more.
    """
    wide = num_contexts.bit_length() + word_bits(vocab_size) >= key_bits
    return make_rows(pack(context, word, 2 if wide else 1, vocab_size), payload, store)
