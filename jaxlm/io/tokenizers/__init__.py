"""Train, save and load tokenizers."""

from collections.abc import Iterable
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers.files import fingerprint_of, is_definition, read_definition, read_model
from jaxlm.io.tokenizers.pieces import SentencePieceTokenizer, train_sentencepiece
from jaxlm.io.tokenizers.plain import ByteTokenizer, CharTokenizer
from jaxlm.text.tokenizer import Tokenizer, TokenizerConfig

__all__ = [
    "ByteTokenizer",
    "CharTokenizer",
    "SentencePieceTokenizer",
    "load_tokenizer",
    "open_tokenizer",
    "train_tokenizer",
]

_ANY_SIZE = 1 << 31
"""Of a vocabulary, where no model limits it."""


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer that ``config`` names: the one at its path, or trained on ``texts`` (one pass; "byte" reads none of
    them).

    Raises:
        UserError: no text, too little of it, or a lone surrogate in it; no tokenizer at the path.
    """
    if config.path is not None:
        return open_tokenizer(config.path)
    if config.kind == "byte":
        return ByteTokenizer()
    if config.kind == "char":
        seen: set[str] = set()
        for text in texts:
            seen.update(text)
        return CharTokenizer("".join(seen))
    if config.kind == "word":
        from jaxlm.io.ngram.word_vocab import learn_words

        return learn_words(texts)
    return train_sentencepiece(config, texts)


def open_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a run directory, of a directory that one was saved in, or of a directory of Hugging Face's.

    Raises:
        UserError: there is none, or it is damaged.
    """
    directory = Path(path)
    if (directory / "tokenizer").is_dir():
        directory = directory / "tokenizer"
    if is_definition(directory):
        return load_tokenizer(directory)
    from jaxlm.io.tokenizers.hf import read_hf_tokenizer  # needs an optional package

    return read_hf_tokenizer(directory, {}, _ANY_SIZE, lambda line: None)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer saved in ``directory``; runs no code from it.

    Raises:
        UserError: missing, damaged, of a newer format or of an unknown kind.
    """
    definition = read_definition(directory)
    kind = definition.get("kind")
    if kind == "byte":
        tokenizer: Tokenizer = ByteTokenizer()
    elif kind == "char":
        tokenizer = CharTokenizer(definition["characters"])
    elif kind in ("unigram", "bpe"):
        tokenizer = SentencePieceTokenizer(read_model(directory, definition["model_sha256"]), kind)
    elif kind == "word":  # kept apart: it needs no SentencePiece, and n-gram commands start without it
        from jaxlm.io.ngram.word_vocab import load_word_vocab

        return load_word_vocab(directory)
    elif kind == "hf":
        from jaxlm.io.tokenizers.hf import HFTokenizer  # needs an optional package

        tokenizer = HFTokenizer(read_model(directory, definition["model_sha256"]), definition["settings"])
    else:
        raise UserError(f"tokenizer kind {kind!r} in {directory} is unknown to this jaxlm: upgrade jaxlm")
    if tokenizer.fingerprint != fingerprint_of(definition):
        # The file is whole, yet what it defines differs here: its specials are not this version's.
        raise UserError(f"the tokenizer in {directory} was made by another version of jaxlm: use that version")
    return tokenizer
