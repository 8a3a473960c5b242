"""The first stage: the files of a shard are read, cleaned, and signed for the search of duplicates."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.data.ledger import Ledger
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.archives import SourceFile
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import account, read_source
from jaxlm.io.shards import REMOVED, Record, ShardWriter
from jaxlm.run.corpus.cleaning import Cleaner, Stopwatch
from jaxlm.run.corpus.workspace import LEDGER, TIMES, Workspace, write_json
from jaxlm.text.column import TextColumn
from jaxlm.text.duplicates import exact_keys
from jaxlm.text.minhash import MinHash, sign
from jaxlm.text.steps import Recipe

BATCH_BYTES = 2 << 20
FILES = "files.json"
READ, SIGN = "read", "minhash"


@dataclasses.dataclass(frozen=True)
class Collecting:
    """Reads and cleans the files that ``files.json`` gives to a shard."""

    workspace: Workspace
    sources: tuple[SourceConfig, ...]
    recipes: tuple[Recipe, ...]
    """One a source."""
    minhash: MinHash | None

    def __call__(self, number: int, directory: Path) -> None:
        """Task ``number`` writes shard ``number``: documents, what was removed, keys, shingles, the account."""
        ledger = Ledger()
        signed = _Signatures(directory, self.minhash)
        found: list[dict[str, Any]] = []
        with (
            ShardWriter(directory / "documents.parquet") as kept,
            ShardWriter(directory / "removed.parquet", REMOVED) as removed,
        ):
            watch = Stopwatch()
            cleaner = Cleaner(ledger, removed.add, watch)
            for place, files in self._files(number):
                source, bad = self.sources[place], BadInput(skip=True)
                watch.start()
                for batch in _batches(files, source, bad, ledger):
                    watch.lap(READ, sum(len(record.text.encode()) for record in batch))
                    records = cleaner.clean(batch, self.recipes[place])
                    if not records:
                        watch.start()
                        continue
                    watch.start()
                    column = TextColumn([record.text for record in records])
                    signed.add(column)
                    watch.lap(SIGN, len(column.data))
                    for record in records:
                        kept.add(record)
                    watch.start()
                found.append({"source": source.name} | account(bad))
                self._note_unread(source, bad, ledger)
            rows = kept.num_rows
        signed.close()
        write_json(directory / "count.json", {"documents": rows})
        write_json(directory / "bad.json", found)
        write_json(directory / LEDGER, ledger.to_dict())
        write_json(directory / TIMES, watch.spent)

    def _files(self, number: int) -> Iterator[tuple[int, list[SourceFile]]]:
        """(place of the source, its files) of this shard."""
        shard = json.loads((self.workspace.root / FILES).read_bytes())["shards"][number]
        for place in range(len(self.sources)):
            files = [SourceFile(*entry["file"]) for entry in shard if entry["source"] == place]
            if files:
                yield place, files

    def _note_unread(self, source: SourceConfig, bad: BadInput, ledger: Ledger) -> None:
        read = ledger.at(source.name, READ)
        for reason, count in {"bad record": bad.count, **bad.passed}.items():
            if count:
                read.documents_in += count
                read.remove(reason, count=count)


def _batches(
    files: Sequence[SourceFile], source: SourceConfig, bad: BadInput, ledger: Ledger
) -> Iterator[list[Record]]:
    read = ledger.at(source.name, READ)
    batch: list[Record] = []
    held = 0
    for file in files:
        for document in read_source(file, source, bad):
            size = len(document.text.encode())
            read.documents_in += 1
            read.documents_out += 1
            read.bytes_in += size
            read.bytes_out += size
            batch.append(Record(source.name, document.origin, document.part, document.text))
            held += size
            if held >= BATCH_BYTES:
                yield batch
                batch, held = [], 0
    if batch:
        yield batch


class _Signatures:
    """Keys and shingles of a shard. Shingles, the most of it, go to disk as they come."""

    def __init__(self, directory: Path, minhash: MinHash | None) -> None:
        self._directory = directory
        self._minhash = minhash
        self._exact: list[np.ndarray] = []
        self._bands: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []
        self._shingles = (directory / "shingles.u32").open("wb") if minhash is not None else None

    def add(self, column: TextColumn) -> None:
        self._exact.append(exact_keys(column.texts))
        if self._minhash is not None and self._shingles is not None:
            signatures = sign(column, self._minhash)
            self._bands.append(signatures.keys_nb)
            self._sizes.append(signatures.shingles.sizes)
            self._shingles.write(np.ascontiguousarray(signatures.shingles.hashes).tobytes())

    def close(self) -> None:
        exact = np.concatenate([np.zeros((0, 2), np.uint64), *self._exact])
        np.save(self._directory / "exact.npy", exact)
        if self._minhash is not None and self._shingles is not None:
            self._shingles.close()
            keys = np.concatenate([np.zeros((0, self._minhash.bands), np.uint64), *self._bands])
            np.save(self._directory / "bands.npy", np.ascontiguousarray(keys.T))  # a band lies together
            sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
            np.save(self._directory / "bounds.npy", np.concatenate([[0], np.cumsum(sizes)]))


def assign_files(files: Sequence[Sequence[SourceFile]], num_shards: int) -> list[Any]:
    """Which files each shard reads: the largest first, each to the shard that has the fewest bytes. JSON data."""
    every = [(place, one) for place, found in enumerate(files) for one in found]
    order = sorted(range(len(every)), key=lambda i: (-every[i][1].size, i))
    loads, shards = [0] * num_shards, [[] for _ in range(num_shards)]
    for i in order:
        least = min(range(num_shards), key=lambda s: (loads[s], s))
        loads[least] += every[i][1].size + 1
        shards[least].append(i)
    return [[{"source": every[i][0], "file": list(every[i][1])} for i in sorted(shard)] for shard in shards]
