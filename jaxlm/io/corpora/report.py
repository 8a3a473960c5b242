"""What a corpus holds, counted once and kept beside the data."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxlm.data.corpus import Document


@dataclass(frozen=True)
class SplitCount:
    """documents, and the UTF-8 bytes and characters of their texts."""

    documents: int = 0
    bytes: int = 0
    characters: int = 0


@dataclass(frozen=True)
class CorpusReport:
    """Counts of both splits; how many files, lines or records were skipped as bad, and the first 100 of them.

    ``dropped`` counts what was left out on purpose: reason -> documents.
    """

    train: SplitCount
    validation: SplitCount
    num_skipped: int = 0
    skipped: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "CorpusReport":
        """From ``to_dict``'s form; KeyError or TypeError if it is not that."""
        return cls(
            train=SplitCount(**data["train"]),
            validation=SplitCount(**data["validation"]),
            num_skipped=data["num_skipped"],
            skipped=tuple(data["skipped"]),
            dropped=dict(data["dropped"]),
        )


def count(documents: Iterable[Document]) -> SplitCount:
    """One pass over ``documents``."""
    return count_parts(documents, lambda _: False)[0]


def count_parts(documents: Iterable[Document], held: Callable[[Document], bool]) -> tuple[SplitCount, SplitCount]:
    """(those not held out, those held out), in one pass."""
    tallies = [[0, 0, 0], [0, 0, 0]]
    for document in documents:
        tally = tallies[held(document)]
        tally[0] += 1
        tally[1] += len(document.text.encode())
        tally[2] += len(document.text)
    return SplitCount(*tallies[False]), SplitCount(*tallies[True])


class Documents:
    """Documents that can be gone through any number of times: each ``iter`` starts the reading again."""

    def __init__(self, start: Callable[[], Iterator[Document]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Document]:
        return self._start()


def load_cached(path: Path | None) -> Any:
    """The JSON of ``path``, or None if there is none that can be read: a cache is never an error."""
    if path is None:
        return None
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def store_cached(path: Path | None, data: Any) -> None:
    """Writes ``data`` under its name only when whole; a folder that cannot be written is passed over."""
    if path is None:
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(data))
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
