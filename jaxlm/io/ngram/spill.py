"""Counting more than memory holds: rows sorted in runs on disk and merged, long arrays in files."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxlm.core.errors import UserError, is_full_disk
from jaxlm.models.ngram_sort import Keys, sort_keys

ROW_BYTES = 128
"""Memory that counting takes for each row of a block: key, copies while sorting, numbers, flags."""

FAN_IN = 64
"""Runs merged at once. Each is mapped, and a mapping holds a file descriptor (mmap duplicates the one it is given)."""

Run = tuple[Path, int]
"""A file of sorted rows, and their columns."""


class Spill:
    """A scratch directory for counting within a memory limit; removed when it is left.

    Raises UserError, the directory and the bytes named, where the disk is full.

    Args:
      directory: where the scratch directory is made.
      memory_bytes: what the blocks of rows may take. Arrays as long as the text lie in files, mapped into memory.
    """

    def __init__(self, directory: str | Path, memory_bytes: int):
        self.block_size = max(1024, memory_bytes // ROW_BYTES)
        self.directory = Path(directory)
        self.path = Path(tempfile.mkdtemp(prefix=".spill-", dir=directory))
        self.num_files = 0

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def allocate(self, length: int, dtype: type) -> np.ndarray:
        """An array in a file; its pages are the system's to write out. The space goes back when the array does."""
        if not length:
            return np.empty(0, dtype)
        num_bytes = length * np.dtype(dtype).itemsize
        path = self._new_file("array")
        with self._room_for(num_bytes), open(path, "w+b") as file:
            _reserve(file, num_bytes)
            array = np.memmap(file, dtype=dtype, mode="r+", shape=(length,))
        os.unlink(path)  # the mapping keeps the file
        return array

    def store(self, parts: Iterable[np.ndarray], dtype: type) -> np.ndarray:
        """Arrays behind one another, in a file."""
        path = self._new_file("tokens")
        with open(path, "wb") as file:
            for part in parts:
                self._append(file, part.astype(dtype, copy=False))
        return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)

    def sort(self, blocks: Iterable[Keys]) -> Iterator[Keys]:
        """A `Sorter`: each block becomes a sorted run in a file; the runs are merged block by block, `FAN_IN` at once,
        in as many rounds as that takes."""
        runs: list[Run] = []
        held: list[Keys] = []
        for block in blocks:
            if held and len(block[0]) + sum(len(part[0]) for part in held) > self.block_size:
                runs.append(self._write([_sorted_rows(held)]))
                held = []
            if len(block[0]):
                held.append(block)
        if held:
            runs.append(self._write([_sorted_rows(held)]))
        del held
        while len(runs) > FAN_IN:
            groups = [runs[begin : begin + FAN_IN] for begin in range(0, len(runs), FAN_IN)]
            runs = [self._write(np.stack(keys, axis=1) for keys in self._merge(group)) for group in groups]
        yield from self._merge(runs)

    def _merge(self, runs: list[Run]) -> Iterator[Keys]:
        """The rows of sorted runs, in order; their files are then deleted."""
        mapped = [np.memmap(path, np.uint64, mode="r").reshape(-1, columns) for path, columns in runs]
        for path, _ in runs:
            os.unlink(path)  # the mappings keep the files
        yield from merge_runs(mapped, self.block_size)

    def _write(self, blocks: Iterable[np.ndarray]) -> Run:
        """A file of the rows uint64 [m, columns] that come in blocks, of which there is at least one."""
        path, columns = self._new_file("run"), 0
        with open(path, "wb") as file:
            for rows in blocks:
                columns = rows.shape[1]
                self._append(file, rows)
        return path, columns

    def _append(self, file: BinaryIO, array: np.ndarray) -> None:
        with self._room_for(array.nbytes):  # not tofile, whose error has no number
            file.write(np.ascontiguousarray(array).data.cast("B"))
            file.flush()

    @contextlib.contextmanager
    def _room_for(self, num_bytes: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise UserError(
                f"no space left in {self.directory} for {num_bytes:,} more bytes of counting on disk: free space, "
                "pass an --out on a larger disk, or a larger --memory"
            ) from error

    def _new_file(self, kind: str) -> Path:
        self.num_files += 1
        return self.path / f"{self.num_files}-{kind}"


def _reserve(file: BinaryIO, num_bytes: int) -> None:
    """Gives a new file its length. Raises OSError (ENOSPC) now: a page that finds no room later ends the process."""
    if shutil.disk_usage(os.path.dirname(file.name)).free < num_bytes:  # asked first: reserving would fill the disk
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.truncate(num_bytes)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not every file system can
                raise


def _sorted_rows(blocks: list[Keys]) -> np.ndarray:
    return np.stack(sort_keys(tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True))), axis=1)


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
