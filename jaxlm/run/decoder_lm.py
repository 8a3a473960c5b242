"""A trained decoder behind the handle: scoring in windows, batched completion, streaming."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose, fold_key
from jaxlm.core.types import Array, Params
from jaxlm.evals.perplexity import target_logprobs
from jaxlm.evals.scoring import score_sequences
from jaxlm.generate.decode import DecodeState, bucket_length, decode, left_pad, prefill
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_from_dict
from jaxlm.models.decoder import DecoderConfig, make_decoder, resolve_attention
from jaxlm.run.language_model import Generation, LanguageModel, Score, check_texts
from jaxlm.text.tokenizer import Tokenizer

_BATCH_LOGITS = 1 << 25
"""Logits held at once while scoring: 128 MiB in f32."""
_CHUNK = 16
"""Tokens drawn between two looks for a stop string."""


def open_decoder(
    run_config: dict[str, Any], tokenizer: Tokenizer, checkpointer: Checkpointer, step: int | None, ema: bool | None
) -> "DecoderLM":
    """The decoder of a run's config and checkpoints (see ``jaxlm.load``)."""
    config = config_from_dict(DecoderConfig, run_config.get("model", {}), where="config.model")
    if config.vocab_size is None:
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    if config.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size={config.vocab_size} is less than the tokenizer's {tokenizer.vocab_size}: "
            "the run directory's tokenizer is not the one it was trained with"
        )
    if step is None:
        step = checkpointer.latest_step()
    kept = step in checkpointer.steps() and checkpointer.shapes(step).get("ema_params") is not None
    if ema and not kept:
        raise UserError(f"checkpoint {step} holds no averaged parameters: load with ema=False, or train with ema_decay")
    name = "ema_params" if kept and ema is not False else "params"
    params, _ = checkpointer.restore_params(step=step, name=name)
    return DecoderLM(config, params, tokenizer, run_config, step=step or 0, is_ema=name == "ema_params")


class _Programs(NamedTuple):
    """A decoder's pure functions, jitted."""

    logits: Callable[..., Array]
    logprobs: Callable[..., Array]
    prefill: Callable[..., DecodeState]
    decode: Callable[..., DecodeState]


@functools.lru_cache(maxsize=8)
def _programs(config: DecoderConfig) -> _Programs:
    """Kept by config, so that opening another checkpoint of a run, or sampling while it trains, compiles nothing again."""
    # Where it was trained does not matter: attention runs as suits this machine.
    model = make_decoder(resolve_attention(dataclasses.replace(config, attention="auto"), jax.default_backend()))

    def logprobs(params: Params, tokens_bt: Array, targets_bt: Array) -> Array:
        return target_logprobs(model, params, {"tokens": tokens_bt, "targets": targets_bt})[0]

    return _Programs(
        logits=jax.jit(model.apply_fn),
        logprobs=jax.jit(logprobs),
        prefill=jax.jit(
            functools.partial(prefill, model), static_argnames=("max_new_tokens", "sampling", "stop_ids", "pad_id")
        ),
        decode=jax.jit(
            functools.partial(decode, model), static_argnames=("sampling", "stop_ids"), donate_argnames="state"
        ),
    )


class DecoderLM(LanguageModel):
    """A decoder with its tokenizer. Programs are compiled at first use, one for each length bucket.

    Args:
      config: the model's, its ``vocab_size`` filled in.
      params: on any devices; only read.
      run_config: the run's config as JSON values, of which ``data`` tells how documents began and how long rows were.
    """

    family = "decoder"

    def __init__(
        self,
        config: DecoderConfig,
        params: Params,
        tokenizer: Tokenizer,
        run_config: dict[str, Any],
        *,
        step: int = 0,
        is_ema: bool = False,
    ):
        data = run_config.get("data", {})
        self.params, self.tokenizer, self.config, self.run_config = params, tokenizer, config, run_config
        self.step, self.is_ema = step, is_ema
        assert config.vocab_size is not None
        self.vocab_size: int = config.vocab_size
        self.context: int = min(config.max_seq_len, data.get("seq_len", config.max_seq_len))
        self.start_id = _start_id(tokenizer, data)
        self.stop_ids = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
        self._programs = _programs(config)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as the model reads it: behind the start symbol, if the run was trained with one."""
        return ([] if self.start_id is None else [self.start_id]) + list(self.tokenizer.encode(text))

    def logits(self, tokens: Any) -> np.ndarray:
        """Logits of the token after each position, f32 [b, t, v], of token ids [b, t] (none is added or taken off)."""
        tokens_bt = np.asarray(tokens)
        if tokens_bt.ndim != 2 or not tokens_bt.size or not np.issubdtype(tokens_bt.dtype, np.integer):
            raise UserError(
                f"tokens of shape {tokens_bt.shape} and type {tokens_bt.dtype}: pass integers [batch, time]"
            )
        length = tokens_bt.shape[1]
        if length > self.context:
            raise UserError(f"tokens have length {length}, more than the context of {self.context}: pass fewer")
        if tokens_bt.min() < 0 or tokens_bt.max() >= self.vocab_size:
            raise UserError(
                f"tokens range {tokens_bt.min()}..{tokens_bt.max()}: the vocabulary is 0..{self.vocab_size - 1}"
            )
        # Padding on the right changes nothing before it, and the many lengths share few programs.
        width = min(self.context, bucket_length(length))
        padded_bt = np.pad(tokens_bt.astype(np.int32), ((0, 0), (0, width - length)))
        return np.asarray(self._programs.logits(self.params, padded_bt))[:, :length]

    def score(self, texts: Sequence[str], *, stride: int | None = None) -> list[Score]:
        """Log-likelihood of each text's tokens given the start symbol, every token predicted once.

        A text longer than the context is read in windows that advance by ``stride`` (default: half the context, so that
        past the first window each token sees at least the half before it). No end symbol is counted.
        """
        texts = check_texts(texts, "texts")
        sequences = [np.asarray(self.encode(text), np.int32) for text in texts]
        logprobs = score_sequences(
            lambda tokens_bt, targets_bt: self._programs.logprobs(self.params, tokens_bt, targets_bt),
            sequences,
            context=self.context,
            stride=stride,
            tokens_per_batch=max(self.context, _BATCH_LOGITS // self.vocab_size),
        )
        start_nats = float(np.log(self.vocab_size)) if self.start_id is None else 0.0
        return [
            Score(
                nats=-float(np.sum(values, dtype=np.float64)),
                num_tokens=len(values),
                num_bytes=len(text.encode("utf-8")),
                logprobs=values,
                start_nats=None if self.tokenizer.closed else start_nats if text else 0.0,
            )
            for text, values in zip(texts, logprobs, strict=True)
        ]

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        slide: bool = False,
        batch_size: int = 32,
    ) -> list[Generation]:
        """``num_samples`` completions of each prompt, those of one prompt side by side.

        A completion depends on the seed, its prompt and the prompt's and sample's number, not on the other prompts.
        It ends at the tokenizer's end symbol, at a ``stop`` string, or after ``max_new_tokens``.

        Args:
          slide: where prompt and completion outgrow the context, go on from the newest half of it (the older text is
            forgotten) instead of refusing.
          batch_size: rows decoded together; alters speed and memory only.

        Raises UserError for a prompt that does not leave room for ``max_new_tokens`` in the context, or that is empty
        where the model has no start symbol, and for options out of range.
        """
        sampling = make_sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        seed = check_seed(seed)
        if isinstance(stop, str):
            stop = (stop,)
        for name, value in (
            ("max_new_tokens", max_new_tokens),
            ("num_samples", num_samples),
            ("batch_size", batch_size),
        ):
            if value < 1:
                raise UserError(f"{name}={value} must be at least 1")
        texts = check_texts(prompts, "prompts")
        encoded = [
            self.prompt_ids(text, max_new_tokens, slide=slide, name=f"prompts[{i}]") for i, text in enumerate(texts)
        ]
        rows = [(number, sample) for number in range(len(texts)) for sample in range(num_samples)]
        found: dict[tuple[int, int], Generation] = {}
        for batch in self._batches(rows, encoded, max_new_tokens, batch_size):
            ids = [encoded[number] for number, _ in batch]
            drawn = self._complete(ids, batch, max_new_tokens, sampling, seed, tuple(stop))
            for row, prompt_ids, out in zip(batch, ids, drawn, strict=True):
                found[row] = self._generation(texts[row[0]], prompt_ids, *out, stop=tuple(stop))
        return [found[row] for row in rows]

    def stream(
        self, prompt: str | Sequence[int], *, max_new_tokens: int, sampling: SamplingConfig, seed: int = 0
    ) -> Iterator[tuple[int, str]]:
        """One completion as it is drawn: ``(token, new text)``. Text that is half a character is held back until whole.

        ``prompt``: text, or token ids that fit the context with ``max_new_tokens``. The end symbol ends it, unsaid.
        """
        ids = self.prompt_ids(prompt, max_new_tokens) if isinstance(prompt, str) else list(prompt)
        state = self._start([ids], [(0, 0)], max_new_tokens, sampling, seed)
        drawn: list[int] = []
        said = ""
        for count in range(1, max_new_tokens + 1):
            if count > 1:
                state = self._programs.decode(
                    self.params, state=state, until=count, sampling=sampling, stop_ids=self.stop_ids
                )
            token, stopped = (int(x[0]) for x in jax.device_get((state.token_b, state.generated.stopped_b)))
            if not stopped:
                drawn.append(token)
            last = bool(stopped) or count == max_new_tokens
            text = self._completion_text(ids, drawn)
            text = text if last else text.rstrip("\ufffd")
            yield token, text[len(said) :]
            said = text
            if last:
                return

    def prompt_ids(self, text: str, max_new_tokens: int, *, slide: bool = False, name: str = "prompt") -> list[int]:
        """Token ids of a prompt, checked to be there and to leave room for ``max_new_tokens``.

        With ``slide``, a prompt that leaves no room keeps its newest tokens, half the context of them.
        """
        ids = self.encode(text)
        if not ids:
            raise UserError(f"{name} is empty and this model has no start symbol: give at least one character")
        if len(ids) > self.context and not slide:
            raise UserError(f"{name} has {len(ids)} tokens, more than the context of {self.context}: shorten it")
        if len(ids) + max_new_tokens > self.context and not slide:
            raise UserError(
                f"{name} of {len(ids)} tokens and max_new_tokens={max_new_tokens} exceed the context of {self.context}: "
                f"ask for at most {self.context - len(ids)}, shorten the prompt, or let the context slide (slide=True)"
            )
        return ids

    def _batches(
        self, rows: list[tuple[int, int]], encoded: list[list[int]], max_new_tokens: int, batch_size: int
    ) -> Iterator[list[tuple[int, int]]]:
        """Rows to decode together. Where the context will slide, only samples of one prompt: they slide together."""
        room = self.context - max_new_tokens
        fitting = [row for row in rows if len(encoded[row[0]]) <= room]
        sliding = [row for row in rows if len(encoded[row[0]]) > room]
        groups = [fitting, *(list(group) for _, group in itertools.groupby(sliding, key=lambda row: row[0]))]
        for group in groups:
            for first in range(0, len(group), batch_size):
                yield group[first : first + batch_size]

    def _start(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[tuple[int, int]],
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        round_number: int = 0,
    ) -> DecodeState:
        """Prefill a batch, padded to a bucket of rows (by rows that are done at once), lengths and completions."""
        num_rows = 1 << (len(prompts) - 1).bit_length()
        prompts = [*prompts, *[()] * (num_rows - len(prompts))]
        numbers_b2 = np.zeros((num_rows, 2), np.int32)
        numbers_b2[: len(rows)] = rows
        tokens_bt, segment_ids_bt, positions_bt = left_pad(
            prompts, self.tokenizer.pad_id, length=bucket_length(max(map(len, prompts)))
        )
        return self._programs.prefill(
            self.params,
            tokens_bt,
            segment_ids_bt,
            positions_bt,
            max_new_tokens=bucket_length(max_new_tokens),
            sampling=sampling,
            key=_row_keys(np.uint32(seed), numbers_b2, np.int32(round_number)),
            stop_ids=self.stop_ids,
            pad_id=self.tokenizer.pad_id,
        )

    def _complete(
        self,
        prompts: list[list[int]],
        rows: list[tuple[int, int]],
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        stop: tuple[str, ...],
    ) -> list[tuple[list[int], list[float], bool]]:
        """(tokens, logprobs, ended by a stop token) of each row; in rounds where the context has to slide."""
        tokens: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        stopped = [False] * len(rows)
        live = list(range(len(rows)))
        round_number = 0
        while live:
            texts = [prompts[row] + tokens[row] for row in live]
            left = max_new_tokens - len(tokens[live[0]])
            if max(map(len, texts)) + left > self.context:  # only where the caller said slide
                keep = max(1, self.context // 2)
                texts = [ids[-keep:] for ids in texts]
                left = min(left, self.context - keep)
            out = self._round(texts, [rows[row] for row in live], left, sampling, seed, round_number, stop)
            for row, (new_tokens, new_logprobs, ended) in zip(live, out, strict=True):
                tokens[row] += new_tokens
                logprobs[row] += new_logprobs
                stopped[row] = ended
            live = [row for row in live if not stopped[row] and len(tokens[row]) < max_new_tokens]
            live = [row for row in live if not self._has_stop(prompts[row], tokens[row], stop)]
            round_number += 1
        return list(zip(tokens, logprobs, stopped, strict=True))

    def _round(
        self,
        prompts: list[list[int]],
        rows: list[tuple[int, int]],
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        round_number: int,
        stop: tuple[str, ...],
    ) -> list[tuple[list[int], list[float], bool]]:
        """One prefill and the decoding after it; with stop strings, in chunks that the host looks at."""
        state = self._start(prompts, rows, max_new_tokens, sampling, seed, round_number)
        for until in range(_CHUNK, max_new_tokens + _CHUNK, _CHUNK) if stop else (max_new_tokens,):
            until = min(until, max_new_tokens)
            state = self._programs.decode(
                self.params, state=state, until=until, sampling=sampling, stop_ids=self.stop_ids
            )
            if stop:
                out = jax.device_get(state.generated)
                done_b = np.array(jax.device_get(state.done_b))
                for row, ids in enumerate(prompts):
                    done_b[row] |= self._has_stop(ids, out.tokens_bn[row, : out.lengths_b[row]].tolist(), stop)
                state = state._replace(done_b=jnp.asarray(done_b))
                if done_b.all():
                    break
        out = jax.device_get(state.generated)
        return [
            (
                out.tokens_bn[row, : out.lengths_b[row]].tolist(),
                out.logprobs_bn[row, : out.lengths_b[row]].tolist(),
                bool(out.stopped_b[row]),
            )
            for row in range(len(prompts))
        ]

    def _has_stop(self, prompt_ids: list[int], tokens: list[int], stop: tuple[str, ...]) -> bool:
        text = self._completion_text(prompt_ids, tokens) if stop else ""
        return any(string in text for string in stop)

    def _generation(
        self, prompt: str, ids: list[int], tokens: list[int], logprobs: list[float], ended: bool, stop: tuple[str, ...]
    ) -> Generation:
        text = self._completion_text(ids, tokens[:-1] if ended else tokens)
        finish = "stop" if ended else "length"
        cut = min((at for at in (text.find(string) for string in stop) if at >= 0), default=None)
        if cut is not None:
            # Keep the fewest tokens that spell the stop string: those after it were drawn in the same chunk.
            count = next(n for n in range(1, len(tokens) + 1) if self._has_stop(ids, tokens[:n], stop))
            text, tokens, logprobs, finish = text[:cut], tokens[:count], logprobs[:count], "stop"
        return Generation(text, tokens, logprobs, prompt, finish)

    def _completion_text(self, prompt_ids: Sequence[int], tokens: Sequence[int]) -> str:
        """What the tokens add to the prompt's text: a tokenizer may read a piece otherwise at the start of a text."""
        before = self.tokenizer.decode(list(prompt_ids))
        whole = self.tokenizer.decode([*prompt_ids, *tokens])
        return whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(list(tokens))


def make_sampling(*args: Any, **kwargs: Any) -> SamplingConfig:
    """``SamplingConfig(...)``, whose refusals are a UserError here."""
    try:
        return SamplingConfig(*args, **kwargs)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_seed(seed: int) -> int:
    """The seed, if it is one that a key can be made of."""
    if not 0 <= seed < 1 << 32:
        raise UserError(f"seed={seed} must lie in 0..{(1 << 32) - 1}")
    return seed


def _start_id(tokenizer: Tokenizer, data: dict[str, Any]) -> int | None:
    """What stands before a text: <bos>; or, in a plain stream of documents, the <eos> of the one before; or nothing."""
    if data.get("add_bos", True) and tokenizer.bos_id is not None:
        return tokenizer.bos_id
    if data.get("add_eos", True) and data.get("packing") == "concat":
        return tokenizer.eos_id
    return None


@jax.jit
def _row_keys(seed: Array, numbers_b2: Array, round_number: Array) -> Array:
    """A key for each (prompt, sample), and for each time that the context slid."""

    def row_key(numbers: Array) -> Array:
        key = fold_key(seed, Purpose.SAMPLE, numbers[0], numbers[1])
        return jnp.where(round_number > 0, jax.random.fold_in(key, round_number), key)

    return jax.vmap(row_key)(numbers_b2)
