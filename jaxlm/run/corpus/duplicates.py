"""The stages that find copies: exact ones, one band after the other, the exact comparison, who stays.

Documents are numbered through: shard after shard, row after row. Every stage reads files that earlier ones wrote.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from jaxlm.data.source import SourceConfig
from jaxlm.io.shards import read_sources
from jaxlm.run.corpus.shingle_files import ShingleFiles
from jaxlm.run.corpus.workspace import Workspace, require_documents, write_json
from jaxlm.text.duplicates import Verified, band_pairs, cluster, exact_pairs, merge_pairs, verify

COLLECT = "1-collect"
EXACT, BANDS, VERIFY, CLUSTER = "3-exact", "4-bands", "5-verify", "6-cluster"
KEPT, EXACT_COPY, NEAR_COPY = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Collected:
    """What the first stage left."""

    workspace: Workspace
    num_shards: int

    @property
    def bounds(self) -> np.ndarray:
        """Documents of shard i have the numbers ``bounds[i] : bounds[i + 1]``, int64 [shards + 1]."""
        paths = self.workspace.paths(COLLECT, self.num_shards, "count.json")
        return np.cumsum([0, *(json.loads(path.read_bytes())["documents"] for path in paths)])

    def concatenated(self, name: str) -> np.ndarray:
        """An array of every shard, joined along the documents."""
        return np.concatenate([np.load(path) for path in self.workspace.paths(COLLECT, self.num_shards, name)])


@dataclasses.dataclass(frozen=True)
class FindExact:
    """One task: each document that equals an earlier one up to case and white space, with the first of its kind."""

    collected: Collected
    wanted: bool

    def __call__(self, number: int, directory: Path) -> None:
        """Writes ``pairs.npy``. Raises UserError where nothing at all was collected."""
        del number
        require_documents(self.collected.workspace, COLLECT, self.collected.num_shards)
        none = np.zeros((0, 2), np.uint32)
        pairs = exact_pairs(self.collected.concatenated("exact.npy")) if self.wanted else none
        np.save(directory / "pairs.npy", pairs)


@dataclasses.dataclass(frozen=True)
class FindBand:
    """A task a band: documents that agree in it, exact copies left out."""

    collected: Collected
    reach: int

    def __call__(self, number: int, directory: Path) -> None:
        """Writes ``pairs.npy``."""
        workspace = self.collected.workspace
        paths = workspace.paths(COLLECT, self.collected.num_shards, "bands.npy")
        keys = np.concatenate([np.load(path, mmap_mode="r")[number] for path in paths])
        copies = np.load(workspace.task(EXACT, 0) / "pairs.npy")
        rest = np.ones(len(keys), bool)
        rest[copies[:, 1]] = False
        numbers = np.flatnonzero(rest)
        np.save(directory / "pairs.npy", band_pairs(keys[numbers], numbers, reach=self.reach))


@dataclasses.dataclass(frozen=True)
class Verify:
    """A task a shard: the pairs whose first document lies in it, compared shingle by shingle."""

    collected: Collected
    num_bands: int
    threshold: float

    def __call__(self, number: int, directory: Path) -> None:
        """Writes ``pairs.npy`` and ``jaccard.npy`` of those that pass, and how many were compared."""
        workspace, bounds = self.collected.workspace, self.collected.bounds
        parts = []
        for path in workspace.paths(BANDS, self.num_bands, "pairs.npy"):
            pairs = np.load(path, mmap_mode="r")
            first, last = np.searchsorted(pairs[:, 0], bounds[number : number + 2])
            parts.append(np.asarray(pairs[first:last]))
        pairs = merge_pairs(parts)
        shingles = ShingleFiles.open(workspace.paths(COLLECT, self.collected.num_shards, ""))
        passed: Verified = verify(pairs, shingles, self.threshold)
        np.save(directory / "pairs.npy", passed.pairs)
        np.save(directory / "jaccard.npy", passed.jaccard)
        write_json(directory / "count.json", {"compared": len(pairs), "passed": len(passed.pairs)})


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One task: what pairs connect is one cluster, of which the document of the first source stays."""

    collected: Collected
    sources: tuple[SourceConfig, ...]
    near: bool

    def __call__(self, number: int, directory: Path) -> None:
        """Writes for every document ``kind.npy`` (kept, exact copy, near copy), ``leader.npy`` (who stands for it) and
        ``jaccard.npy`` (how near it is to the nearest of its cluster)."""
        del number
        workspace, shards = self.collected.workspace, self.collected.num_shards
        exact = np.load(workspace.task(EXACT, 0) / "pairs.npy")
        tasks = [workspace.task(VERIFY, task) for task in range(shards)] if self.near else []
        near = np.concatenate([np.zeros((0, 2), np.uint32), *(np.load(task / "pairs.npy") for task in tasks)])
        jaccard = np.concatenate([np.zeros(0, np.float32), *(np.load(task / "jaccard.npy") for task in tasks)])
        found = cluster(np.concatenate([exact, near]), self._priorities())
        kind = np.where(found.kept_n, KEPT, NEAR_COPY).astype(np.uint8)
        same = ~found.kept_n
        same[same] = self._equals_leader(np.flatnonzero(same), found.leader_n)
        kind[same] = EXACT_COPY
        nearest = np.zeros(len(kind), np.float32)
        for side in (0, 1):
            np.maximum.at(nearest, near[:, side], jaccard)
            nearest[exact[:, side]] = 1.0
        np.save(directory / "kind.npy", kind)
        np.save(directory / "leader.npy", found.leader_n)
        np.save(directory / "jaccard.npy", nearest)

    def _equals_leader(self, numbers: np.ndarray, leader_n: np.ndarray) -> np.ndarray:
        keys = self.collected.concatenated("exact.npy")
        return (keys[numbers] == keys[leader_n[numbers]]).all(axis=1)

    def _priorities(self) -> np.ndarray:
        """Of each document its source's: by ``priority``, and of equal ones the source that is named first."""
        order = sorted(range(len(self.sources)), key=lambda i: (self.sources[i].priority, -i))
        rank = {self.sources[place].name: height for height, place in enumerate(order)}
        paths = self.collected.workspace.paths(COLLECT, self.collected.num_shards, "documents.parquet")
        ranks = [np.array([rank[name] for name in read_sources(path)], np.int64) for path in paths]
        return np.concatenate([np.zeros(0, np.int64), *ranks])
