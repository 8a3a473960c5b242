"""Lists of bad words, given as values; who has a file reads it and passes the lines on."""

from dataclasses import dataclass, field

import numpy as np

from jaxlm.text.column import TextColumn, hash_runs, prefix_sums
from jaxlm.text.steps import Verdicts, above, decide


@dataclass(frozen=True)
class BadWords:
    """Texts with words or phrases of a list, whatever the case of their ASCII letters.

    An entry matches whole words in a row, so "ass" is not found in "class"; Han and Kana characters are words of their
    own, so an entry in them is found anywhere. Signs between words must be those of the entry.
    """

    words: tuple[str, ...] = field(repr=False)  # lists run to thousands
    max_count: int = 0  # occurrences that are still allowed

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("words is empty: leave the rule out")
        if self.max_count < 0:
            raise ValueError(f"max_count={self.max_count} is below 0")
        empty = np.flatnonzero(TextColumn(self.words).units.count_n == 0)
        if len(empty):
            raise ValueError(f"entry {int(empty[0])} of words is empty or white space: {self.words[int(empty[0])]!r}")

    @property
    def name(self) -> str:
        """In reports."""
        return "bad_words"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`."""
        entries = TextColumn(self.words)  # which folds case as the column of the texts does
        keys = entries.run_hashes(entries.units.bounds[:-1], entries.units.bounds[1:])
        sizes, bounds = entries.units.count_n, texts.units.bounds
        sums = prefix_sums(texts.unit_hashes)
        count_n = np.zeros(len(texts), np.int64)
        # Only places where some entry's first unit stands are looked at.
        heads = np.isin(texts.unit_hashes, entries.unit_hashes[entries.units.bounds[:-1]])
        places = np.flatnonzero(heads)
        owners = np.searchsorted(bounds, places, "right") - 1
        for size in np.unique(sizes).tolist():
            fits = places + size <= bounds[1:][owners]
            here = places[fits]
            found = np.isin(hash_runs(sums, here, here + size), keys[sizes == size])
            count_n += np.bincount(owners[fits][found], minlength=len(texts))
        return decide([above("bad words", count_n, self.max_count)])
