"""Repetition that n-grams of words do not show: long runs of a sign, one word over and over, a tiny vocabulary."""

from dataclasses import dataclass

import numpy as np

from jaxlm.text.characters import SPACE
from jaxlm.text.column import Spans, TextColumn
from jaxlm.text.rules.ngrams import repeats
from jaxlm.text.steps import Verdicts, above, below, check_share, decide, ratio


@dataclass(frozen=True)
class Repetition:
    """Rules of our own. Each is far from what prose, verse or code of our corpora shows (`docs/cleaning.md`)."""

    run: int = 10  # characters: one byte repeated this often is a run
    max_run_chars: float = 0.2  # share of a text's bytes in such runs
    max_echo: float = 0.1  # share of the words that equal the word before
    min_distinct: float = 0.08  # different words among the first `window`
    window: int = 1000
    min_window: int = 200  # words; a shorter text is not judged by `min_distinct`

    def __post_init__(self) -> None:
        check_share(self, max_run_chars=self.max_run_chars, max_echo=self.max_echo, min_distinct=self.min_distinct)
        if self.run < 2:
            raise ValueError(f"run={self.run} is below 2: every character is a run of 1")
        if not 1 <= self.min_window <= self.window:
            raise ValueError(f"min_window={self.min_window} is outside 1 .. window={self.window}")

    @property
    def name(self) -> str:
        """In reports."""
        return "repetition"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`."""
        return decide(
            [
                above(f"runs of {self.run} equal characters", self._run_share(texts), self.max_run_chars),
                above("words that echo the one before", self._echo_share(texts), self.max_echo),
                below("few different words", self._distinct_share(texts), self.min_distinct),
            ]
        )

    def _run_share(self, texts: TextColumn) -> np.ndarray:
        size = len(texts.data)
        raw = texts.raw[:size]
        same = (raw[1:] == raw[:-1]) & (texts.kinds[1:] != np.uint8(SPACE))
        near = np.flatnonzero(same)
        first = np.flatnonzero(np.concatenate([[True], np.diff(near) > 1])) if len(near) else near
        lengths = np.diff(np.concatenate([first, [len(near)]])) + 1
        starts = near[first]
        long = lengths >= self.run
        runs = Spans(starts, starts + lengths, np.searchsorted(starts, np.append(texts.starts_n, size)))
        return ratio(runs.sums(lengths * long), texts.ends_n - texts.starts_n)

    def _echo_share(self, texts: TextColumn) -> np.ndarray:
        words, hashes = texts.units.kept(texts.is_word), texts.unit_hashes[texts.is_word]
        echo = np.zeros(len(hashes), bool)
        echo[1:] = (hashes[1:] == hashes[:-1]) & (words.owners[1:] == words.owners[:-1])
        return ratio(words.sums(echo), words.count_n)

    def _distinct_share(self, texts: TextColumn) -> np.ndarray:
        """Of the first `window` words; 1 for short texts."""
        words, hashes = texts.units.kept(texts.is_word), texts.unit_hashes[texts.is_word]
        window = np.arange(len(hashes)) - words.bounds[:-1][words.owners] < self.window
        words, hashes = words.kept(window), hashes[window]
        share = ratio(words.sums(~repeats(hashes, words.bounds)), words.count_n)
        return np.where(words.count_n < self.min_window, 1.0, share)
