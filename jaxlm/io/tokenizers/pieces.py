"""SentencePiece tokenizers: unigram (Kudo 2018) and BPE (Sennrich et al. 2016), trained here, with byte fallback.

Round trips are exact: no normalisation, no dummy prefix, no removal of white space, bytes for what has no piece.
SentencePiece writes a space as U+2581 and so cannot tell the two apart; the literal U+2581 is therefore always spelled
in its three bytes, and decoding is done here from a table of bytes per id.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers.files import FORMAT_VERSION, fingerprint_of, write_definition
from jaxlm.io.tokenizers.table import UNKNOWN, decode_bytes
from jaxlm.text.chunks import chunk_text
from jaxlm.text.dedup import unit_hash
from jaxlm.text.tokenizer import (
    BOS,
    EOS,
    PAD,
    PRESENT_NAMES,
    SPECIALS,
    TokenizerConfig,
    check_text,
    present_names,
)

_SPACE = "\u2581"
_ENCODE_CHUNK = 4096  # characters; bounds the search of a long text, whose f32 path scores would lose their digits
_TRAIN_CHUNK = 2048
_TRAIN_THREADS = 4  # fixed: the order of floating-point sums in unigram training depends on it


class SentencePieceTokenizer:
    """A trained SentencePiece model. Spells any text; thread-safe."""

    closed = False

    def __init__(self, model: bytes, kind: str) -> None:
        import sentencepiece  # here, so that what needs no SentencePiece starts without it

        self.kind = kind
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        processor = self._processor
        self.vocab_size: int = processor.get_piece_size()
        self._stored = {name: processor.piece_to_id(name) for name in SPECIALS}
        self.special_tokens = present_names(self._stored)
        self.pad_id = self.special_tokens[PAD]
        self.bos_id: int | None = self.special_tokens[BOS]
        self.eos_id: int | None = self.special_tokens[EOS]
        self._bytes = [*(_bytes_of(processor, i) for i in range(self.vocab_size)), UNKNOWN.encode()]
        self._space_ids = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
        self.fingerprint = fingerprint_of(self._definition())

    def _definition(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            "special_tokens": self._stored,
            "model_sha256": hashlib.sha256(self._model).hexdigest(),
        }

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of one text; UserError for a lone surrogate."""
        ids = self._encode_parts([text], threads=1)[0]
        return [self.special_tokens[BOS]] * bos + ids + [self.special_tokens[EOS]] * eos

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of many texts, int32, without bos and eos; long texts are cut and encoded on all cores."""
        return [np.array(ids, np.int32) for ids in self._encode_parts(texts, threads=_cores())]

    def _encode_parts(self, texts: Sequence[str], threads: int) -> list[list[int]]:
        parts: list[str] = []
        plan: list[tuple[int, int]] = []  # (text, part), part -1 for a literal U+2581
        for number, text in enumerate(texts):
            check_text(text)
            for run, plain in enumerate(text.split(_SPACE)):
                if run:
                    plan.append((number, -1))
                for part in chunk_text(plain, _ENCODE_CHUNK):
                    plan.append((number, len(parts)))
                    parts.append(part)
        encoded = self._processor.encode(parts, num_threads=min(threads, max(1, len(parts)))) if parts else []
        if plan == [(number, number) for number in range(len(texts))]:  # nothing was cut or empty: the usual case
            return encoded
        ids: list[list[int]] = [[] for _ in texts]
        for number, part in plan:
            ids[number].extend(self._space_ids if part < 0 else encoded[part])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of any ids; specials left out, invalid UTF-8 and unknown ids as U+FFFD."""
        return decode_bytes(self._bytes, ids)

    def token_str(self, token_id: int) -> str:
        """The piece's text, ``<0xE4>`` for a byte outside ASCII, or the special's name."""
        if not 0 <= token_id < self.vocab_size:
            return UNKNOWN
        piece = self._processor.id_to_piece(token_id)
        if self._processor.is_control(token_id) or self._processor.is_unknown(token_id):
            return PRESENT_NAMES.get(piece, piece)
        content = self._bytes[token_id]
        return piece if len(content) == 1 and content[0] >= 128 else content.decode()

    def pieces(self) -> tuple[list[str], list[float]]:
        """Each id's piece as SentencePiece spells it (specials under the names in use), and its score."""
        pieces = [self._processor.id_to_piece(i) for i in range(self.vocab_size)]
        scores = [self._processor.get_score(i) for i in range(self.vocab_size)]
        return [PRESENT_NAMES.get(piece, piece) for piece in pieces], scores

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.model and tokenizer.json."""
        write_definition(directory, self._definition(), self._model)


def _bytes_of(processor: Any, token_id: int) -> bytes:
    piece: str = processor.id_to_piece(token_id)
    if processor.is_control(token_id):
        return b""
    if processor.is_unknown(token_id):
        return UNKNOWN.encode()
    if processor.is_byte(token_id):
        return bytes((int(piece[3:5], 16),))
    return piece.replace(_SPACE, " ").encode()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sample_chunks(texts: Iterable[str], max_bytes: int) -> list[str]:
    """The texts, cut into chunks, if they fit into ``max_bytes`` of UTF-8; otherwise a sample of the chunks.

    Kept are the chunks whose hash is below a bar, halved whenever the sample outgrows ``max_bytes``: one pass, bounded
    memory, no seed, and the same sample whatever the order of the texts. Their order is that of ``texts``.
    """
    bar, held = 1.0, 0
    kept: list[tuple[float, int, str]] = []
    for text in texts:
        check_text(text)
        for chunk in chunk_text(text, _TRAIN_CHUNK):
            place = unit_hash(chunk)
            if place < bar:
                size = len(chunk.encode())
                kept.append((place, size, chunk))
                held += size
            while held > max_bytes and bar > 1e-15:
                bar /= 2
                kept = [item for item in kept if item[0] < bar]
                held = sum(size for _, size, _ in kept)
    return [chunk for _, _, chunk in kept]


def train_sentencepiece(config: TokenizerConfig, texts: Iterable[str]) -> SentencePieceTokenizer:
    """Trains on ``texts`` (sampled to ``config.max_train_bytes``); the same texts give the same model, byte for byte.

    Raises:
        UserError: no text, or too little of it for ``config.vocab_size``.
    """
    import sentencepiece

    chunks = sample_chunks(texts, config.max_train_bytes)
    if not any(chunks):
        raise UserError(f"no text to train the {config.kind} tokenizer on: the training split is empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(chunks),
            model_writer=model,
            model_type=config.kind,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            split_digits=config.split_digits,
            normalization_rule_name="identity",
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,  # one token for the indentation of code
            max_sentence_length=16 * _TRAIN_CHUNK,
            # Beyond this many first candidates the unigram model's pieces hardly change and its training only slows.
            seed_sentencepiece_size=max(100_000, 16 * config.vocab_size),
            num_threads=_TRAIN_THREADS,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            pad_piece=PAD,
            bos_piece=BOS,
            eos_piece=EOS,
            unk_piece="<unk>",
            control_symbols=list(SPECIALS[3:]),
            minloglevel=3,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(_training_failed(config, str(error))) from None
    return SentencePieceTokenizer(model.getvalue(), config.kind)


def _training_failed(config: TokenizerConfig, reason: str) -> str:
    bound = re.search(r"<= (\d+)", reason)
    if bound:
        return (
            f"tokenizer.vocab_size={config.vocab_size} is more than the training text gives: "
            f"set it to at most {bound[1]}, or add text"
        )
    if "smaller than required_chars" in reason:
        return (
            f"tokenizer.vocab_size={config.vocab_size} has no room for the characters of the training text: "
            "raise it, or lower tokenizer.character_coverage"
        )
    return f"the {config.kind} tokenizer could not be trained: {' '.join(reason.split())}"
