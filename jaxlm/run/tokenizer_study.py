"""``jaxlm tokenizers CONFIG``: what each tokenizer makes of each source, over a sweep of vocabulary sizes.

Ours are trained on a like part of every source, and all are measured on text that none of ours has seen.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.evals.tokenizers import measure_tokens
from jaxlm.io.agree import say
from jaxlm.io.corpora.corpus import open_corpus
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.io.tokenizer_references import Reference, as_reference, open_reference
from jaxlm.io.tokenizer_report import tokenizer_table, write_tokenizer_report
from jaxlm.io.tokenizers import load_tokenizer, train_tokenizer
from jaxlm.io.tokenizers.files import DEFINITION_FILE
from jaxlm.io.tokenizers.pieces import sample_chunks
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.devices import cache_root
from jaxlm.run.processes import require_single_process
from jaxlm.run.training import print_figures
from jaxlm.text.dedup import hash_of
from jaxlm.text.tokenizer import MIN_PIECE_VOCAB, TokenizerConfig

RESULTS, TOKENIZERS_DIR = "tokenizers.json", "tokenizers"
BYTES = "bytes"
MAY_CHANGE = ("name", "references", "measured_bytes")


@dataclasses.dataclass(frozen=True)
class StudiedSource:
    """Text of one kind, with a part held out."""

    name: str
    language: str = ""
    """ISO 639-1; "" = not stated."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)


@dataclasses.dataclass(frozen=True)
class TokenizerStudyConfig:
    """Fertility, bytes a token and coverage of several tokenizers on several sources."""

    name: str = "tokenizers"
    """A title for the report."""
    sources: tuple[StudiedSource, ...] = (StudiedSource("docstrings", "en"),)
    kinds: tuple[Literal["bpe", "unigram"], ...] = ("bpe", "unigram")
    vocab_sizes: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    references: tuple[str, ...] = ()
    """Others to compare with: a directory with a tokenizer.json, or a SentencePiece model (``*.model``)."""
    train_bytes: int = 4_000_000
    """To train each of ours on at most; each source gives a like part, sampled by hash."""
    character_coverage: float = 0.9995
    measured_bytes: int = 500_000
    """Of each source's held-out text, from its first document; at most one document more."""

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names:
            raise ValueError("sources=(): name at least one")
        if len(set(names)) < len(names):
            raise ValueError(f"two sources of one name: {', '.join(names)}")
        for size in self.vocab_sizes:
            if size < MIN_PIECE_VOCAB:
                raise ValueError(f"vocab_sizes holds {size}: use at least {MIN_PIECE_VOCAB}")
        for name in ("train_bytes", "measured_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        self.trained("bpe", MIN_PIECE_VOCAB)  # what its config would refuse is refused here

    def trained(self, kind: Literal["bpe", "unigram"], vocab_size: int) -> TokenizerConfig:
        """The config of one of ours."""
        return TokenizerConfig(
            kind, vocab_size, character_coverage=self.character_coverage, max_train_bytes=self.train_bytes
        )


def main(argv: list[str]) -> int:
    """``CONFIG [--field value ...] [--run-dir DIR]``; the last line on stdout is the table as JSON."""
    require_single_process("jaxlm tokenizers")
    config, options = load_config(TokenizerStudyConfig, argv, CommandOptions, prog="jaxlm tokenizers")
    print_figures(study_tokenizers(config, options.run_dir or Path("runs") / config.name))
    return 0


def study_tokenizers(config: TokenizerStudyConfig, run_dir: str | Path) -> dict[str, Any]:
    """Trains and measures; returns (and writes to ``tokenizers.json``) ``rows``, one for each tokenizer and source.

    A row: ``tokenizer``, ``kind``, ``vocab_size``, ``source``, ``language``, the figures of `TokenizerFigures`, and
    ``mb_per_second``: megabytes of UTF-8 tokenised in a second of processor time. Trained tokenizers are kept below
    the run directory and found again. A vocabulary larger than the text gives is left out, and said.

    Raises UserError for a source without text, or a reference that cannot be read.
    """
    references = [open_reference(path) for path in config.references]  # before anything is trained
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        texts = [_read(source, config) for source in config.sources]
        directory.write_config(config, may_change=MAY_CHANGE)
        # Of what ours are trained on: they are kept, and all are measured again.
        directory.require(text_sha256=hash_of(text for one in texts for text in one.train))
        rows = []
        for kind, reference in _all(config, references, texts, directory.path / TOKENIZERS_DIR):
            say(f"-- {reference.name}")
            rows += [_measure(kind, reference, source, held.held_out) for source, held in _pairs(config, texts)]
        results = {"rows": rows, "run_dir": str(directory.path)}
        write_json(directory.path / RESULTS, results)
        write_tokenizer_report(directory.report_path, config.name, rows)
        say(tokenizer_table(rows))
        say(f"report: {directory.report_path}")
        return results


class _Texts(NamedTuple):
    """Of one source."""

    train: list[str]
    held_out: list[str]


def _pairs(config: TokenizerStudyConfig, texts: list[_Texts]) -> Iterable[tuple[StudiedSource, _Texts]]:
    return zip(config.sources, texts, strict=True)


def _read(source: StudiedSource, config: TokenizerStudyConfig) -> _Texts:
    corpus = open_corpus(source.corpus, data_dir=cache_root())
    train = sample_chunks((document.text for document in corpus.train()), config.train_bytes // len(config.sources))
    held_out = _first(corpus.validation(), config.measured_bytes)
    if not held_out:
        raise UserError(f"source {source.name!r} has no held-out text: raise its corpus.validation_fraction")
    return _Texts(train, held_out)


def _first(documents: Iterable[Any], num_bytes: int) -> list[str]:
    texts, size = [], 0
    for document in documents:
        if size >= num_bytes:
            break
        texts.append(document.text)
        size += len(document.text.encode())
    return texts


def _all(
    config: TokenizerStudyConfig, references: list[Reference], texts: list[_Texts], directory: Path
) -> Iterable[tuple[str, Reference]]:
    """(kind, tokenizer) of all that are compared; ours are trained as they are asked for."""
    yield "byte", as_reference(BYTES, train_tokenizer(TokenizerConfig(kind="byte"), ()))
    for kind in config.kinds:
        for size in config.vocab_sizes:
            name = f"{kind}-{size}"
            path = directory / name
            if (path / DEFINITION_FILE).exists():
                tokenizer = load_tokenizer(path)
            else:
                say(f"training {name} ...")
                try:
                    sample = itertools.chain.from_iterable(held.train for held in texts)
                    tokenizer = train_tokenizer(config.trained(kind, size), sample)
                except UserError as error:
                    say(f"  left out: {error}")
                    continue
                tokenizer.save(path)
            yield kind, as_reference(name, tokenizer)
    yield from (("reference", reference) for reference in references)


def _measure(kind: str, reference: Reference, source: StudiedSource, texts: list[str]) -> dict[str, Any]:
    reference.encode_batch(texts[:1])  # what is loaded at first use
    start = time.process_time()
    ids = reference.encode_batch(texts)
    seconds = time.process_time() - start
    figures = measure_tokens(texts, ids, is_byte_v=reference.is_byte_v, is_unknown_v=reference.is_unknown_v)
    return {
        "tokenizer": reference.name,
        "kind": kind,
        "vocab_size": reference.vocab_size,
        "source": source.name,
        "language": source.language,
        **figures.to_dict(),
        "mb_per_second": figures.num_bytes / 1e6 / max(seconds, 1e-9),
    }
