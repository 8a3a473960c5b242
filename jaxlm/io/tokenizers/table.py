"""Decoding by table: every id stands for some bytes."""

from collections.abc import Iterable

import numpy as np

UNKNOWN = "\ufffd"


def decode_bytes(table: list[bytes], ids: Iterable[int]) -> str:
    """The ids' bytes, joined and read as UTF-8; invalid UTF-8 becomes U+FFFD.

    ``table`` holds the bytes of each id and, last, those of every id outside ``0 .. len(table) - 2``.
    """
    known = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
    known = np.where((known >= 0) & (known < len(table) - 1), known, len(table) - 1)
    return b"".join(map(table.__getitem__, known.tolist())).decode("utf-8", "replace")
