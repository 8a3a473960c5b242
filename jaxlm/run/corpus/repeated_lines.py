"""The stages that find repeated lines, among the documents that stay: a line of ten copies would else seem common."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxlm.data.deduplication import RepeatsConfig
from jaxlm.io.shards import Record, read_rows
from jaxlm.run.corpus.duplicates import CLUSTER, COLLECT, KEPT, Collected
from jaxlm.text.repeats import LineCounts, count_lines, merge_counts

COUNT, LINES = "7-count-lines", "7-lines"
FILE = "lines.npz"
_BATCHES = 32


@dataclasses.dataclass(frozen=True)
class CountLines:
    """A task a shard: in how many of its documents each line stands, copies and exempt sources left out."""

    collected: Collected
    config: RepeatsConfig

    def __call__(self, number: int, directory: Path) -> None:
        """Writes ``lines.npz``."""
        workspace, rule = self.collected.workspace, self.config
        first, last = self.collected.bounds[number : number + 2].tolist()
        kind = np.load(workspace.task(CLUSTER, 0) / "kind.npy", mmap_mode="r")[first:last]
        counts: list[LineCounts] = []
        row = 0
        for batch in read_rows(workspace.task(COLLECT, number) / "documents.parquet"):
            rows = [i for i, record in enumerate(batch) if kind[row + i] == KEPT and is_counted(record, rule)]
            texts, numbers = [batch[i].text for i in rows], np.array(rows, np.int64) + (first + row)
            row += len(batch)
            if rows:
                counts.append(count_lines(texts, numbers, unit=rule.unit, min_chars=rule.min_chars))
                counts = [merge_counts(counts)] if len(counts) >= _BATCHES else counts
        write_counts(directory / FILE, merge_counts(counts))


@dataclasses.dataclass(frozen=True)
class FindRepeated:
    """A task a range of hashes: the lines that stand in too many documents."""

    collected: Collected
    num_parts: int
    config: RepeatsConfig

    def __call__(self, number: int, directory: Path) -> None:
        """Writes ``lines.npz``."""
        paths = self.collected.workspace.paths(COUNT, self.collected.num_shards, FILE)
        parts = [read_counts(path).part(number, self.num_parts) for path in paths]
        write_counts(directory / FILE, merge_counts(parts).above(self.config.max_documents))


def is_counted(record: Record, config: RepeatsConfig) -> bool:
    """Whether a document's lines are counted and may be dropped."""
    return record.source not in config.exempt


def read_counts(path: Path) -> LineCounts:
    """Counts of lines, from a file."""
    with np.load(path) as arrays:
        return LineCounts(arrays["hashes"], arrays["documents"], arrays["first"])


def write_counts(path: Path, counts: LineCounts) -> None:
    """Counts of lines, to a file."""
    np.savez(path, hashes=counts.hashes, documents=counts.documents, first=counts.first)
