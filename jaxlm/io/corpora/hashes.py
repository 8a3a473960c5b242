"""Hashes of a corpus's files, read anew only where a file has changed: terabytes are not read at each start."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxlm.io.corpora.report import load_cached, store_cached

THREADS = 8
SETTLED_SECONDS = 10
"""How old a change must be for a file's hash to be kept: one made within the same tick of the clock would not show."""

Stamp = list[int]
"""Size, and times of the last change of the content and of the file's entry, in nanoseconds."""


def hash_files(paths: list[Path], keep: Path | None) -> list[str]:
    """sha256 (hex) of each file's bytes as they lie on disk; "" for one that cannot be read.

    Args:
      paths: of the files.
      keep: a folder where hashes are kept, beside the files' sizes and times; None reads all files each time.
    """
    named = hashlib.sha256("\0".join(os.path.abspath(path) for path in paths).encode(errors="surrogateescape"))
    kept = None if keep is None else keep / f"hashes-{named.hexdigest()[:24]}.json"
    known = load_cached(kept)
    if not (isinstance(known, list) and len(known) == len(paths)):
        known = []
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(_hash, paths, known or [None] * len(paths)))
    if found != known:
        store_cached(kept, found)
    return [digest for _, digest in found]


def _hash(path: Path, known: Any) -> list[Any]:
    """[its stamp, or None where it may change unseen; its hash]."""
    try:
        stamp = _stamp(path)
        if isinstance(known, list) and known[:1] == [stamp]:
            return known
        settled = time.time_ns() - max(stamp[1:]) > SETTLED_SECONDS * 10**9
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [stamp if settled and _stamp(path) == stamp else None, digest]
    except OSError:
        return [None, ""]


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
