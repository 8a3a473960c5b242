"""Rules for Chinese, which sets no spaces between words: everything is counted in characters.

The n-gram orders are Gopher's at about 1.6 characters a word: the most frequent runs of 2, 3 and 4 words become 3, 5
and 6 characters, and repeated runs of 5 to 10 words become 8 to 16. The shares are Gopher's.
"""

from dataclasses import dataclass

import numpy as np

from jaxlm.text.characters import DIGIT, HAN, LATIN, PUNCTUATION, SPACE, SYMBOL
from jaxlm.text.column import TextColumn
from jaxlm.text.rules.gopher import check_orders, ngram_checks
from jaxlm.text.rules.ngrams import repeats
from jaxlm.text.steps import Verdicts, above, below, check_share, decide, ratio


@dataclass(frozen=True)
class ChineseQuality:
    """Length, and what the characters are. Shares are of the characters that are no white space."""

    min_chars: int = 50
    max_chars: int = 200_000
    min_han: float = 0.5
    min_punctuation: float = 0.01  # a text without any is a list of keywords; verse has 0.14 to 0.17
    max_punctuation: float = 0.3
    max_latin: float = 0.3
    max_digits: float = 0.2
    max_symbols: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.min_chars <= self.max_chars:
            raise ValueError(f"min_chars={self.min_chars} .. max_chars={self.max_chars} is no range")
        check_share(
            self, min_han=self.min_han, min_punctuation=self.min_punctuation, max_punctuation=self.max_punctuation,
            max_latin=self.max_latin, max_digits=self.max_digits, max_symbols=self.max_symbols,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """In reports."""
        return "chinese_quality"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`."""
        counts = texts.kind_counts
        chars_n = counts.sum(1) - counts[:, SPACE]
        share = counts / np.maximum(chars_n, 1)[:, None]
        return decide(
            [
                below(f"fewer than {self.min_chars} characters", chars_n, self.min_chars),
                above(f"more than {self.max_chars} characters", chars_n, self.max_chars),
                below("little Han", share[:, HAN], self.min_han),
                above("much Latin", share[:, LATIN], self.max_latin),
                above("many digits", share[:, DIGIT], self.max_digits),
                above("many symbols", share[:, SYMBOL], self.max_symbols),
                below("little punctuation", share[:, PUNCTUATION], self.min_punctuation),
                above("much punctuation", share[:, PUNCTUATION], self.max_punctuation),
            ]
        )


@dataclass(frozen=True)
class ChineseRepetition:
    """Repeated lines and n-grams of characters, as shares of the characters that are no white space."""

    max_lines: float = 0.30
    max_line_chars: float = 0.20
    top: tuple[tuple[int, float], ...] = ((3, 0.20), (5, 0.18), (6, 0.16))
    repeated: tuple[tuple[int, float], ...] = ((8, 0.15), (10, 0.14), (12, 0.12), (14, 0.11), (16, 0.10))

    def __post_init__(self) -> None:
        check_share(self, max_lines=self.max_lines, max_line_chars=self.max_line_chars)
        check_orders(self, self.top + self.repeated)

    @property
    def name(self) -> str:
        """In reports."""
        return "chinese_repetition"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`."""
        lines, marks = texts.lines, texts.characters
        again = repeats(texts.line_hashes, lines.bounds)
        chars = lines.sums(texts.chars(lines.starts, lines.ends) * again)
        one = np.ones(len(marks.starts), np.int64)
        hashes, bounds = texts.character_hashes, marks.bounds
        return decide(
            [
                above("repeated lines", ratio(lines.sums(again), lines.count_n), self.max_lines),
                above("characters in repeated lines", ratio(chars, marks.count_n), self.max_line_chars),
                *ngram_checks(hashes, one, bounds, marks.count_n, self.top, self.repeated, gap=0),
            ]
        )
