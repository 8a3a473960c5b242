"""What is looked for and dropped as a copy: whole documents, repeated lines, items of evaluation sets.

``docs/deduplication.md`` says why the defaults are what they are.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxlm.text.contamination import Overlap
from jaxlm.text.minhash import MinHash, choose_bands


@dataclass(frozen=True)
class DeduplicationConfig:
    """Which documents are copies. Of copies the one of the source of highest priority stays, then the first."""

    exact: bool = True
    """Texts equal up to case and white space."""
    near: bool = True
    """Texts whose sets of ``width``-word runs have a Jaccard similarity of ``threshold`` or more. At the defaults about
    one word in nine may differ."""
    width: int = 3
    """Words in a run; a Han or Kana character is one."""
    threshold: float = 0.5
    """The least similarity of copies."""
    recall: float = 0.98
    """Chance to find a pair at the threshold: the pairs that are compared come from as many MinHash bands."""
    max_hashes: int = 256
    """Hashes of a document at most."""
    reach: int = 4
    """Earlier documents of the same band that each is compared with (`text.duplicates.band_pairs`)."""
    seed: int = 0
    """Of the hashes."""

    def __post_init__(self) -> None:
        for name in ("width", "max_hashes", "reach"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")
        for name in ("threshold", "recall"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)} is outside 0 .. 1 (both excluded)")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} is below 0")
        choose_bands(self.threshold, self.recall, self.max_hashes)  # says so if there is none

    @cached_property
    def minhash(self) -> MinHash:
        """The shape of the signatures."""
        return MinHash(self.width, *choose_bands(self.threshold, self.recall, self.max_hashes), self.seed)


@dataclass(frozen=True)
class RepeatsConfig:
    """Which lines (or paragraphs) are dropped for standing in too many documents."""

    unit: Literal["line", "paragraph"] = "line"
    max_documents: int = 10
    """A line that stands in more documents than this goes."""
    min_chars: int = 12
    """Shorter lines are left alone: "Yes.", "else:", a line of a poem's title."""
    keep_first: bool = True
    """The first document that holds the line keeps it."""
    exempt: tuple[str, ...] = ()
    """Sources whose lines stay and count for nothing. Code belongs here (``def __repr__(self):`` repeats by right),
    and so do tables and forms."""

    def __post_init__(self) -> None:
        if self.unit not in ("line", "paragraph"):
            raise ValueError(f"unit={self.unit!r} is none of line, paragraph")
        if isinstance(self.exempt, str):
            raise ValueError(f"exempt={self.exempt!r} is one string: write a tuple of names of sources")
        for name in ("max_documents", "min_chars"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")


@dataclass(frozen=True)
class DecontaminationConfig:
    """What counts as holding an item of an evaluation set (`text.contamination.Overlap`)."""

    width: int = 5
    share: float = 0.2
    matched_words: int = 8
    min_words: int = 5

    def __post_init__(self) -> None:
        _ = self.overlap  # checks the rest

    @property
    def overlap(self) -> Overlap:
        """As the search takes it."""
        return Overlap(self.width, self.share, self.matched_words, self.min_words)
