"""The two tokenizers without a model: bytes, and the characters of a text."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers.files import FORMAT_VERSION, fingerprint_of, write_definition
from jaxlm.io.tokenizers.table import UNKNOWN, decode_bytes
from jaxlm.text.tokenizer import BOS, EOS, PAD, PRESENT_NAMES, SPECIALS, check_text, present_names


class ByteTokenizer:
    """Ids 0 .. 255 are the bytes of the text's UTF-8 form, then the specials. Spells any text."""

    kind = "byte"
    closed = False

    def __init__(self) -> None:
        self._stored = {name: 256 + i for i, name in enumerate(SPECIALS)}
        self.special_tokens = present_names(self._stored)
        self.vocab_size = 256 + len(SPECIALS)
        self.pad_id = self.special_tokens[PAD]
        self.bos_id: int | None = self.special_tokens[BOS]
        self.eos_id: int | None = self.special_tokens[EOS]
        self._bytes = [bytes((i,)) for i in range(256)] + [b""] * len(SPECIALS) + [UNKNOWN.encode()]
        self.fingerprint = fingerprint_of(self._definition())

    def _definition(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, "kind": self.kind, "special_tokens": self._stored}

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of one text; UserError for a lone surrogate."""
        check_text(text)
        return [self.special_tokens[BOS]] * bos + list(text.encode("utf-8")) + [self.special_tokens[EOS]] * eos

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of many texts, int32, without bos and eos."""
        for text in texts:
            check_text(text)
        return [np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of any ids; specials left out, invalid UTF-8 and unknown ids as U+FFFD."""
        return decode_bytes(self._bytes, ids)

    def token_str(self, token_id: int) -> str:
        """An ASCII character, ``<0xE4>`` for another byte, or the special's name."""
        if 0 <= token_id < 128:
            return chr(token_id)
        if 0 <= token_id < 256:
            return f"<0x{token_id:02X}>"
        if 0 <= token_id < self.vocab_size:
            name = SPECIALS[token_id - 256]
            return PRESENT_NAMES.get(name, name)
        return UNKNOWN

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json."""
        write_definition(directory, self._definition())


class CharTokenizer:
    """One id per character seen in training, in code point order; no specials. Closed: other characters are refused."""

    kind = "char"
    closed = True
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id = 0

    def __init__(self, characters: str) -> None:
        if not characters:
            raise UserError("a char tokenizer needs at least one character: the training text is empty")
        self.characters = "".join(sorted(set(characters)))
        check_text(self.characters)
        self.special_tokens: dict[str, int] = {}
        self.vocab_size = len(self.characters)
        codes = np.array([ord(c) for c in self.characters])
        self._ids = np.full(codes[-1] + 2, -1, np.int32)  # by code point; the last entry stands for all beyond
        self._ids[codes] = np.arange(len(codes))
        self.fingerprint = fingerprint_of(self._definition())

    def _definition(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, "kind": self.kind, "characters": self.characters}

    def _encode(self, text: str) -> np.ndarray:
        check_text(text)
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        if len(ids) and ids.min() < 0:
            at = int(np.argmin(ids))
            raise UserError(
                f"character {text[at]!r} at position {at} is not among the {self.vocab_size} of this char tokenizer: "
                "remove it, or use kind='byte' or 'unigram'"
            )
        return ids

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of one text; UserError for a character outside the vocabulary, or if bos or eos is asked for."""
        if bos or eos:
            raise UserError("a char tokenizer has no <bos> and no <eos>: set add_bos and add_eos to False")
        return self._encode(text).tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of many texts, int32."""
        return [self._encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of any ids; unknown ids as U+FFFD."""
        return "".join(self.token_str(int(i)) for i in ids)

    def token_str(self, token_id: int) -> str:
        """The character, or U+FFFD for an unknown id."""
        return self.characters[token_id] if 0 <= token_id < self.vocab_size else UNKNOWN

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json."""
        write_definition(directory, self._definition())
