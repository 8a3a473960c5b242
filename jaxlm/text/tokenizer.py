"""The tokenizer protocol, its configuration and its reserved symbols. Training and files are in ``io.tokenizers``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.fields import ADDED

PAD, BOS, EOS, MASK = "<pad>", "<bos>", "<eos>", "<mask>"

# Control and chat symbols that get an id of their own. Text that spells one of them is encoded as ordinary characters,
# so no document can forge an end of text or a turn of the conversation.
SPECIALS: tuple[str, ...] = (
    PAD,
    BOS,
    EOS,
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    *(f"<|reserved_{i}|>" for i in range(16)),
)

PRESENT_NAMES: dict[str, str] = {"<|reserved_0|>": MASK}
"""Spare symbols that have been put to use: the name in `SPECIALS`, which models and files keep, so that no id and no
fingerprint changes, and the name in use."""


def present_names(special_tokens: dict[str, int]) -> dict[str, int]:
    """Symbol to id under the names in use."""
    return {PRESENT_NAMES.get(name, name): token for name, token in special_tokens.items()}


# SentencePiece also holds <unk> and the 256 bytes; what is left of vocab_size is learned.
MIN_PIECE_VOCAB = len(SPECIALS) + 1 + 256 + 16


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    Law: ``decode(encode(text)) == text`` for every str without lone surrogates (a closed tokenizer: for every text over
    its characters). ``encode`` never gives the id of a special token unless ``bos`` or ``eos`` asks for it.
    """

    @property
    def kind(self) -> str:
        """ "unigram", "bpe", "byte", "char", "word" or "hf" (another library's)."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids; ids are 0 .. vocab_size - 1."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Id that begins a document, None if there is none."""
        ...

    @property
    def eos_id(self) -> int | None:
        """Id that ends a document, None if there is none."""
        ...

    @property
    def pad_id(self) -> int:
        """An id that is always safe to feed where nothing is counted; 0 if none is reserved."""
        ...

    @property
    def special_tokens(self) -> dict[str, int]:
        """Reserved symbol to id."""
        ...

    @property
    def closed(self) -> bool:
        """True if some text cannot be spelled, or reads like another; such a tokenizer has no bits per byte."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of what defines the map from text to ids."""
        ...

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of one text. Raises UserError for a lone surrogate, or a character outside a closed vocabulary."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids (int32) of many texts, without bos and eos; the same ids as ``encode``, faster."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of any ids. Specials are left out; invalid UTF-8 and unknown ids become U+FFFD. Never raises."""
        ...

    def token_str(self, token_id: int) -> str:
        """How one id reads to a person: its text, ``<0xE4>`` for a lone byte, ``<bos>`` for a special."""
        ...

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json (and a model file) into ``directory``, which is made."""
        ...


TokenizerKind = Literal["unigram", "bpe", "byte", "char", "word"]


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer to train, or to use.

    vocab_size, split_digits, character_coverage and max_train_bytes are read by "unigram" and "bpe" only: "byte" always
    has 256 + 25 ids, "char" one id per character seen and "word" one per word seen.
    """

    kind: TokenizerKind = "unigram"
    vocab_size: int = 4096  # all ids: specials, <unk>, 256 bytes and learned pieces
    split_digits: bool = True  # every digit is a token of its own, so numbers have one spelling
    character_coverage: float = 0.9995  # share of characters that get a piece; rarer ones are spelled in bytes
    max_train_bytes: int = 4_000_000  # UTF-8 bytes to train on; a larger corpus is sampled
    path: str | None = field(default=None, metadata=ADDED)
    """One that is there is used, and nothing is trained: a run directory, a tokenizer's own, or one of Hugging Face's
    (tokenizer.json). The other fields then mean nothing."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(TokenizerKind):
            raise ValueError(f"kind={self.kind!r} is no tokenizer: use {', '.join(map(repr, get_args(TokenizerKind)))}")
        if self.kind in ("unigram", "bpe") and self.vocab_size < MIN_PIECE_VOCAB:
            raise ValueError(
                f"vocab_size={self.vocab_size} leaves no room beside {len(SPECIALS)} specials and 256 bytes: "
                f"use at least {MIN_PIECE_VOCAB}, or kind='byte'"
            )
        if not 0.9 <= self.character_coverage <= 1.0:
            raise ValueError(f"character_coverage={self.character_coverage} is outside 0.9 .. 1.0")
        if self.max_train_bytes < 1:
            raise ValueError(f"max_train_bytes={self.max_train_bytes} is below 1")


def check_text(text: str) -> None:
    """Raises UserError if ``text`` holds a lone surrogate, which is no character and has no UTF-8 form."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"text holds the lone surrogate U+{code:04X} at character {error.start}: "
            "remove it, or read the file with errors='replace'"
        ) from None
