"""One task: the items of all evaluation sets, read once; who looks for them builds the index from the file."""

import dataclasses
from pathlib import Path

from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import account, find_files, read_source
from jaxlm.io.shards import Record, ShardWriter, read_rows
from jaxlm.run.corpus.workspace import write_json
from jaxlm.text.contamination import EvalItem, ItemIndex, Overlap, build_index

_ITEMS = "documents.parquet"


@dataclasses.dataclass(frozen=True)
class CollectItems:
    """Reads evaluation sets: every document is an item."""

    sources: tuple[SourceConfig, ...]

    def __call__(self, number: int, directory: Path) -> None:
        """Writes the items, and how many could not be read."""
        del number
        found = []
        with ShardWriter(directory / _ITEMS) as writer:
            for source in self.sources:
                bad = BadInput(skip=True)
                for file in find_files(source, bad):
                    for document in read_source(file, source, bad):
                        writer.add(Record(source.name, document.origin, document.part, document.text))
                found.append({"source": source.name} | account(bad))
        write_json(directory / "bad.json", found)


def read_index(directory: Path, overlap: Overlap) -> ItemIndex:
    """The index of the items in a directory of `CollectItems`; an item's name is "SOURCE: ORIGIN"."""
    records = (record for batch in read_rows(directory / _ITEMS) for record in batch)
    return build_index([EvalItem(f"{record.source}: {record.origin}", record.text) for record in records], overlap)
