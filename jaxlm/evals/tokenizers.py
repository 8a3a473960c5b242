"""What a tokenizer makes of a text: fertility, bytes a token, the share that it spells in bytes or cannot spell.

Words are units of `text.column`: runs of letters and digits, and each Han or Kana character. So the fertility of
Chinese is tokens a character, and punctuation costs tokens without being words.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.text.column import TextColumn


class TokenizerFigures(NamedTuple):
    """Counts over some texts; figures of several add up by `+`-ing their fields (`add_figures`)."""

    num_texts: int = 0
    num_bytes: int = 0
    num_chars: int = 0
    num_words: int = 0
    num_tokens: int = 0
    byte_tokens: int = 0
    """Tokens that are one byte of a character of several: what byte fallback spells."""
    unknown_tokens: int = 0
    used_ids: int = 0
    """Different ids seen (not summed by `add_figures`, which takes the most)."""

    @property
    def fertility(self) -> float:
        """Tokens a word; for Chinese a character."""
        return self.num_tokens / max(self.num_words, 1)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes."""
        return self.num_bytes / max(self.num_tokens, 1)

    @property
    def chars_per_token(self) -> float:
        """Characters."""
        return self.num_chars / max(self.num_tokens, 1)

    @property
    def byte_share(self) -> float:
        """Of the tokens."""
        return self.byte_tokens / max(self.num_tokens, 1)

    @property
    def unknown_share(self) -> float:
        """Of the tokens."""
        return self.unknown_tokens / max(self.num_tokens, 1)

    def to_dict(self) -> dict[str, float]:
        """Counts and figures as JSON data."""
        derived = ("fertility", "bytes_per_token", "chars_per_token", "byte_share", "unknown_share")
        return self._asdict() | {name: getattr(self, name) for name in derived}


def measure_tokens(
    texts: Sequence[str], ids: Sequence[np.ndarray], *, is_byte_v: np.ndarray, is_unknown_v: np.ndarray
) -> TokenizerFigures:
    """The figures of some texts and their ids.

    Args:
      texts: at most 2 GiB.
      ids: of each text, int [t].
      is_byte_v: whether each id is a byte of a character of several, bool [v].
      is_unknown_v: whether it stands for what cannot be spelled, bool [v].

    Raises ValueError where there are not as many texts as id arrays.
    """
    if len(texts) != len(ids):
        raise ValueError(f"{len(texts)} texts and {len(ids)} arrays of ids")
    column = TextColumn(texts)
    flat = np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64)
    count_v = np.bincount(flat, minlength=len(is_byte_v))[: len(is_byte_v)]
    return TokenizerFigures(
        num_texts=len(texts),
        num_bytes=int((column.ends_n - column.starts_n).sum()),
        num_chars=int(column.chars_n.sum()),
        num_words=int(column.words_n.sum()),
        num_tokens=len(flat),
        byte_tokens=int(count_v[is_byte_v].sum()),
        unknown_tokens=int(count_v[is_unknown_v].sum()),
        used_ids=int(np.count_nonzero(count_v)),
    )


def add_figures(parts: Sequence[TokenizerFigures]) -> TokenizerFigures:
    """The figures of all texts together."""
    if not parts:
        return TokenizerFigures()
    sums = [sum(values) for values in zip(*parts, strict=True)]
    return TokenizerFigures(*sums)._replace(used_ids=max(part.used_ids for part in parts))
