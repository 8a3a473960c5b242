"""Keys for splitting and for finding copies. Pure: the same text gives the same key on every machine."""

import hashlib
import re
import zlib
from collections.abc import Iterable

import numpy as np

_WORD = re.compile(r"\w+")


def hash_of(texts: Iterable[str]) -> str:
    """SHA-256 of texts in their order, where each ends included: is this the text of last time?"""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def unit_hash(text: str) -> float:
    """A number in [0, 1) from the text alone (BLAKE2b, 53 bits); "surrogatepass" so that any str has one."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def normal_key(text: str) -> bytes:
    """16 bytes that are equal for texts equal up to case and white space."""
    normal = " ".join(text.casefold().split())
    return hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def shingle_hashes(text: str, width: int = 5) -> np.ndarray:
    """uint64 hash of every run of ``width`` words, shape [words - width + 1], or [0] for a shorter text."""
    words = np.fromiter((zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in _WORD.findall(text)), np.uint64)
    count = len(words) - width + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    hashes = np.zeros(count, np.uint64)
    for offset in range(width):  # polynomial hash modulo 2^64
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + words[offset : offset + count]
    return hashes


def copied_shares(texts: Iterable[str], reference: Iterable[str], width: int = 5) -> np.ndarray:
    """For each text the share of its ``width``-word runs that stand in some reference text, float64 [texts].

    A text shorter than ``width`` words has share 0.
    """
    parts = [shingle_hashes(text, width) for text in reference]
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))
    shares = []
    for text in texts:
        hashes = shingle_hashes(text, width)
        place = np.searchsorted(known, hashes)  # np.isin would sort the reference once a text
        found = place < len(known)
        found[found] = known[place[found]] == hashes[found]
        shares.append(found.mean() if len(found) else 0.0)
    return np.array(shares, np.float64)


def repeated_shares(texts: Iterable[str], width: int = 5) -> np.ndarray:
    """For each text the share of its ``width``-word runs that stand in some text before it, float64 [texts].

    A text shorter than ``width`` words has share 0; runs repeated inside one text do not count.
    """
    seen: set[int] = set()
    shares = []
    for text in texts:
        hashes = shingle_hashes(text, width).tolist()
        shares.append(sum(value in seen for value in hashes) / len(hashes) if hashes else 0.0)
        seen.update(hashes)
    return np.array(shares, np.float64)
