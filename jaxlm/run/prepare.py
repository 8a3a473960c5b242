"""From a config to what the loop reads: corpus, tokenizer, token data set. Each is built once and found again."""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataConfig
from jaxlm.io.corpora.corpus import Corpus, open_corpus
from jaxlm.io.token_dataset import TokenDataset, build_token_dataset
from jaxlm.io.tokenizers import load_tokenizer, open_tokenizer, train_tokenizer
from jaxlm.io.tokenizers.files import DEFINITION_FILE
from jaxlm.models.families import ModelConfig
from jaxlm.run.config import PretrainConfig
from jaxlm.run.devices import cache_root
from jaxlm.text.tokenizer import Tokenizer, TokenizerConfig

Say = Callable[[str], None]

SKIPPED_SHOWN = 10
"""Of the bad files, lines and records: the rest is counted."""


class PreparedData(NamedTuple):
    """What a run reads."""

    corpus: Corpus
    tokenizer: Tokenizer
    dataset: TokenDataset


def prepare_data(config: PretrainConfig, say: Say) -> PreparedData:
    """Opens or builds the corpus, the tokenizer and the token data set of a run.

    Raises UserError for a cache that cannot be written, unreadable input or an empty corpus.
    """
    check_cache()
    corpus = open_corpus(config.corpus, data_dir=cache_root())
    counts = [("to train on", corpus.report.train), ("held out", corpus.report.validation)]
    say("corpus: " + ", ".join(f"{n.documents:,} documents ({n.bytes / 1e6:.2f} MB) {what}" for what, n in counts))
    for line in corpus.report.skipped[:SKIPPED_SHOWN]:
        say(f"  skipped {line}")
    if corpus.report.num_skipped > SKIPPED_SHOWN:
        say(f"  skipped {corpus.report.num_skipped - SKIPPED_SHOWN:,} more")
    tokenizer = find_tokenizer(config.tokenizer, corpus, say)
    dataset = tokenize(corpus, tokenizer, config.data)
    train = dataset.splits["train"]
    say(
        f"tokens: {train.num_tokens:,} to train on from {train.num_documents:,} documents "
        f"({train.num_bytes / max(train.num_tokens, 1):.2f} bytes a token), in {dataset.directory}"
    )
    return PreparedData(corpus, tokenizer, dataset)


def check_cache() -> None:
    """Raises UserError where the cache cannot be made or written, before the work whose results it keeps. One that is
    filled may be read-only."""
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            return
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write into the cache {root}: {error.strerror or error}: set JAXLM_CACHE_DIR to a directory that "
            "can be written"
        ) from error


def tokenize(corpus: Corpus, tokenizer: Tokenizer, data: DataConfig) -> TokenDataset:
    """The corpus as tokens, from the cache or built now; documents begin and end as config and tokenizer allow."""
    return build_token_dataset(
        corpus,
        tokenizer,
        cache_dir=cache_root() / "datasets",
        add_bos=data.add_bos and tokenizer.bos_id is not None,
        add_eos=data.add_eos and tokenizer.eos_id is not None,
    )


def find_tokenizer(config: TokenizerConfig, corpus: Corpus, say: Say) -> Tokenizer:
    """The tokenizer at the config's path, or the one that ``config`` trained on this corpus gives: from the cache, or
    trained now."""
    if config.path is not None:
        return open_tokenizer(config.path)
    key = json.dumps([dataclasses.asdict(config), corpus.content_hash], sort_keys=True)
    directory = cache_root() / "tokenizers" / hashlib.sha256(key.encode()).hexdigest()[:24]
    if directory.exists():
        try:
            return load_tokenizer(directory)
        except UserError as error:
            say(f"cached tokenizer is damaged and will be made again: {error}")
            shutil.rmtree(directory)
    say(f"training a {config.kind} tokenizer ...")
    tokenizer = train_tokenizer(config, (document.text for document in corpus.train()))
    tokenizer.save(directory)
    return tokenizer


def keep_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Saves the tokenizer with a run. Raises UserError where a started run has another."""
    if not (directory / DEFINITION_FILE).exists():  # written last: a start may have ended before it
        tokenizer.save(directory)
        return
    kept = load_tokenizer(directory)
    if kept.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"the tokenizer in {directory} ({kept.kind}, {kept.vocab_size} tokens) is not the one that this config and "
            f"corpus give ({tokenizer.kind}, {tokenizer.vocab_size} tokens): use another --run-dir, or the old corpus"
        )


def resolve_model(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model config with its vocabulary size filled in. Raises UserError where it cannot hold the tokenizer's."""
    if config.vocab_size is None:
        return dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    if config.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size={config.vocab_size} is less than the tokenizer's {tokenizer.vocab_size}: "
            "raise it, or leave it None to take the tokenizer's"
        )
    return config
