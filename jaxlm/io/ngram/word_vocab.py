"""A closed vocabulary of words: text to ids and back, learnt from text, saved as one word a line."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers.files import FORMAT_VERSION, fingerprint_of, read_definition, read_model, write_definition
from jaxlm.models.ngram_table import make_rows, search
from jaxlm.text.tokenizer import check_text
from jaxlm.text.words import Words, hash_words, split_words

UNK, BOS, EOS = 0, 1, 2
SPECIAL_WORDS = (b"<unk>", b"<s>", b"</s>")


class WordVocab:
    """Words and their ids; 0 is ``<unk>``, 1 ``<s>``, 2 ``</s>``. A `Tokenizer` (kind "word", closed).

    Words stand between ASCII white space; a line is a sentence. A word outside the vocabulary is ``<unk>``.

    Args:
      words: all words, the three specials first.
      unk_word: the word that ``<unk>`` in text stands for. Corpora write ``<unk>`` for words that their makers masked:
        an ordinary word, not the one that no text has. None = ``<unk>`` itself, id 0.
    """

    kind = "word"
    closed = True
    pad_id = UNK
    bos_id: int | None = BOS
    eos_id: int | None = EOS

    def __init__(self, words: Iterable[bytes] = SPECIAL_WORDS, *, unk_word: bytes | None = None):
        self.words = list(words)
        self.unk_word = unk_word
        if tuple(self.words[:3]) != SPECIAL_WORDS:
            raise UserError("the vocabulary does not begin with <unk>, <s> and </s>: it is not one of jaxlm's")
        self._index()

    def _index(self) -> None:
        """Makes the table of all words."""
        hashes = hash_words(self.words)
        if len(hashes) != len(self.words) or not np.diff(np.sort(hashes)).all():
            raise UserError("the vocabulary holds a word twice, an empty one or one with white space in it")
        self._reserved = hashes[:3]
        self._alias = None if self.unk_word is None else hash_words([self.unk_word])[0]
        self._rows = self._table(hashes, 0)
        self._indexed = len(hashes)
        self._recent_hashes = hashes[:0]
        self._recent: np.ndarray | None = None

    @staticmethod
    def _table(hashes: np.ndarray, first_id: int) -> np.ndarray:
        return make_rows((hashes,), np.arange(first_id, first_id + len(hashes), dtype=np.uint64))[0]

    def ids(
        self, words: Words, *, learn_from: bytes | None = None, where: str = "the text", line: int = 0
    ) -> np.ndarray:
        """The id of each word, int64 [w].

        Args:
          learn_from: the bytes that the words were cut from: new words get ids, in the order of their appearance.
          where: the text's name, and ``line`` the number of its first line less 1, for errors.

        Raises UserError for ``<s>`` or ``</s>`` in the text.
        """
        hashes = words.hashes
        for name, reserved in zip(SPECIAL_WORDS[1:], self._reserved[1:], strict=True):
            bad = np.flatnonzero(hashes == reserved)
            if len(bad):
                at = line + int(words.lines[bad[0]]) + 1
                raise UserError(f"{where}, line {at} holds {name.decode()}, which marks a sentence's ends: take it out")
        if self._alias is not None:
            hashes = np.where(hashes == self._reserved[0], self._alias, hashes)
        _, found, ids = search(self._rows, (hashes,))
        missing = np.flatnonzero(~found)
        if self._recent is not None and len(missing):
            _, found, ids[missing] = search(self._recent, (hashes[missing],))
            missing = missing[~found]
        if learn_from is not None and len(missing):
            self._learn(words, hashes, missing, learn_from)
            _, _, ids[missing] = search(self._rows if self._recent is None else self._recent, (hashes[missing],))
        else:
            ids[missing] = UNK
        return ids.view(np.int64)

    def _learn(self, words: Words, hashes: np.ndarray, missing: np.ndarray, data: bytes) -> None:
        """New words go into a small table beside the large one, which is made anew when they are a quarter of it."""
        order = np.argsort(hashes[missing], kind="stable")
        ordered = hashes[missing[order]]
        heads = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        new = np.sort(missing[order[heads]])
        for begin, size in zip(words.starts[new].tolist(), words.lengths[new].tolist(), strict=True):
            word = data[begin : begin + size]
            self.words.append(self.unk_word if word == SPECIAL_WORDS[0] and self.unk_word is not None else word)
        self._recent_hashes = np.concatenate([self._recent_hashes, hashes[new]])
        if 4 * len(self._recent_hashes) > self._indexed:
            self._index()
        else:
            self._recent = self._table(self._recent_hashes, self._indexed)

    @property
    def vocab_size(self) -> int:
        """Number of ids, the specials among them."""
        return len(self.words)

    @property
    def special_tokens(self) -> dict[str, int]:
        """``<unk>``, ``<s>``, ``</s>``."""
        return {word.decode(): i for i, word in enumerate(SPECIAL_WORDS)}

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the words and their order."""
        return fingerprint_of(self._definition(b"\n".join(self.words)))

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of the words of one text; line breaks are spaces here."""
        check_text(text)
        found = self.ids(split_words(text.encode("utf-8"))).tolist()
        return [BOS] * bos + found + [EOS] * eos

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids (int32) of the words of many texts."""
        return [np.array(self.encode(text), np.int32) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The words with spaces between them, without ``<s>`` and ``</s>``."""
        return " ".join(self.token_str(int(i)) for i in ids if i not in (BOS, EOS))

    def token_str(self, token_id: int) -> str:
        """The word."""
        return self.words[token_id].decode("utf-8", "replace") if 0 <= token_id < len(self.words) else "\ufffd"

    def _definition(self, content: bytes) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "vocab_size": len(self.words),
            "unk_word": None if self.unk_word is None else self.unk_word.decode("utf-8", "surrogateescape"),
            "model_sha256": hashlib.sha256(content).hexdigest(),
        }

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json and tokenizer.model, which here is the words, one a line."""
        content = b"\n".join(self.words)
        write_definition(directory, self._definition(content), content)


def learn_words(texts: Iterable[str]) -> WordVocab:
    """The vocabulary of all words of ``texts``, in the order of their appearance. UserError where there is none."""
    vocab = WordVocab()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        vocab.ids(split_words(data), learn_from=data)
    if vocab.vocab_size == len(SPECIAL_WORDS):
        raise UserError("a word tokenizer needs at least one word: the training text is empty")
    return vocab


def load_word_vocab(directory: str | Path) -> WordVocab:
    """The vocabulary saved in ``directory``. Raises UserError where it is missing or damaged."""
    definition = read_definition(directory)
    if definition.get("kind") != "word":
        raise UserError(f"{directory} holds a tokenizer of kind {definition.get('kind')!r}, no vocabulary of words")
    words = read_model(directory, definition["model_sha256"]).split(b"\n")
    unk_word = definition["unk_word"]
    return WordVocab(words, unk_word=None if unk_word is None else unk_word.encode("utf-8", "surrogateescape"))
