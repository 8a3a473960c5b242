"""The last stages: documents are taken as the mixture says and written; then the dataset gets its name and card."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.mixture import MixtureConfig, MixturePlan, SourceSize, plan_mixture, take
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.tfds_writer import DocumentWriter, WrittenShard, shard_name, write_metadata
from jaxlm.io.shards import read_rows
from jaxlm.run.corpus.workspace import Workspace, require_documents, write_json
from jaxlm.text.dedup import unit_hash

WRITE, DATASET = "9-write", "10-dataset"
VALIDATION = "validation"
WRITTEN = "written.json"


@dataclasses.dataclass(frozen=True)
class Writing:
    """Writes one shard of every split: training documents as often as the mixture takes them, held-out ones once."""

    workspace: Workspace
    sources: tuple[SourceConfig, ...]
    mixture: MixtureConfig
    validation_fraction: float
    seed: int
    num_shards: int
    before: str = "8-select"
    """The stage whose documents are taken."""

    def __call__(self, number: int, directory: Path) -> None:
        """Task ``number`` writes shard ``number``."""
        plan = plan_of(self)
        splits = split_names(self.mixture)
        names = {split: shard_name(split, number, self.num_shards) for split in (*splits, VALIDATION)}
        writers = {split: DocumentWriter(directory / name) for split, name in names.items()}
        realised = {split: {source.name: [0, 0, 0] for source in self.sources} for split in names}
        known = {source.name for source in plan.sources} if plan is not None else set()
        for place, record, size, tokens in self._documents(number):
            if is_held_out(record.text, self.validation_fraction):
                copies = {VALIDATION: 1}
            elif plan is not None and record.source in known:
                copies = {
                    split: int(take(plan, record.source, place, self.seed, stage=stage))
                    for stage, split in enumerate(splits)
                }
            else:
                copies = {}
            for split, count in copies.items():
                for _ in range(count):
                    writers[split].add(record.text, record.source, record.origin, record.part)
                tally = realised[split][record.source]
                tally[0] += count
                tally[1] += count * size
                tally[2] += count * tokens
        shards = {split: writer.close()._asdict() for split, writer in writers.items()}
        write_json(directory / WRITTEN, {"shards": shards, "realised": realised})

    def _documents(self, number: int) -> Iterator[tuple[int, Any, int, int]]:
        """(number of the document in the corpus, document, bytes, tokens)."""
        directory = self.workspace.task(self.before, number)
        first = first_numbers(self.workspace, self.before, self.num_shards)[number]
        tokens = np.load(directory / "tokens.npy", mmap_mode="r")
        row = 0
        for records in read_rows(directory / "documents.parquet"):
            for record in records:
                yield first + row, record, len(record.text.encode()), int(tokens[row])
                row += 1


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a document goes to the validation split: by its text alone, so that equal texts go together."""
    return unit_hash(text) < fraction


def split_names(mixture: MixtureConfig) -> tuple[str, ...]:
    """Training splits: one, or one for each stage of a curriculum."""
    return tuple(f"train_{stage.name}" for stage in mixture.stages) or ("train",)


def first_numbers(workspace: Workspace, stage: str, num_shards: int) -> list[int]:
    """The number in the whole corpus of each shard's first document."""
    counts = [
        json.loads((workspace.task(stage, number) / "count.json").read_bytes())["documents"]
        for number in range(num_shards)
    ]
    return np.cumsum([0, *counts])[:-1].tolist()


def plan_of(writing: Writing) -> MixturePlan | None:
    """The mixture, from what the stage before has left of every source (tokens; bytes where nothing was tokenised);
    None where nothing is left to train on. Held-out documents do not count.

    Of a curriculum's stages, weights of sources of which nothing is left are passed over."""
    counts: dict[str, int] = {}
    for number in range(writing.num_shards):
        found = json.loads((writing.workspace.task(writing.before, number) / "count.json").read_bytes())
        for source, sizes in found["sources"].items():
            held = found["held_out"].get(source, [0, 0, 0])
            _, size, tokens = (a - b for a, b in zip(sizes, held, strict=True))
            counts[source] = counts.get(source, 0) + (tokens if sizes[2] else size)
    sizes = [
        SourceSize(source.name, counts[source.name], source.weight)
        for source in writing.sources
        if counts.get(source.name)
    ]
    there = {size.name for size in sizes}
    names = ", ".join(sorted(there))
    for stage in writing.mixture.stages if there else ():
        if all(dict(stage.weights).get(name, 1.0) == 0 for name in there):
            raise UserError(f"nothing is left of what stage {stage.name!r} of the mixture is made of, only {names}")
    stages = tuple(
        dataclasses.replace(stage, weights=tuple(pair for pair in stage.weights if pair[0] in there))
        for stage in writing.mixture.stages
    )
    return plan_mixture(sizes, dataclasses.replace(writing.mixture, stages=stages)) if sizes else None


@dataclasses.dataclass(frozen=True)
class Naming:
    """One task: gathers the shards in one directory, makes a TFDS dataset of it, and adds everything up."""

    writing: Writing
    title: str

    def __call__(self, number: int, directory: Path) -> None:
        """Writes the dataset's directory; hard links, so nothing is copied. Raises UserError for an empty one."""
        del number
        writing, workspace = self.writing, self.writing.workspace
        require_documents(workspace, writing.before, writing.num_shards)
        splits = (*split_names(writing.mixture), VALIDATION)
        shards: dict[str, list[WrittenShard]] = {split: [] for split in splits}
        realised: dict[str, dict[str, list[int]]] = {}
        for task in range(writing.num_shards):
            place = workspace.task(WRITE, task)
            written = json.loads((place / WRITTEN).read_bytes())
            for split in splits:
                shards[split].append(WrittenShard(**written["shards"][split]))
                name = shard_name(split, task, writing.num_shards)
                _link(place / name, directory / name)
                for source, tally in written["realised"][split].items():
                    total = realised.setdefault(split, {}).setdefault(source, [0, 0, 0])
                    total[:] = [a + b for a, b in zip(total, tally, strict=True)]
        for split in splits:
            if not any(shard.num_records for shard in shards[split]):
                for task in range(writing.num_shards):
                    (directory / shard_name(split, task, writing.num_shards)).unlink()
        licences = sorted({source.licence for source in writing.sources})
        write_metadata(directory, shards, description=self.title, licence="; ".join(licences))
        plan = plan_of(writing)
        hashes = {split: [shard.sha256 for shard in found] for split, found in shards.items()}
        summary = {
            "plan": None if plan is None else plan.to_dict(),
            "realised": realised,
            "shards": {split: [shard._asdict() for shard in found] for split, found in shards.items()},
            "sha256": combined_hash(hashes),
        }
        write_json(directory / "mixture.json", summary)


def combined_hash(hashes: dict[str, list[str]]) -> str:
    """One sha256 for all shards of all splits, in their order."""
    import hashlib

    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        import shutil

        shutil.copyfile(source, target)
