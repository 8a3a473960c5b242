"""N-gram runs: fitting one from text, an ARPA file's as one, scoring a text, drawing from one. Imports no JAX."""

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.ngram.files import MODEL_DIR, load_ngram, save_ngram, table_store
from jaxlm.io.ngram.sentences import Piece, check_file, learn_tokens, read_pieces, sentence_tokens
from jaxlm.io.ngram.word_vocab import BOS, EOS, UNK, WordVocab, load_word_vocab
from jaxlm.io.writing import check_new_file, is_taken, new_directory
from jaxlm.models.ngram import NgramModel
from jaxlm.models.ngram_estimate import BACKOFF_MODELS, SMOOTHINGS, NgramConfig
from jaxlm.models.ngram_fit import fit_tokens
from jaxlm.text.words import split_words

RUN_FILES = {"config.json", "done.json", "tokenizer", MODEL_DIR}
"""What stands in the directory of an n-gram run."""

UNK_WORD = "UNKNOWNWORD"
"""What ``<unk>`` in a training text is read as, an ordinary word (corpora mask rare words so)."""


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def new_run(out: str | Path, *, overwrite: bool = False, files: Sequence[str | Path | None] = ()) -> Iterator[Path]:
    """A directory beside ``out`` that takes its place once the block has ended well, else vanishes.

    Raises UserError where ``out`` is taken, or holds one of ``files``, which are read or written meanwhile.
    ``overwrite`` replaces another n-gram run, nothing else.
    """
    out = Path(out)
    try:
        taken = is_taken(out)
        foreign = sorted({path.name for path in out.iterdir()} - RUN_FILES) if taken and out.is_dir() else []
    except OSError as error:
        raise UserError(f"cannot read {out}: {error.strerror or error}: pass another --out") from error
    if taken and not overwrite:
        raise UserError(f"{out} exists already: pass another --out, or --overwrite to replace an n-gram run")
    if taken and not (out / MODEL_DIR / "model.json").is_file():
        raise UserError(f"{out} is no n-gram run: --overwrite leaves it alone, pass another --out")
    for file in files:
        if file is not None and out.is_dir() and Path(os.path.realpath(file)).is_relative_to(os.path.realpath(out)):
            raise UserError(f"{file} lies in --out {out}, which is made anew: name one outside it")
    if foreign:
        raise UserError(f"{out} holds {foreign[0]}, which --overwrite would delete: move it, or pass another --out")
    with new_directory(out, replace=taken) as partial:
        yield partial


def run_config(config: NgramConfig, data: dict[str, Any]) -> dict[str, Any]:
    """What config.json of a run holds as its config: the model's, and where the text came from."""
    from jaxlm.io.config_json import config_to_dict

    return config_to_dict({"model": {"family": "ngram", **dataclasses.asdict(config)}, "data": data})


def write_run(directory: Path, model: NgramModel, tokenizer: Any, data: dict[str, Any]) -> None:
    """The files of an n-gram run, config.json last: tokenizer/, ngram/, and what `jaxlm.load` reads to open them."""
    from jaxlm.io.run_dir import environment, write_json

    tokenizer.save(directory / "tokenizer")
    save_ngram(directory / MODEL_DIR, model)
    write_json(directory / "config.json", {"config": run_config(model.config, data), **environment()})


def fit_text(
    text: str | Path,
    out: str | Path,
    config: NgramConfig,
    *,
    arpa: str | Path | None = None,
    unk_word: str = UNK_WORD,
    memory_bytes: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fits a model of words to a text of one sentence a line and writes the run; its figures.

    Args:
      memory_bytes: what counting may hold; beyond, rows are sorted on disk beside ``out``. None = no limit.
      arpa: also write the model to this ARPA file.

    Raises UserError before anything is written for bad input, and leaves nothing behind whenever it raises.
    """
    start = time.monotonic()
    if config.smoothing not in SMOOTHINGS:
        raise UserError(f"smoothing={config.smoothing!r} is none of {', '.join(SMOOTHINGS)}")
    check_file(text, "text")
    if arpa is not None:
        if config.smoothing not in BACKOFF_MODELS:
            raise UserError(f"--arpa holds backoff models, which smoothing {config.smoothing!r} is not: leave it out")
        check_new_file(arpa)
        if os.path.realpath(arpa) == os.path.realpath(text):
            raise UserError(f"--arpa {arpa} is the text itself, which it would replace: name another file")
    if not unk_word or set(unk_word) & set(" \t\n\v\f\r\0") or unk_word in ("<unk>", "<s>", "</s>"):
        raise UserError(f"unk_word={unk_word!r} must be a word, none of <unk>, <s> and </s>")
    with new_run(out, overwrite=overwrite, files=(text, arpa)) as partial, ExitStack() as stack:
        (partial / MODEL_DIR).mkdir()
        options: dict[str, Any] = {"store": table_store(partial / MODEL_DIR)}
        vocab = WordVocab(unk_word=unk_word.encode())
        say(f"reading {text}")
        if memory_bytes is None:
            parts = list(learn_tokens(text, vocab))
            tokens = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, np.int32)
        else:
            from jaxlm.io.ngram.spill import Spill

            spill = stack.enter_context(Spill(partial, memory_bytes))
            tokens = spill.store(learn_tokens(text, vocab), np.int32)
            options |= {"sorter": spill.sort, "allocate": spill.allocate, "block_size": spill.block_size}
        if not len(tokens):
            raise UserError(f"{text} holds no word: there is nothing to count")
        ends = {"bos_id": BOS, "eos_id": EOS, "unk_id": UNK}
        model = fit_tokens(tokens, config, vocab_size=vocab.vocab_size, **ends, **options, say=say)
        for n in model.facts.get("fallback_orders", ()):
            say(f"order {n}: too few counts of counts for discounts, 0.5, 1 and 1.5 are used")
        say(f"writing {out}")
        write_run(partial, model, vocab, {"text": str(text), "unk_word": unk_word})
        figures = {
            "num_tokens": int(len(tokens) - np.count_nonzero(tokens == BOS)),
            "vocab_size": vocab.vocab_size,
            **model.facts,
        }
        if arpa is not None:
            from jaxlm.io.ngram.arpa import write_arpa

            say(f"writing {arpa}")
            write_arpa(arpa, model, vocab.words)
    return {"run_dir": str(out), **figures, "seconds": round(time.monotonic() - start, 3)}


def export_arpa(run: str | Path, arpa: str | Path) -> dict[str, Any]:
    """Writes the model of a run directory as an ARPA file. Raises UserError for a place that cannot be written, or that
    is a file of the run itself."""
    from jaxlm.io.ngram.arpa import write_arpa

    check_new_file(arpa)
    own = [os.path.realpath(Path(run) / name) for name in RUN_FILES]
    if any(Path(os.path.realpath(arpa)).is_relative_to(path) for path in own):
        raise UserError(f"--arpa {arpa} is a file of the run itself, which it would replace: name another file")
    model, vocab = open_run(run)
    write_arpa(arpa, model, vocab.words)
    return {"arpa": str(arpa), **model.facts}


def import_arpa(arpa: str | Path, out: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """The run of an ARPA file's model; its figures."""
    from jaxlm.io.ngram.arpa import read_arpa

    start = time.monotonic()
    check_file(arpa, "ARPA file")
    with new_run(out, overwrite=overwrite, files=(arpa,)) as partial:
        model, vocab = read_arpa(arpa)
        write_run(partial, model, vocab, {"arpa": str(arpa), "unk_word": None})
    return {
        "run_dir": str(out),
        "vocab_size": vocab.vocab_size,
        **model.facts,
        "seconds": round(time.monotonic() - start, 3),
    }


def open_run(run: str | Path) -> tuple[NgramModel, WordVocab]:
    """The model and vocabulary of a run of words. Raises UserError for another kind of run."""
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"no run directory {run}: give the --out of a fit")
    return load_ngram(run / MODEL_DIR), load_word_vocab(run / "tokenizer")


class Totals(NamedTuple):
    """Sums over scored text. Nats apart for known and unknown words: either may be infinite."""

    known_nats: float = 0.0
    unknown_nats: float = 0.0
    num_tokens: int = 0
    num_unknown: int = 0
    num_sentences: int = 0


def add_up(totals: Iterable[Totals]) -> Totals:
    """The sum of each field."""
    columns = zip(*totals, strict=True)
    return Totals(*map(sum, columns))


def score_piece(model: NgramModel, vocab: WordVocab, piece: Piece, where: str) -> Totals:
    """Sums over the sentences of one piece of text, ``</s>`` counted, lines without words left out."""
    words = split_words(piece.data)
    tokens = sentence_tokens(words, vocab.ids(words, where=where, line=piece.first_line))
    logprobs = model.score(tokens)
    sentences = int(np.count_nonzero(tokens == BOS))
    unknown = tokens == UNK
    num_unknown = int(np.count_nonzero(unknown))
    unknown_nats = -float(np.sum(logprobs[unknown], dtype=np.float64)) if num_unknown else 0.0
    known = logprobs[~unknown] if num_unknown else logprobs
    known_nats = -float(np.sum(known, dtype=np.float64))
    return Totals(known_nats, unknown_nats, len(tokens) - sentences, num_unknown, sentences)


def score_text(run: str | Path, text: str | Path, *, num_threads: int | None = None) -> dict[str, Any]:
    """Perplexity of a text of one sentence a line, and the sums behind it. Raises UserError where it has no word."""
    start = time.monotonic()
    if num_threads is not None and num_threads < 1:
        raise UserError(f"threads={num_threads} must be at least 1")
    model, vocab = open_run(run)
    name = str(check_file(text, "text"))
    threads = num_threads or min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    total = _sum_pieces(read_pieces(text), lambda piece: score_piece(model, vocab, piece, name), threads)
    if not total.num_tokens:
        raise UserError(f"{text} holds no word: there is nothing to score")
    known = total.num_tokens - total.num_unknown
    nats = total.known_nats + total.unknown_nats
    return {
        "perplexity": _perplexity(nats, total.num_tokens),
        "perplexity_known_words": _perplexity(total.known_nats, known) if known else None,
        "nats": nats if math.isfinite(nats) else None,
        "num_tokens": total.num_tokens,
        "num_unknown": total.num_unknown,
        "num_sentences": total.num_sentences,
        "smoothing": model.config.smoothing,
        "seconds": round(time.monotonic() - start, 3),
    }


def _perplexity(nats: float, count: int) -> float | None:
    """exp(nats / count); None where a word had no probability at all."""
    try:
        return math.exp(nats / count) if math.isfinite(nats) else None
    except OverflowError:
        return None


def _sum_pieces(pieces: Iterator[Piece], score: Callable[[Piece], Totals], num_threads: int) -> Totals:
    """The sum over all pieces, in their order whichever thread scored them (NumPy lets threads run side by side)."""
    found: dict[int, Totals] = {}
    errors: list[BaseException] = []
    lock = Lock()
    numbered = enumerate(pieces)

    def work() -> None:
        try:
            while not errors:
                with lock:
                    number, piece = next(numbered, (-1, None))
                if piece is None:
                    return
                found[number] = score(piece)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work, daemon=True) for _ in range(num_threads - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return add_up([Totals(), *(found[number] for number in sorted(found))])
