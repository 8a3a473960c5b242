"""Open-addressing hash tables made and searched with whole arrays.

Linear probing has a closed form. Let the keys be sorted by bucket; the i-th then lies in slot

    i + max over j <= i of (bucket_j - j)

which is ``cumsum``-like and needs no loop. Searching probes all wanted keys at once and goes on with those that met
another key. A row holds a key of one or two 64-bit columns and one column of payload, so a hit costs one cache line.
"""

from collections.abc import Callable, Iterator

import numpy as np

from jaxlm.models.ngram_sort import Allocate, Keys, Sorter, sort_in_memory, spans

Store = Callable[[int, Iterator[np.ndarray]], np.ndarray]
"""``store(width, blocks)``: the rows of that width that come in blocks, as one array in memory or in a file."""

KEY_BITS = 64
PACKED_BITS = 63

EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
"""The first column of a free row; no key begins with it."""

SPACE = 1.6
"""Buckets for each key: a search looks at 1.8 rows where it finds, 2.9 where it does not."""

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


def lay_out(
    columns: tuple[np.ndarray, ...], sorter: Sorter = sort_in_memory
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For distinct keys, block by block in the order of the table: their indices and their slots, int64."""
    size = len(columns[0])
    buckets = num_buckets(size)
    bits = max(1, size.bit_length())
    packed = bits + buckets.bit_length() <= PACKED_BITS  # (bucket, index) in one number

    def keys() -> Iterator[Keys]:
        for span in spans(size):
            bucket = bucket_of(tuple(column[span] for column in columns), buckets)
            index = np.arange(span.start, span.stop)
            if packed:
                bucket <<= bits
                bucket |= index
                yield (bucket.view(np.uint64),)
            else:
                yield bucket.view(np.uint64), index.view(np.uint64)

    begin, top = 0, -1
    for block in sorter(keys()):
        number = block[-1].view(np.int64)
        order, bucket = (number & ((1 << bits) - 1), number >> bits) if packed else (number, block[0].view(np.int64))
        index = np.arange(begin, begin + len(order))
        furthest = np.maximum.accumulate(bucket - index) if begin == 0 else _accumulate(bucket - index, top)
        begin += len(order)
        top = int(furthest[-1])
        yield order, furthest + index


def _accumulate(values: np.ndarray, top: int) -> np.ndarray:
    values[0] = max(int(values[0]), top)
    return np.maximum.accumulate(values, out=values)


def in_memory(width: int, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """The default `Store`."""
    return np.concatenate(list(blocks))


def make_rows(
    columns: tuple[np.ndarray, ...],
    payload: np.ndarray,
    store: Store = in_memory,
    sorter: Sorter = sort_in_memory,
    allocate: Allocate = np.empty,
) -> tuple[np.ndarray, np.ndarray]:
    """The table of distinct keys: its rows, uint64 [r, columns + 1], and the row of each key, int64 [m].

    The last row is free and holds the number of buckets.
    """
    width, size = len(columns) + 1, len(payload)
    placed = allocate(size, np.int64)

    def blocks() -> Iterator[np.ndarray]:
        end = 0
        for order, slots in lay_out(columns, sorter):
            placed[order] = slots
            filled = np.empty((len(order), width), np.uint64)
            for i, column in enumerate((*columns, payload)):
                filled[:, i] = column.take(order)
            block = _free_rows(int(slots[-1]) + 1 - end, width)
            block[slots - end] = filled
            end += len(block)
            yield block
        rest = _free_rows(max(0, num_buckets(size) - end) + 1, width)
        rest[-1, 1] = num_buckets(size)
        yield rest

    return store(width, blocks()), placed


def _free_rows(count: int, width: int) -> np.ndarray:
    rows = np.zeros((count, width), np.uint64)
    rows[:, 0] = EMPTY
    return rows


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


def is_wide(num_contexts: int, vocab_size: int, key_bits: int = KEY_BITS) -> bool:
    """True where (context, word) takes two columns, as it needs ``key_bits`` bits or more."""
    return num_contexts.bit_length() + word_bits(vocab_size) >= key_bits
