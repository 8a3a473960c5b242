"""The config of ``experiments.cleaning``: good text, the junk it is mixed with, and the recipe that is judged."""

import dataclasses
from dataclasses import field
from typing import Annotated, Any

import tyro

from jaxlm.core.seeds import check_seed
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.deduplication import DeduplicationConfig, RepeatsConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.run.config import PretrainConfig
from jaxlm.run.generations_config import TrainedConfig
from jaxlm.run.proxy_config import proxy_config
from jaxlm.text.rules.presets import WEB_ENGLISH
from jaxlm.text.steps import Edit, Recipe, Rule
from jaxlm.text.tokenizer import TokenizerConfig

COPIES, REPEATED = "copies", "repeated_lines"
"""The steps that look at the whole corpus, after the recipe."""
RAW, CLEANED, CEILING = "raw", "cleaned", "good"
"""The arms beside those that leave a step out; the last is the good text alone, as it was before it was damaged."""
PAGES = "site-packages", "/usr/share/doc"


@dataclasses.dataclass(frozen=True)
class JunkConfig:
    """How much of each kind stands in the raw mixture, as a share of its bytes; the rest is good text, untouched."""

    navigation: float = 0.08
    """Lines of real pages outside their main text: menus, tables of contents, styles, footers."""
    flattened: float = 0.08
    """Whole real pages on one line, menus and all."""
    markup: float = 0.08
    """Pieces of the source of real pages, tags and all."""
    spam: float = 0.06
    """A few key words over and over."""
    numbers: float = 0.05
    """Lists of numbers, dates, sums."""
    copies: float = 0.06
    """Good documents once more, some in capitals or with other white space."""
    near_copies: float = 0.06
    """Good documents with a share ``changed`` of their words replaced."""
    framed: float = 0.10
    """Good text between the menus and footers of real pages."""
    mojibake: float = 0.07
    """Good text in typographic marks, its UTF-8 read as Windows-1252."""
    tagged: float = 0.06
    """Good text with tags and entities left over."""
    changed: float = 0.05

    def __post_init__(self) -> None:
        shares = self.shares
        if any(not 0 <= share < 1 for share in shares.values()) or not 0 < sum(shares.values()) < 1:
            raise ValueError(f"the shares of junk sum to {sum(shares.values()):.3f}: use 0 or more, the sum below 1")
        if sum(shares[kind] for kind in ("copies", "near_copies")) > self.good:
            raise ValueError("there are more copies than good text: lower copies and near_copies")
        if not 0 < self.changed < 1:
            raise ValueError(f"changed={self.changed} is outside 0 .. 1 (both excluded)")

    @property
    def shares(self) -> dict[str, float]:
        """Kind -> share."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "changed"}

    @property
    def good(self) -> float:
        """The share of untouched good text."""
        return 1.0 - sum(self.shares.values())


@dataclasses.dataclass(frozen=True)
class CleaningStudyConfig:
    """The same small model on raw and on cleaned text, and with each step of the cleaning left out."""

    name: str = "cleaning"
    """A title for the report."""
    seed: int = 0
    """Of the junk, and of the first pair of runs."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """The good text; its validation split is what all runs are scored on."""
    document_characters: int = 2500
    """Good documents are joined or cut to about so many characters."""
    good_bytes: int | None = 3_000_000
    """At most so much good text, damaged or not; None = all."""
    held_out_bytes: int = 120_000
    pages: tuple[str, ...] = PAGES
    """Folders with HTML pages; "site-packages" is this Python's."""
    page_bytes: int = 12_000_000
    """Pages are read until their sources are so large; which ones goes by the hash of their path."""
    page_characters: int = 20_000
    """A page on one line is cut there."""
    junk: JunkConfig = field(default_factory=JunkConfig)
    recipe: Annotated[tuple[Any, ...], tyro.conf.Fixed] = WEB_ENGLISH
    deduplication: DeduplicationConfig = field(default_factory=DeduplicationConfig)
    repeats: RepeatsConfig | None = field(default_factory=RepeatsConfig)
    num_seeds: int = 5
    """Pairs of raw and cleaned."""
    ablation_seeds: int = 2
    """Runs with each step left out; 0 = none. Those of the first seeds are compared with the cleaned runs."""
    ceiling: bool = True
    """Also trains on the good text alone, ``num_seeds`` times."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Trained on the good text, used by all runs."""
    proxy: TrainedConfig = field(default_factory=TrainedConfig)
    """The small model; its steps say how many tokens every arm gets."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: int = 50

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("document_characters", "held_out_bytes", "page_bytes", "page_characters", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.good_bytes is not None and self.good_bytes < 1:
            raise ValueError(f"good_bytes={self.good_bytes} must be at least 1, or None for all")
        if self.num_seeds < 2:
            raise ValueError(f"num_seeds={self.num_seeds} has no spread: use 2 or more, 5 for a figure to rely on")
        if not 0 <= self.ablation_seeds <= self.num_seeds:
            raise ValueError(f"ablation_seeds={self.ablation_seeds} is outside 0 .. num_seeds={self.num_seeds}")
        if self.tokenizer.kind in ("char", "word"):
            raise ValueError(f"tokenizer.kind={self.tokenizer.kind!r} has no bits per byte: use bpe, unigram or byte")
        for step in self.recipe:
            if not isinstance(step, Edit | Rule):
                raise ValueError(f"recipe: {step!r} is no cleaning step (an edit or a rule of jaxlm.text)")
        names = [step.name for step in self.recipe]
        if len(set(names)) < len(names) or {COPIES, REPEATED, RAW, CLEANED, CEILING} & set(names):
            raise ValueError(f"two steps of the recipe have one name, or a reserved one: {', '.join(names)}")
        self.pretraining("raw", self.seed, (), ())  # what a run would refuse is refused here

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of all steps, those over the whole corpus last."""
        after = [COPIES] if self.deduplication.exact or self.deduplication.near else []
        after += [REPEATED] if self.repeats is not None else []
        return (*(step.name for step in self.recipe), *after)

    def without(self, left_out: str) -> "Cleaning":
        """The cleaning without one step; "" leaves none out."""
        copies = COPIES in self.steps and left_out != COPIES
        return Cleaning(
            tuple(step for step in self.recipe if step.name != left_out),
            self.deduplication if copies else None,
            self.repeats if left_out != REPEATED else None,
        )

    def only(self, name: str) -> "Cleaning":
        """One step alone."""
        return Cleaning(
            tuple(step for step in self.recipe if step.name == name),
            self.deduplication if name == COPIES else None,
            self.repeats if name == REPEATED else None,
        )

    def pretraining(self, name: str, seed: int, train: tuple[str, ...], validation: tuple[str, ...]) -> PretrainConfig:
        """The config of one run over these JSONL files."""
        return proxy_config(self, name, seed, train, validation)


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """What is done to a mixture of text."""

    recipe: Recipe
    deduplication: DeduplicationConfig | None
    repeats: RepeatsConfig | None
