"""A trained encoder behind the handle: words for <mask>, vectors of texts, pseudo-log-likelihoods."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array, Params
from jaxlm.generate.decode import bucket_length
from jaxlm.losses.tokens import token_nll
from jaxlm.models.api import Model
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.families import for_inference, make_model
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.language_model import LanguageModel, Score, check_counts, check_texts
from jaxlm.run.opening import Opened
from jaxlm.text.tokenizer import MASK, Tokenizer


class Filling(NamedTuple):
    """One symbol that may stand at a mask."""

    text: str
    token: int
    probability: float


class Programs(NamedTuple):
    """An encoder's pure functions, jitted. Rows are padded on the right with segment 0."""

    vectors: Callable[..., Array]
    """``(params, tokens_bt, segment_ids_bt) -> f32 [b, t, d]``."""
    log_probs: Callable[..., Array]
    """``(params, tokens_1t, segment_ids_1t, places_n) -> f32 [n, v]``, those of some places of one row."""
    logprobs: Callable[..., Array]
    """``(params, tokens_bt, segment_ids_bt, places_b, targets_b) -> f32 [b]``, of one token at that place."""


@functools.lru_cache(maxsize=8)
def encoder_programs(config: EncoderConfig) -> Programs:
    """The programs of a config, kept: opening another checkpoint of a run compiles nothing again."""
    model = make_model(for_inference(config, jax.default_backend(), kernel_missing=kernel_missing))

    def vectors(params: Params, tokens_bt: Array, segment_ids_bt: Array) -> Array:
        return model.hidden(params, tokens_bt, segment_ids=segment_ids_bt)[0].astype(jnp.float32)

    def log_probs(params: Params, tokens_1t: Array, segments_1t: Array, places_n: Array) -> Array:
        hidden_1td = model.hidden(params, tokens_1t, segment_ids=segments_1t).hidden_btd
        return jax.nn.log_softmax(model.logits(params, hidden_1td[0, places_n]), axis=-1)

    def logprobs(params: Params, tokens_bt: Array, segments_bt: Array, places_b: Array, targets_b: Array) -> Array:
        hidden_btd = model.hidden(params, tokens_bt, segment_ids=segments_bt).hidden_btd
        chosen_bd = jnp.take_along_axis(hidden_btd, places_b[:, None, None], axis=1)[:, 0]
        return -token_nll(model.logits(params, chosen_bd), targets_b)[0]

    return Programs(jax.jit(vectors), jax.jit(log_probs), jax.jit(logprobs))


class EncoderLM(LanguageModel):
    """A masked language model with its tokenizer. Programs are compiled at first use, one for each length bucket.

    Args:
      model: from ``make_model``, an encoder.
      params: on any devices; only read.
      run_config: the run's config as JSON values, of which ``data`` tells how texts began and ended in training.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        tokenizer: Tokenizer,
        run_config: dict[str, Any],
        *,
        step: int = 0,
        is_ema: bool = False,
    ):
        data = run_config.get("data", {})
        self.params, self.tokenizer, self.config, self.run_config = params, tokenizer, model.config, run_config
        self.step, self.is_ema, self.family = step, is_ema, model.config.family
        self.context: int = min(model.config.max_seq_len, data.get("seq_len", model.config.max_seq_len))
        if MASK not in tokenizer.special_tokens:
            raise UserError(
                f"this run's tokenizer names no {MASK}, and an encoder reads it: import the model with the "
                "tokenizer_config.json that names its mask_token"
            )
        self.mask_id: int = tokenizer.special_tokens[MASK]
        self._begin = [tokenizer.bos_id] if data.get("add_bos", True) and tokenizer.bos_id is not None else []
        self._end = [tokenizer.eos_id] if data.get("add_eos", True) and tokenizer.eos_id is not None else []
        self._programs = encoder_programs(model.config)

    @classmethod
    def of_run(cls, opened: Opened, tokenizer: Tokenizer, run_config: dict[str, Any]) -> Self:
        """The model of a checkpoint."""
        model = make_model(opened.config)
        return cls(model, opened.params, tokenizer, run_config, step=opened.step, is_ema=opened.is_ema)

    def encode(self, text: str) -> list[int]:
        """Token ids as the model reads them: a text that spells <mask> has the mask symbol there, and the symbols that
        texts began and ended with in training stand around it. Raises UserError where they are too many.

        A space before <mask> belongs to what is missing where the tokenizer's pieces begin with their space.
        """
        ids = self._encode(text)
        if len(ids) > self.context:
            raise UserError(f"a text has {len(ids)} tokens, more than the context of {self.context}: cut it")
        return ids

    def fits(self, text: str) -> bool:
        """Whether the context holds the text."""
        return len(self._encode(text)) <= self.context

    def _encode(self, text: str) -> list[int]:
        *before_masks, last = text.split(MASK)
        if self.tokenizer.kind in ("unigram", "bpe"):
            before_masks = [part.removesuffix(" ") for part in before_masks]
        inside: list[int] = []
        for part in before_masks:
            inside += [*self.tokenizer.encode(part), self.mask_id]
        inside += self.tokenizer.encode(last)
        return [*self._begin, *inside, *self._end]

    def score(self, texts: Sequence[str]) -> NoReturn:
        """Refused: what an encoder says of a token it says with the tokens after it in sight."""
        raise UserError(
            "an encoder sees the whole text, so its probabilities do not multiply to a likelihood: use "
            "pseudo_log_likelihood, which is no score in bits per byte, or a decoder"
        )

    def pseudo_log_likelihood(self, texts: Sequence[str], *, batch_size: int = 64) -> list[Score]:
        """``sum_i log p(x_i | all other tokens)``, each token masked in turn (Salazar et al. 2020, "Masked language
        model scoring"). ``nats`` is its negative; there are no bits per byte, for it is the length of no code."""
        check_counts(batch_size=batch_size)
        texts = check_texts(texts, "texts")
        rows, targets, lengths = [], [], []
        for text in texts:
            ids = self.encode(text)
            lengths.append(len(ids) - len(self._begin) - len(self._end))
            for place in range(len(self._begin), len(ids) - len(self._end)):
                rows.append(([*ids[:place], self.mask_id, *ids[place + 1 :]], place))
                targets.append(ids[place])
        found = np.zeros(len(rows), np.float32)
        for index, tokens_bt, segments_bt in self._batches([row for row, _ in rows], batch_size):
            places_b, targets_b = (
                np.resize(np.array([values[i] for i in index], np.int32), len(tokens_bt))
                for values in ([place for _, place in rows], targets)
            )
            logprobs_b = self._programs.logprobs(self.params, tokens_bt, segments_bt, places_b, targets_b)
            found[index] = np.asarray(logprobs_b)[: len(index)]
        logprobs = np.split(found, np.cumsum(lengths)[:-1]) if texts else []
        return [
            Score(-float(np.sum(values, dtype=np.float64)), len(values), len(text.encode()), values, start_nats=None)
            for text, values in zip(texts, logprobs, strict=True)
        ]

    def fill(self, text: str, *, top_k: int = 5) -> list[list[Filling]]:
        """For each <mask> of the text, in order, the ``top_k`` likeliest symbols, each mask on its own.

        >>> model.fill("The <mask> of the house")[0][0].text  # doctest: +SKIP
        ' roof'
        """
        if not 1 <= top_k <= self.config.vocab_size:
            raise UserError(f"top_k={top_k} must lie in 1..{self.config.vocab_size}")
        ids = self.encode(text)
        places = [place for place, token in enumerate(ids) if token == self.mask_id]
        if not places:
            raise UserError(f"the text {text[:40]!r} holds no {MASK}: put it where a word is missing")
        ((_, tokens_1t, segments_1t),) = self._batches([ids], 1)
        places_n = np.resize(np.array(places, np.int32), 1 << (len(places) - 1).bit_length())
        log_probs_nv = np.asarray(self._programs.log_probs(self.params, tokens_1t, segments_1t, places_n))
        filled = []
        for row_v in log_probs_nv[: len(places)]:
            best = np.argsort(-row_v, kind="stable")[:top_k].tolist()
            filled.append([Filling(self.tokenizer.decode([i]), i, float(np.exp(row_v[i]))) for i in best])
        return filled

    def embed(
        self, texts: Sequence[str], *, pooling: Literal["mean", "first"] = "mean", batch_size: int = 64
    ) -> np.ndarray:
        """A vector for each text, f32 [texts, d]: the mean over its tokens of the last layer, or its first token's."""
        if pooling not in ("mean", "first"):
            raise UserError(f"pooling={pooling!r} is unknown: choose mean or first")
        check_counts(batch_size=batch_size)
        rows = [self.encode(text) for text in check_texts(texts, "texts")]
        if not all(rows):
            raise UserError("an empty text has no tokens here: this run's texts had no start and no end symbol")
        out = np.zeros((len(rows), self.config.model_dim), np.float32)
        for index, tokens_bt, segments_bt in self._batches(rows, batch_size):
            hidden_btd = np.asarray(self._programs.vectors(self.params, tokens_bt, segments_bt))
            weights_bt = segments_bt / np.maximum(segments_bt.sum(1, keepdims=True), 1)
            pooled_bd = hidden_btd[:, 0] if pooling == "first" else np.einsum("btd,bt->bd", hidden_btd, weights_bt)
            out[index] = pooled_bd[: len(index)]
        return out

    def _batches(
        self, rows: Sequence[list[int]], batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(which rows, tokens [b, t], segment ids [b, t]), rows of like length together. The many sizes share few
        shapes: b is ``batch_size`` or a power of two below it, its last rows empty."""
        order = np.argsort([len(row) for row in rows], kind="stable")
        for first in range(0, len(order), batch_size):
            index = order[first : first + batch_size]
            width = min(self.context, bucket_length(max(len(rows[i]) for i in index)))
            height = min(batch_size, 1 << (len(index) - 1).bit_length())
            tokens_bt = np.full((height, width), self.tokenizer.pad_id, np.int32)
            segments_bt = np.zeros((height, width), np.int32)
            for at, i in enumerate(index):
                tokens_bt[at, : len(rows[i])], segments_bt[at, : len(rows[i])] = rows[i], 1
            yield index, tokens_bt, segments_bt
