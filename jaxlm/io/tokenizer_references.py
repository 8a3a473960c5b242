"""Tokenizers to be compared, of any maker: jaxlm's own, a Hugging Face tokenizer.json, a SentencePiece model.

Only what a comparison needs: ids of texts, and which ids are lone bytes or stand for what cannot be spelled.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers import SentencePieceTokenizer, load_tokenizer
from jaxlm.io.tokenizers.hf import TOKENIZER_FILE, HFTokenizer
from jaxlm.io.tokenizers.table import UNKNOWN
from jaxlm.text.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x[89A-F][0-9A-F]>")
"""A byte of a character of several, as `token_str` and SentencePiece spell it."""


class Reference(NamedTuple):
    """A tokenizer as a comparison sees it."""

    name: str
    vocab_size: int
    encode_batch: Callable[[Sequence[str]], list[np.ndarray]]
    is_byte_v: np.ndarray
    """Ids that are one byte of a character of several, bool [v]."""
    is_unknown_v: np.ndarray
    """Ids that stand for what cannot be spelled, bool [v]."""


def as_reference(name: str, tokenizer: Tokenizer) -> Reference:
    """A tokenizer of jaxlm's, or one that it has wrapped."""
    if isinstance(tokenizer, HFTokenizer):
        return _of_hf(name, tokenizer)
    spelled = [tokenizer.token_str(i) for i in range(tokenizer.vocab_size)]
    unknown_v = np.zeros(len(spelled), bool)
    if isinstance(tokenizer, SentencePieceTokenizer):  # never used: it falls back on bytes
        unknown_v[:] = [piece == "<unk>" for piece in spelled]
    return Reference(name, len(spelled), tokenizer.encode_batch, _are_bytes(spelled), unknown_v)


def open_reference(path: str | Path, *, name: str | None = None) -> Reference:
    """The tokenizer at ``path``: a directory with a tokenizer.json, that file, or a SentencePiece ``*.model``.

    Raises UserError where there is none that can be read.
    """
    path = Path(path).expanduser()
    file = path / TOKENIZER_FILE if path.is_dir() else path
    name = name or (path.parent.name if path.name == TOKENIZER_FILE else path.stem if path.is_file() else path.name)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"no tokenizer at {file}: {error.strerror or error}") from None
    if file.suffix == ".model":
        return _of_sentencepiece(name, content, file)
    try:
        described = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{file} is no JSON: name a tokenizer.json or a SentencePiece .model") from None
    if isinstance(described, dict) and "format_version" in described:
        return as_reference(name, load_tokenizer(file.parent))
    return _of_hf(name, HFTokenizer(content, {}))


def _of_hf(name: str, tokenizer: HFTokenizer) -> Reference:
    inner: Any = tokenizer._tokenizer
    tokens = [inner.id_to_token(i) or "" for i in range(tokenizer.vocab_size)]
    # In a byte-level alphabet one letter is one byte; alone it decodes to no character where it is a part of one.
    lone_v = [len(token) == 1 and UNKNOWN in inner.decode([i]) for i, token in enumerate(tokens)]
    model = json.loads(tokenizer.model).get("model", {})
    unknown = model.get("unk_token")
    if unknown is None and isinstance(model.get("unk_id"), int):
        unknown = tokens[model["unk_id"]]
    unknown_v = np.array([unknown is not None and token == unknown for token in tokens], bool)
    return Reference(name, len(tokens), tokenizer.encode_batch, _are_bytes(tokens) | np.array(lone_v, bool), unknown_v)


def _of_sentencepiece(name: str, content: bytes, file: Path) -> Reference:
    import sentencepiece

    try:
        processor: Any = sentencepiece.SentencePieceProcessor(model_proto=content)
        size = processor.get_piece_size()
    except RuntimeError as error:
        raise UserError(f"{file} is no SentencePiece model: {' '.join(str(error).split())}") from None
    if not size:
        raise UserError(f"{file} is no SentencePiece model: it has no pieces")
    pieces = [processor.id_to_piece(i) for i in range(size)]

    def encode_batch(texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(ids, np.int32) for ids in processor.encode(list(texts))]

    unknown_v = np.array([processor.is_unknown(i) for i in range(size)], bool)
    return Reference(name, size, encode_batch, _are_bytes(pieces), unknown_v)


def _are_bytes(spelled: Sequence[str]) -> np.ndarray:
    return np.array([_BYTE.fullmatch(token) is not None for token in spelled], bool)
