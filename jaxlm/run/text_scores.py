"""Scores that need a trained model: bits per byte under a run, by default an n-gram of our own."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.ngram.files import MODEL_DIR
from jaxlm.io.run_dir import RunDir
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.models.ngram_fit import fit_ngram
from jaxlm.run.handle import load
from jaxlm.run.language_model import LanguageModel
from jaxlm.run.ngram_lm import NgramLM
from jaxlm.run.ngram_runs import new_run, write_run
from jaxlm.text.tokenizer import TokenizerConfig

NGRAM_TOKENIZER = TokenizerConfig(kind="unigram", vocab_size=8192)  # SentencePiece encodes it 3 times as fast as BPE
NGRAM = NgramConfig(order=3)


@dataclasses.dataclass(frozen=True)
class BitsPerByte:
    """The bits per byte of texts under the model of a run directory: a plain value, opened where it is first used.

    Raises UserError, when first used, for a run whose tokenizer cannot spell any text or whose scores are no
    likelihoods.
    """

    run_dir: str

    @property
    def fingerprint(self) -> str:
        """Of what the run holds now: sizes and times of its model's files."""
        run = Path(self.run_dir)
        places = (RunDir(run).checkpoints_path, run / MODEL_DIR)
        files = [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
        found = [(path.relative_to(run).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """f32 [n]; nan for an empty text."""
        if self.run_dir not in _OPENED:
            _OPENED[self.run_dir] = _open(self.run_dir)
        return _OPENED[self.run_dir](texts)


_OPENED: dict[str, Callable[[Sequence[str]], np.ndarray]] = {}


def _open(run_dir: str) -> Callable[[Sequence[str]], np.ndarray]:
    lm = load(run_dir)
    smoothing = getattr(lm.config, "smoothing", None)
    if lm.tokenizer.closed or smoothing in ("backoff", "ml"):
        raise UserError(
            f"{run_dir} has no bits per byte (a {lm.tokenizer.kind} tokenizer, smoothing {smoothing}): name a run "
            "with unigram, bpe or byte and true likelihoods"
        )
    if isinstance(lm, NgramLM):
        return lambda texts: _score_ngram(lm, texts)
    return lambda texts: _score_any(lm, texts)


def _score_any(lm: LanguageModel, texts: Sequence[str]) -> np.ndarray:
    found = [score.bits_per_byte for score in lm.score(list(texts))]
    return np.array([math.nan if bits is None else bits for bits in found], np.float32)


def _score_ngram(lm: NgramLM, texts: Sequence[str]) -> np.ndarray:
    """As ``lm.score``, all texts tokenised and looked up together."""
    encoded = lm.tokenizer.encode_batch(list(texts))
    bos = np.array([lm.model.bos_id], np.int32)
    flat = np.concatenate([np.zeros(0, np.int32), *(part for ids in encoded for part in (bos, ids))])
    nats = -lm.model.score(flat).astype(np.float64)
    nats[flat == lm.model.bos_id] = 0.0
    ends = np.cumsum([0, *(1 + len(ids) for ids in encoded)])
    total = np.concatenate([[0.0], np.cumsum(nats)])
    num_bytes = np.array([len(text.encode()) for text in texts], np.float64)
    num_bytes[num_bytes == 0] = math.nan
    return ((total[ends[1:]] - total[ends[:-1]]) / (math.log(2) * num_bytes)).astype(np.float32)


def fit_ngram_run(
    texts: Iterable[str],
    run_dir: str | Path,
    *,
    tokenizer: TokenizerConfig = NGRAM_TOKENIZER,
    ngram: NgramConfig = NGRAM,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Trains a tokenizer and counts an n-gram model of good texts, a run for `BitsPerByte`; its figures.

    Raises UserError where there is too little text, or ``run_dir`` is taken.
    """
    texts = list(texts)
    with new_run(run_dir, overwrite=overwrite) as partial:
        trained = train_tokenizer(tokenizer, texts)
        model = fit_ngram(
            trained.encode_batch(texts),
            trained.vocab_size,
            ngram.order,
            bos_id=trained.bos_id,
            eos_id=trained.eos_id,
            smoothing=ngram.smoothing,
            prune=ngram.prune,
        )
        write_run(partial, model, trained, {"num_texts": len(texts)})
        return {"run_dir": str(run_dir), "vocab_size": trained.vocab_size, **model.facts}
