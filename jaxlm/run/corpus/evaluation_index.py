"""One task: the items of all evaluation sets, read once; who looks for them builds the index from the file."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import account, find_files, read_source
from jaxlm.io.shards import Record, ShardWriter, read_rows
from jaxlm.run.corpus.workspace import write_json
from jaxlm.text.contamination import EvalItem, ItemIndex, Overlap, build_index

_ITEMS = "documents.parquet"
SETS = "sets.json"
_LISTED = 100


@dataclasses.dataclass(frozen=True)
class CollectItems:
    """Reads evaluation sets: every document is an item."""

    sources: tuple[SourceConfig, ...]
    overlap: Overlap

    def __call__(self, number: int, directory: Path) -> None:
        """Writes the items, and for each set how many there are, could not be read, or are too short to be looked for.

        Raises UserError for a set without an item: the corpus would not be kept free of it.
        """
        del number
        found: dict[str, dict[str, Any]] = {}
        with ShardWriter(directory / _ITEMS) as writer:
            for source in self.sources:
                bad, count = BadInput(skip=True), 0
                for file in find_files(source, bad):
                    for document in read_source(file, source, bad):
                        writer.add(Record(source.name, document.origin, document.part, document.text))
                        count += 1
                if not count:
                    why = f": {bad.listed[0]}" if bad.listed else ""
                    raise UserError(
                        f"evaluation set {source.name!r} gives no item ({bad.count} bad records{why}): mend its paths "
                        "or fields, or leave it out"
                    )
                found[source.name] = {"items": count, "too_short": 0, "too_short_listed": []} | account(bad)
        index = _index(directory, self.overlap)
        for place in index.unchecked.tolist():
            name = index.names[place]
            entry = found[name.partition(":")[0]]
            entry["too_short"] += 1
            if len(entry["too_short_listed"]) < _LISTED:
                entry["too_short_listed"].append(name)
        write_json(directory / SETS, found)


@functools.lru_cache(maxsize=1)
def read_index(directory: Path, overlap: Overlap) -> ItemIndex:
    """The index of the items in a directory of `CollectItems`; an item's name is "SOURCE: ORIGIN".

    A process builds it once for all its tasks.
    """
    return _index(directory, overlap)


def _index(directory: Path, overlap: Overlap) -> ItemIndex:
    records = (record for batch in read_rows(directory / _ITEMS) for record in batch)
    return build_index([EvalItem(f"{record.source}: {record.origin}", record.text) for record in records], overlap)
