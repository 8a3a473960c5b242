"""The rules of MassiveText (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1 and table A1).

The paper's words are ours of `text.column`, signs apart. Where the paper is silent we take: lines are those that are
not blank; a repeated line, paragraph or n-gram is any but its first occurrence; the most frequent n-gram counts only
if it stands twice. `docs/cleaning.md` lists where datatrove differs.
"""

from dataclasses import dataclass

import numpy as np

from jaxlm.text.column import Spans, TextColumn
from jaxlm.text.rules.ngrams import repeated_ngrams, repeated_share, repeats, top_share
from jaxlm.text.steps import Check, Verdicts, above, below, check_share, decide, ratio

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = tuple(mark.encode() for mark in ("•", "-", "*", "●", "‣", "▪", "◦"))
ELLIPSES = (b"...", "…".encode())


@dataclass(frozen=True)
class GopherQuality:
    """Length, word length, symbols, bullets, ellipses, letters and stop words."""

    min_words: int = 50
    max_words: int = 100_000
    min_mean_length: float = 3.0  # characters a word
    max_mean_length: float = 10.0
    max_symbol_ratio: float = 0.1  # hash signs, and ellipses, a unit
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic: float = 0.8  # share of what stands between spaces that has a letter
    min_stop_words: int = 2  # different ones
    stop_words: tuple[str, ...] = STOP_WORDS

    def __post_init__(self) -> None:
        if not 0 <= self.min_words <= self.max_words:
            raise ValueError(f"min_words={self.min_words} .. max_words={self.max_words} is no range")
        if not 0 <= self.min_mean_length <= self.max_mean_length:
            raise ValueError(f"min_mean_length={self.min_mean_length} .. {self.max_mean_length} is no range")
        check_share(
            self, max_bullet_lines=self.max_bullet_lines, max_ellipsis_lines=self.max_ellipsis_lines,
            min_alphabetic=self.min_alphabetic,
        )  # fmt: skip
        if self.min_stop_words > len(self.stop_words):
            raise ValueError(f"min_stop_words={self.min_stop_words} of {len(self.stop_words)} stop words")

    @property
    def name(self) -> str:
        """In reports."""
        return "gopher_quality"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`."""
        units, lines, words_n = texts.units, texts.lines, texts.words_n
        units_n, lines_n = units.count_n, lines.count_n
        mean_n = ratio(units.sums(texts.unit_chars * texts.is_word), words_n)
        bullets_n = ratio(lines.sums(texts.starts_with(lines, BULLETS)), lines_n)
        ellipses_n = ratio(lines.sums(texts.ends_with(lines, ELLIPSES)), lines_n)
        checks = [
            below(f"fewer than {self.min_words} words", words_n, self.min_words),
            above(f"more than {self.max_words} words", words_n, self.max_words),
            below(f"mean word below {self.min_mean_length:g} characters", mean_n, self.min_mean_length),
            above(f"mean word above {self.max_mean_length:g} characters", mean_n, self.max_mean_length),
            above("many hash signs", ratio(texts.counts_of(b"#"), units_n), self.max_symbol_ratio),
            above("many ellipses", ratio(texts.counts_of(*ELLIPSES), units_n), self.max_symbol_ratio),
            above("bullet lines", bullets_n, self.max_bullet_lines),
            above("lines that end in an ellipsis", ellipses_n, self.max_ellipsis_lines),
            below("few words with a letter", alphabetic_share(texts), self.min_alphabetic),
            below(f"fewer than {self.min_stop_words} stop words", self._stop_words(texts), self.min_stop_words),
        ]
        return decide(checks)

    def _stop_words(self, texts: TextColumn) -> np.ndarray:
        """Different stop words in each text, in any case of letters, int64 [n]."""
        known = TextColumn(self.stop_words).unit_hashes
        order = np.argsort(known)
        places = np.flatnonzero(np.isin(texts.unit_hashes, known))
        which = order[np.searchsorted(known[order], texts.unit_hashes[places])]
        seen = np.zeros((len(texts), len(known)), bool)
        seen[np.searchsorted(texts.units.bounds, places, "right") - 1, which] = True
        return seen.sum(1)


def alphabetic_share(texts: TextColumn) -> np.ndarray:
    """Share of what stands between two pieces of white space that has a letter, float64 [n]."""
    units = texts.units
    if not len(units.starts):
        return np.zeros(len(texts))
    begins = np.ones(len(units.starts), bool)
    begins[1:] = units.starts[1:] > units.ends[:-1]
    starts = np.flatnonzero(begins)
    spoken = np.logical_or.reduceat(texts.has_letter, starts)
    bounds = np.searchsorted(starts, units.bounds)
    chunks = Spans(starts, starts, bounds)
    return ratio(chunks.sums(spoken), chunks.count_n)


@dataclass(frozen=True)
class GopherRepetition:
    """Repeated lines and paragraphs, the most frequent n-gram, and repeated n-grams, as shares of all characters."""

    max_lines: float = 0.30
    max_paragraphs: float = 0.30
    max_line_chars: float = 0.20
    max_paragraph_chars: float = 0.20
    top: tuple[tuple[int, float], ...] = ((2, 0.20), (3, 0.18), (4, 0.16))
    repeated: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

    def __post_init__(self) -> None:
        check_share(
            self, max_lines=self.max_lines, max_paragraphs=self.max_paragraphs, max_line_chars=self.max_line_chars,
            max_paragraph_chars=self.max_paragraph_chars,
        )  # fmt: skip
        check_orders(self, self.top + self.repeated)

    @property
    def name(self) -> str:
        """In reports."""
        return "gopher_repetition"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`."""
        checks = []
        for what, spans, hashes, most, most_chars in (
            ("paragraphs", texts.paragraphs, texts.paragraph_hashes, self.max_paragraphs, self.max_paragraph_chars),
            ("lines", texts.lines, texts.line_hashes, self.max_lines, self.max_line_chars),
        ):
            again = repeats(hashes, spans.bounds)
            chars = spans.sums(texts.chars(spans.starts, spans.ends) * again)
            checks += [
                above(f"repeated {what}", ratio(spans.sums(again), spans.count_n), most),
                above(f"characters in repeated {what}", ratio(chars, texts.chars_n), most_chars),
            ]
        checks += ngram_checks(
            texts.unit_hashes, texts.unit_chars, texts.units.bounds, texts.chars_n, self.top, self.repeated, gap=1
        )
        return decide(checks)


def check_orders(owner: object, orders: tuple[tuple[int, float], ...]) -> None:
    """ValueError unless the orders ascend from 1 and each share is one."""
    for order, share in orders:
        check_share(owner, **{f"share of {order}-grams": share})
    numbers = [order for order, _ in orders]
    if numbers != sorted(set(numbers)) or (numbers and numbers[0] < 1):
        raise ValueError(f"n-gram orders {numbers} of {type(owner).__name__} do not ascend from 1")


def ngram_checks(
    hashes: np.ndarray,
    chars: np.ndarray,
    bounds: np.ndarray,
    total_n: np.ndarray,
    top: tuple[tuple[int, float], ...],
    repeated: tuple[tuple[int, float], ...],
    *,
    gap: int,
) -> list[Check]:
    """Checks of the most frequent and of the repeated n-grams of units with these hashes and characters [u]."""
    limits = dict(top + repeated)
    shares = {order: np.zeros(len(bounds) - 1) for order in limits}
    for groups in repeated_ngrams(hashes, bounds, sorted(limits)):
        if groups.order in dict(top):
            shares[groups.order] = top_share(groups, chars, bounds, total_n, gap)
        else:
            shares[groups.order] = repeated_share(groups, chars, bounds, total_n)
    most = {order: "most frequent" for order, _ in top} | {order: "repeated" for order, _ in repeated}
    return [above(f"{most[order]} {order}-grams", shares[order], limit) for order, limit in limits.items()]
