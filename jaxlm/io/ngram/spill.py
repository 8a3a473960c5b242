"""Counting more than memory holds: rows sorted in runs on disk and merged, long arrays in files."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxlm.models.ngram_sort import Keys, sort_keys

ROW_BYTES = 128
"""Memory that counting takes for each row of a block: key, copies while sorting, numbers, flags."""


class Spill:
    """A scratch directory for counting within a memory limit; removed when it is left.

    Args:
      directory: where the scratch directory is made (must have room for some 60 bytes a token).
      memory_bytes: what the blocks of rows may take. Arrays as long as the text lie in files, mapped into memory.
    """

    def __init__(self, directory: str | Path, memory_bytes: int):
        self.block_size = max(1024, memory_bytes // ROW_BYTES)
        self.path = Path(tempfile.mkdtemp(prefix=".spill-", dir=directory))
        self._files = 0

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def allocate(self, length: int, dtype: type) -> np.ndarray:
        """An array in a file; its pages are the system's to write out."""
        if not length:
            return np.empty(0, dtype)
        return np.memmap(self._new_file("array"), dtype=dtype, mode="w+", shape=(length,))

    def store(self, parts: Iterable[np.ndarray], dtype: type) -> np.ndarray:
        """Arrays behind one another, in a file."""
        path = self._new_file("tokens")
        with open(path, "wb") as file:
            for part in parts:
                part.astype(dtype, copy=False).tofile(file)
        return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)

    def sort(self, blocks: Iterable[Keys]) -> Iterator[Keys]:
        """A `Sorter`: each block becomes a sorted run in a file; the runs are merged block by block."""
        runs: list[Path] = []
        held: list[Keys] = []
        for block in blocks:
            if held and len(block[0]) + sum(len(part[0]) for part in held) > self.block_size:
                runs.append(self._write(held))
                held = []
            if len(block[0]):
                held.append(block)
        if held:
            runs.append(self._write(held))
        del held
        yield from merge_runs([np.load(run, mmap_mode="r", allow_pickle=False) for run in runs], self.block_size)
        for run in runs:
            os.unlink(run)

    def _write(self, blocks: list[Keys]) -> Path:
        columns = sort_keys(tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
        path = self._new_file("run.npy")
        np.save(path, np.stack(columns, axis=1), allow_pickle=False)
        return path

    def _new_file(self, kind: str) -> Path:
        self._files += 1
        return self.path / f"{self._files}-{kind}"


def merge_runs(runs: list[np.ndarray], block_size: int) -> Iterator[Keys]:
    """Sorted runs uint64 [m, columns] as one, in blocks of about ``block_size`` rows at most.

    From each run a window is read; all rows up to the least of the windows' last rows can be given out at once.
    """
    window = max(1, block_size // max(1, len(runs)))
    begins = [0] * len(runs)
    while True:
        heads = [np.asarray(run[begin : begin + window]) for run, begin in zip(runs, begins, strict=True)]
        ends = [
            tuple(head[-1].tolist())
            for head, run, begin in zip(heads, runs, begins, strict=True)
            if begin + window < len(run)
        ]
        limit = min(ends, default=None)
        taken = []
        for i, head in enumerate(heads):
            upto = len(head) if limit is None else _count_upto(head, limit)
            begins[i] += upto
            taken.append(head[:upto])
        rows = np.concatenate(taken) if taken else np.zeros((0, 1), np.uint64)
        if len(rows):
            yield sort_keys(tuple(rows[:, i].copy() for i in range(rows.shape[1])))
        if limit is None:
            return


def _count_upto(rows: np.ndarray, limit: tuple[int, ...]) -> int:
    """How many of the sorted rows are at most ``limit``."""
    begin, end = 0, len(rows)
    for i, value in enumerate(limit):
        column = rows[begin:end, i]
        begin, end = (
            begin + int(np.searchsorted(column, np.uint64(value), "left")),
            begin + int(np.searchsorted(column, np.uint64(value), "right")),
        )
    return end
