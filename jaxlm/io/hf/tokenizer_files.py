"""tokenizer.json and tokenizer_config.json for the tokenizers of a run, as far as Hugging Face's form can say them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.io.run_dir import write_json
from jaxlm.io.tokenizers import ByteTokenizer, SentencePieceTokenizer
from jaxlm.io.tokenizers.hf import CONFIG_FILE, TOKENIZER_FILE, HFTokenizer
from jaxlm.io.tokenizers.hf_spelling import byte_alphabet
from jaxlm.text.tokenizer import BOS, EOS, MASK, PAD, SPECIALS, Tokenizer, present_names

_SPACE = "\u2581"
_RESERVED = frozenset(
    {*present_names(dict.fromkeys(SPECIALS, 0)), "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))}
)
"""Pieces that no text is cut into, also where it spells one."""
_NEVER = -1000.0
"""Their score: SentencePiece leaves them out of its search, and here they lose it."""


def write_hf_tokenizer(
    tokenizer: Tokenizer, directory: Path, *, add_bos: bool, add_eos: bool, say: Callable[[str], None]
) -> bool:
    """Writes the two files; says why, and returns False, where there is no such form (characters, words).

    ``add_bos``, ``add_eos``: whether texts begin with <bos> and end with <eos> there, as the run's did.
    """
    if isinstance(tokenizer, HFTokenizer):
        (directory / TOKENIZER_FILE).write_bytes(tokenizer.model)
        settings = {name: value for name, value in tokenizer.settings.items() if value is not None}
        write_json(directory / CONFIG_FILE, {"tokenizer_class": "PreTrainedTokenizerFast"} | settings)
        return True
    if isinstance(tokenizer, ByteTokenizer):
        described = _byte_level(tokenizer)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        described = _pieces(tokenizer)
    else:
        say(f"no tokenizer is written: a tokenizer of kind {tokenizer.kind!r} has no form of Hugging Face's")
        return False
    described |= {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for name, number in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
        ],
        "post_processor": _template(tokenizer, add_bos, add_eos) if add_bos or add_eos else None,
    }
    (directory / TOKENIZER_FILE).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "mask_token": MASK,
        "clean_up_tokenization_spaces": False,
    }
    write_json(directory / CONFIG_FILE, settings)
    return True


def _byte_level(tokenizer: ByteTokenizer) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    vocab = {character: byte for byte, character in enumerate(byte_alphabet())} | tokenizer.special_tokens
    return {
        "normalizer": None,
        "pre_tokenizer": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": False, "ignore_merges": False},
        "decoder": level,
    }


def _pieces(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    pieces, scores = tokenizer.pieces()
    if tokenizer.kind == "unigram":
        unknown = pieces.index("<unk>")
        scores = [_NEVER if piece in _RESERVED else score for piece, score in zip(pieces, scores, strict=True)]
        model: dict[str, Any] = {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": [[piece, score] for piece, score in zip(pieces, scores, strict=True)],
            "byte_fallback": True,
        }
    else:
        model = {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: number for number, piece in enumerate(pieces)},
            "merges": _merges(pieces),
        }
    return {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": None,
        "model": model,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
    }


def _merges(pieces: list[str]) -> list[list[str]]:
    """The merges that a SentencePiece BPE vocabulary stands for: each split of a piece into two, by its rank."""
    held = {piece: number for number, piece in enumerate(pieces)}
    merges = []
    for piece in pieces:
        if piece in _RESERVED:
            continue
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        found = [(left, right) for left, right in splits if left in held and right in held]
        merges += [list(pair) for pair in sorted(found, key=lambda pair: (held[pair[0]], held[pair[1]]))]
    return merges


def _template(tokenizer: Tokenizer, add_bos: bool, add_eos: bool) -> dict[str, Any]:
    begin: list[Any] = [{"SpecialToken": {"id": BOS, "type_id": 0}}] * add_bos
    end, last = ([{"SpecialToken": {"id": EOS, "type_id": number}}] * add_eos for number in range(2))
    one, other = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    # Where <eos> sets two texts apart, the second has no <bos>: as `data.examples.encode_rows` has pairs.
    between = [] if add_eos else begin
    ids = {BOS: tokenizer.bos_id, EOS: tokenizer.eos_id}
    return {
        "type": "TemplateProcessing",
        "single": [*begin, one, *end],
        "pair": [*begin, one, *end, *between, other, *last],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()},
    }
