"""Words split at spaces, each with an id of its own: the form in which word-level corpora are published and scored."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers.files import FORMAT_VERSION, fingerprint_of, write_definition
from jaxlm.io.tokenizers.table import UNKNOWN
from jaxlm.text.tokenizer import EOS, check_text

UNK = "<unk>"
"""The word that stands for others, where the training text itself holds it."""


class WordTokenizer:
    """Id 0 is the end of a text, then the words of the training text from the most frequent on. Closed: another word is
    read as ``<unk>`` if the training text has that word, and refused if not.

    Words are parted by ASCII spaces and line ends alone; how many stood between two is lost: the law of the round trip
    holds for words with single spaces between them.
    """

    kind = "word"
    closed = True
    bos_id: int | None = None
    eos_id: int | None = 0
    pad_id = 0

    def __init__(self, words: Sequence[str]) -> None:
        if not words:
            raise UserError("a word tokenizer needs at least one word: the training text is empty")
        self.words = list(words)
        self.special_tokens: dict[str, int] = {EOS: 0}
        self.vocab_size = 1 + len(self.words)
        self._ids = {word: i for i, word in enumerate(self.words, 1)}
        self._unknown = self._ids.get(UNK)
        self.fingerprint = fingerprint_of(self._definition())

    def _definition(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, "kind": self.kind, "words": self.words}

    def _encode(self, text: str) -> list[int]:
        check_text(text)
        words = split_words(text)
        ids = [self._ids.get(word, self._unknown) for word in words]
        if self._unknown is None and None in ids:
            word = words[ids.index(None)]
            raise UserError(
                f"word {word!r} is not among the {len(self.words)} of this word tokenizer, and there is no {UNK}: "
                "remove it, or use kind='bpe'"
            )
        return ids  # pyright: ignore[reportReturnType]  (no None is left)

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of one text; UserError for a word outside the vocabulary, or if bos is asked for."""
        if bos:
            raise UserError("a word tokenizer has no <bos>: set add_bos to False")
        return self._encode(text) + [0] * eos

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of many texts, int32, without eos."""
        return [np.asarray(self._encode(text), np.int32) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The words with single spaces between them; eos left out, unknown ids as U+FFFD."""
        return " ".join(self.token_str(int(i)) for i in ids if int(i) != 0)

    def token_str(self, token_id: int) -> str:
        """The word; ``<eos>`` for 0, U+FFFD for an unknown id."""
        if token_id == 0:
            return EOS
        return self.words[token_id - 1] if 0 < token_id < self.vocab_size else UNKNOWN

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json."""
        write_definition(directory, self._definition())


def split_words(text: str) -> list[str]:
    """What stands between spaces and line ends. (``str.split`` would break at other blanks too.)"""
    return [word for line in text.split("\n") for word in line.split(" ") if word]


def train_words(texts: Iterable[str]) -> WordTokenizer:
    """A tokenizer of all words of ``texts``, the most frequent first, ties in code point order."""
    counts: Counter[str] = Counter()
    for text in texts:
        check_text(text)
        counts.update(split_words(text))
    return WordTokenizer(sorted(counts, key=lambda word: (-counts[word], word)))
