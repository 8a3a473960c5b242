"""Texts of one sentence a line, read in pieces: words to ids, each sentence between its start and end symbols."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.ngram.word_vocab import BOS, EOS, WordVocab
from jaxlm.text.words import Words, split_words

PIECE = 1 << 19
"""Bytes read at once: some 100,000 words, whose arrays stay in the cache."""


class Piece(NamedTuple):
    """Whole lines of a text."""

    data: bytes
    first_line: int
    """Number of lines before it."""


def read_pieces(path: str | Path, *, size: int = PIECE) -> Iterator[Piece]:
    """The lines of a text (``.gz``: unpacked), some ``size`` bytes at a time.

    Raises UserError where the file is missing or no text.
    """
    path = Path(path)
    held: list[bytes] = []  # the beginning of a line that has not ended yet
    line = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            while data := file.read(size):
                cut = data.rfind(b"\n") + 1
                if not cut:
                    held.append(data)
                    continue
                piece = b"".join([*held, data[:cut]])
                held = [data[cut:]]
                yield Piece(piece, line)
                line += piece.count(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the text {path}: {reason}") from error
    if rest := b"".join(held):
        yield Piece(rest, line)


def check_file(path: str | Path, what: str) -> Path:
    """The path, if a file lies there that can be read; UserError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"no {what} {path}: " + ("it is a directory, name a file" if path.is_dir() else "check the path")
        )
    if not os.access(path, os.R_OK):
        raise UserError(f"the {what} {path} may not be read: change its permissions")
    return path


def sentence_tokens(words: Words, ids: np.ndarray) -> np.ndarray:
    """``<s> words </s>`` of each line that has words, behind one another, int32. Lines without words give nothing."""
    first = np.flatnonzero(words.first)
    place = np.arange(1, len(ids) + 1)
    line = np.zeros(len(ids), np.int64)
    line[first[1:]] = 2
    place += np.cumsum(line)
    tokens = np.empty(len(ids) + 2 * len(first), np.int32)
    tokens[place] = ids
    begins = place[first] - 1
    tokens[begins] = BOS
    tokens[begins[1:] - 1] = EOS
    if len(first):
        tokens[-1] = EOS
    return tokens


def learn_tokens(path: str | Path, vocab: WordVocab) -> Iterator[np.ndarray]:
    """The tokens of a text, piece by piece; its words are added to ``vocab``.

    Raises UserError for what is not UTF-8, and for ``<s>`` or ``</s>``.
    """
    for piece in read_pieces(path):
        try:
            piece.data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = piece.first_line + piece.data.count(b"\n", 0, error.start) + 1
            raise UserError(f"{path}, line {line} is not UTF-8: convert the text") from None
        words = split_words(piece.data)
        ids = vocab.ids(words, learn_from=piece.data, where=str(path), line=piece.first_line)
        yield sentence_tokens(words, ids)
