"""The shingle sets of all shards, read from where the first stage wrote them."""

import dataclasses
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxlm.text.minhash import Shingles


@dataclasses.dataclass(frozen=True)
class ShingleFiles:
    """Shingle sets of the whole corpus by document number; what is taken is copied, the rest stays on disk."""

    bounds: np.ndarray
    """Documents of shard i have the numbers ``bounds[i] : bounds[i + 1]``."""
    shards: tuple[Shingles, ...]
    maps: tuple[mmap.mmap, ...]

    @classmethod
    def open(cls, directories: Sequence[Path]) -> "ShingleFiles":
        """Maps the files of every shard."""
        shards, maps = [], []
        for directory in directories:
            bounds = np.load(directory / "bounds.npy", mmap_mode="r")
            hashes = np.zeros(0, np.uint32)
            with (directory / "shingles.u32").open("rb") as file:
                if file.seek(0, 2):  # an empty file cannot be mapped
                    maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                    hashes = np.frombuffer(maps[-1], np.uint32)
            shards.append(Shingles(hashes, bounds))
        return cls(np.cumsum([0, *(len(shard.bounds) - 1 for shard in shards)]), tuple(shards), tuple(maps))

    @property
    def sizes(self) -> np.ndarray:
        """Shingles of each document, int64 [n]."""
        return np.concatenate([shard.sizes for shard in self.shards])

    def take(self, rows: np.ndarray) -> Shingles:
        """The sets of the documents ``rows`` [r], in that order."""
        rows = np.asarray(rows, np.int64)
        owner = np.searchsorted(self.bounds, rows, side="right") - 1
        sizes = np.zeros(len(rows), np.int64)
        parts: dict[int, tuple[np.ndarray, Shingles]] = {}
        for shard in np.unique(owner).tolist():
            places = np.flatnonzero(owner == shard)
            parts[shard] = places, self.shards[shard].take(rows[places] - self.bounds[shard])
            sizes[places] = parts[shard][1].sizes
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        hashes = np.zeros(bounds[-1], np.uint32)
        for places, found in parts.values():
            starts = np.repeat(bounds[places] - found.bounds[:-1], found.sizes)
            hashes[np.arange(len(found.hashes)) + starts] = found.hashes
        for one in self.maps:  # pages that were read count as this process's memory until they are let go
            one.madvise(mmap.MADV_DONTNEED)
        return Shingles(hashes, bounds)
