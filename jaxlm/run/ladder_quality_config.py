"""The config of ``experiments.scaling quality``: a ladder, and the texts that it is trained on in turn."""

import dataclasses
import re
from dataclasses import field
from pathlib import Path
from typing import Literal

from jaxlm.data.corpus import CorpusConfig
from jaxlm.run.ladder_config import LadderConfig

Damage = Literal["shuffled", "tagged", "misread", "numbers"]


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """A text to train on: the ladder's own or another; as it is, damaged in part, or a little of it over and over."""

    name: str
    """A directory of the study is called so."""
    corpus: CorpusConfig | None = None
    """None = that of the ladder. What another one holds out is read neither."""
    damaged: float = 0.0
    """Share of the documents that are damaged; those of a lower share are among those of a higher one."""
    how: Damage = "shuffled"
    """Characters in an order of chance; tags and entities left over; UTF-8 read as Windows-1252; lists of numbers in
    the document's place."""
    copies: int = 1
    """Above 1: of so many documents one, so many times: a text as long, in which there is so much less to read."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"name={self.name!r} is to name a directory: use letters, digits, - and _")
        if not 0 <= self.damaged <= 1:
            raise ValueError(f"damaged={self.damaged} of {self.name!r} is outside 0 .. 1")
        if self.copies < 1:
            raise ValueError(f"copies={self.copies} of {self.name!r} must be at least 1")


@dataclasses.dataclass(frozen=True)
class QualityConfig:
    """The runs of one ladder on each of several texts, all scored on what the ladder's own corpus holds out."""

    name: str = "quality"
    """A title for the report."""
    ladder: LadderConfig = field(default_factory=LadderConfig)
    texts: tuple[TextConfig, ...] = (TextConfig("clean"), TextConfig("damaged", damaged=0.5))
    """The first is the one that the others are compared with."""
    num_seeds: int = 2
    """Runs of each text, budget and width: what they differ by is the noise of all figures."""

    def __post_init__(self) -> None:
        names = [one.name for one in self.texts]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"texts are {', '.join(map(repr, names)) or 'none'}: give two or more, of different names")
        if self.num_seeds < 2:
            raise ValueError(f"num_seeds={self.num_seeds} has no spread: use 2 or more")
        kind = self.ladder.run.tokenizer.kind
        if kind != "byte":
            raise ValueError(
                f"ladder.run.tokenizer.kind={kind!r} would be trained on each text anew, and losses a token could not "
                "be compared: use byte"
            )

    @property
    def seeds(self) -> tuple[int, ...]:
        """From the ladder's on."""
        return tuple(range(self.ladder.run.seed, self.ladder.run.seed + self.num_seeds))

    def ladder_over(self, text: Path, held_out: Path, seed: int) -> LadderConfig:
        """The ladder over two JSONL files."""
        corpus = CorpusConfig(source="jsonl", paths=(str(text),), validation_paths=(str(held_out),))
        return dataclasses.replace(self.ladder, run=dataclasses.replace(self.ladder.run, corpus=corpus, seed=seed))
