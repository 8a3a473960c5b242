"""The page rules of C4 (Raffel et al. 2020, JMLR 21(140), section 2.2). Its line rules are an edit: `edits.c4`."""

from dataclasses import dataclass

import numpy as np

from jaxlm.text.column import Spans, TextColumn
from jaxlm.text.steps import Check, Verdicts, below, decide

TERMINAL = ".!?。！？"
ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "vs", "jr", "sr", "no", "fig", "etc", "al", "inc", "co", "gen")


@dataclass(frozen=True)
class C4Pages:
    """Pages with too few sentences, or with a forbidden phrase. Goes after `edits.c4.C4Lines`, as in the paper."""

    min_sentences: int = 5
    forbidden: tuple[str, ...] = ("lorem ipsum", "{")  # in any case of ASCII letters

    def __post_init__(self) -> None:
        if self.min_sentences < 0:
            raise ValueError(f"min_sentences={self.min_sentences} is below 0")
        if not all(self.forbidden):
            raise ValueError("an empty phrase is forbidden: every page has it")

    @property
    def name(self) -> str:
        """In reports."""
        return "c4_pages"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`."""
        checks = []
        for phrase in self.forbidden:
            count_n = texts.counts_of(phrase.encode().lower())  # bytes: of ASCII alone, as the texts are
            checks.append(Check(f"holds {phrase!r}", count_n, count_n > 0))
        few = f"fewer than {self.min_sentences} sentences"
        return decide([*checks, below(few, sentences_n(texts), self.min_sentences)])


def sentences_n(texts: TextColumn) -> np.ndarray:
    """Sentences of each text, int64 [n].

    A sentence ends at a line's end and at a sign with one of ``.!?`` before white space (with one of ``。！？``
    anywhere), but not at a lone full stop after one letter or a common abbreviation ("Mr.", "J.").
    """
    units, lines = texts.units, texts.lines
    ends = np.zeros(len(units.starts), bool)
    spaced = np.ones(len(units.starts), bool)
    spaced[:-1] = units.starts[1:] > units.ends[:-1]
    for mark in TERMINAL:
        holders = np.searchsorted(units.starts, texts.places(mark.encode()), "right") - 1
        ends[holders] |= spaced[holders] if mark.isascii() else True
    stops = np.flatnonzero(ends[1:] & (units.starts[1:] == units.ends[:-1])) + 1
    stops = stops[(texts.unit_chars[stops] == 1) & (texts.raw[units.starts[stops]] == ord("."))]
    short = np.isin(texts.unit_hashes[stops - 1], TextColumn(ABBREVIATIONS).unit_hashes)
    short |= (texts.unit_chars[stops - 1] == 1) & texts.has_letter[stops - 1]
    ends[stops[short]] = False
    ends[np.searchsorted(units.starts, lines.ends) - 1] = True  # the last unit of each line
    return Spans(units.starts, units.ends, units.bounds).sums(ends)
