"""The line rules of FineWeb (Penedo et al. 2024, arXiv:2406.17557, section 3.5)."""

from dataclasses import dataclass

from jaxlm.text.column import NEWLINE, TextColumn
from jaxlm.text.rules.ngrams import repeats
from jaxlm.text.steps import Verdicts, above, below, check_share, decide, ratio

TERMINAL = (".", "!", "?", "。", "！", "？", "．", "｡", "‼", "‽", "⁇", "⁈", "⁉", "؟", "۔", "।", "॥", "։", "።", "។")
"""Marks that end a sentence (Unicode Sentence_Terminal, the scripts in wide use)."""


@dataclass(frozen=True)
class FineWeb:
    """Lines that end in punctuation, short lines, repeated lines, and lists. Lines are those that are not blank."""

    min_ended_lines: float = 0.12
    max_short_lines: float = 0.67
    short_line: int = 30  # characters
    max_repeated_chars: float = 0.01  # share of characters in lines that stood before
    max_breaks: float = 0.3  # line breaks a unit (words and signs)
    ends: tuple[str, ...] = TERMINAL

    def __post_init__(self) -> None:
        check_share(
            self, min_ended_lines=self.min_ended_lines, max_short_lines=self.max_short_lines,
            max_repeated_chars=self.max_repeated_chars,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """In reports."""
        return "fineweb"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`."""
        lines = texts.lines
        chars, again = texts.chars(lines.starts, lines.ends), repeats(texts.line_hashes, lines.bounds)
        ended_n = ratio(lines.sums(texts.ends_with(lines, [end.encode() for end in self.ends])), lines.count_n)
        short_n = ratio(lines.sums(chars <= self.short_line), lines.count_n)
        breaks_n = texts.counts_of(bytes([NEWLINE]))
        breaks_n[:-1] -= 1  # the one that joins a text to the next
        repeated_n = ratio(lines.sums(chars * again), texts.chars_n - breaks_n)
        return decide(
            [
                below("no text", lines.count_n, 1),
                below("few lines end in punctuation", ended_n, self.min_ended_lines),
                above(f"lines of at most {self.short_line} characters", short_n, self.max_short_lines),
                above("characters in repeated lines", repeated_n, self.max_repeated_chars),
                above("line breaks a word", ratio(breaks_n, texts.units.count_n), self.max_breaks),
            ]
        )
