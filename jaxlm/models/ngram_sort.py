"""Sorting rows of integers, at once in memory or by another way that is passed in (on disk: `jaxlm.io.ngram.spill`)."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

Keys = tuple[np.ndarray, ...]
"""Rows to be sorted, as one or two uint64 columns [m], the first the most significant."""

Sorter = Callable[[Iterable[Keys]], Iterator[Keys]]
"""Rows in any order, in blocks -> all of them in order, in blocks."""

Allocate = Callable[[int, type], np.ndarray]
"""``allocate(length, dtype)``: an array, in memory or in a file."""

BLOCK = 1 << 17
"""Rows made and read at once, so that they stay in the cache."""


def sort_in_memory(blocks: Iterable[Keys]) -> Iterator[Keys]:
    """The default `Sorter`: everything at once, given out in parts."""
    parts = list(zip(*blocks, strict=True))
    if parts:
        columns = sort_keys(tuple(np.concatenate(column) for column in parts))
        del parts
        for begin in range(0, len(columns[0]), BLOCK):
            yield tuple(column[begin : begin + BLOCK] for column in columns)


def sort_keys(columns: Keys) -> Keys:
    """Rows in order. One column is sorted where it lies."""
    if len(columns) == 1:
        columns[0].sort()
        return columns
    order = np.lexsort(columns[::-1])
    return tuple(column[order] for column in columns)


def spans(length: int) -> Iterator[slice]:
    """0 .. length in blocks."""
    for begin in range(0, length, BLOCK):
        yield slice(begin, min(length, begin + BLOCK))
