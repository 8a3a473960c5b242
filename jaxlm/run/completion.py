"""Completing prompts, seen from the host: few shapes, stop strings, a context that slides, streaming."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose, fold_key
from jaxlm.core.types import Array, Params
from jaxlm.evals.perplexity import target_logprobs
from jaxlm.evals.shared_contexts import score_behind
from jaxlm.generate.decode import DecodeState, bucket_length, decode, left_pad, prefill
from jaxlm.generate.decode_row import covers, decode_row
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.decoder_inference import Weights, inference_config, inference_params
from jaxlm.models.decoder_kernel import decode_kernel, kernel_weights, params_of_kernel
from jaxlm.models.families import ModelConfig, for_inference, for_platform, make_model
from jaxlm.nn.triton_decode import DecodeKernel
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.text.tokenizer import Tokenizer

_CHUNK = 16
"""Tokens drawn between two looks for a stop string."""


class Programs(NamedTuple):
    """A causal model's pure functions, jitted."""

    keep: Callable[[Params], Params]
    """Trained parameters as ``logits`` and ``logprobs`` take them."""
    prepare: Callable[[Params], Params]
    """Those as ``prefill`` and ``decode`` take them: worth making once, before many tokens."""
    logits: Callable[..., Array]
    """``(params, tokens_bt) -> f32 [b, t, v]``."""
    logprobs: Callable[..., Array]
    """``(params, tokens_bt, targets_bt) -> f32 [b, t]``."""
    first_choices: Callable[..., Array]
    """The same with, beside each log-probability, 1 where the target is the model's first choice, f32 [b, t, 2]."""
    behind: Callable[..., Array] | None
    """``(prepared params, contexts, continuations) -> f32 [n, s, 2]``, of a decoder (`evals.shared_contexts`)."""
    prefill: Callable[..., DecodeState]
    decode: Callable[..., DecodeState]


@functools.lru_cache(maxsize=8)
def programs(config: ModelConfig, weights: Weights = "trained", *, spread: bool = False) -> Programs:
    """The programs of a config, kept: opening another checkpoint of a run compiles nothing again.

    ``spread``: the parameters lie over several devices. They are used as they lie then; else a decoder's are laid out
    anew for generation. Raises UserError for weights in a form that the model is not made for.
    """
    as_params, row_kernel = _as_it_is, None
    platform = jax.default_backend()
    trained = make_model(for_inference(config, platform, kernel_missing=kernel_missing))
    if isinstance(config, DecoderConfig) and not spread:
        lay_out = jax.jit(functools.partial(inference_params, config, weights=weights))
        written_config = for_platform(inference_config(config), platform, kernel_missing=kernel_missing)
        written = make_model(written_config)
        if weights == "row":
            row_kernel = kernel_of_row(written_config)
            lay_out = jax.jit(lambda params: kernel_weights(config, inference_params(config, params)))
            as_params = functools.partial(params_of_kernel, config)
    elif weights == "trained":
        lay_out, written = _as_it_is, trained
    else:
        raise UserError(f"weights={weights!r} is for a decoder on one device: leave it out")
    keeps_trained = weights != "int8"
    reader = trained if keeps_trained else written

    def logprobs(params: Params, tokens_bt: Array, targets_bt: Array) -> Array:
        return target_logprobs(reader, params, {"tokens": tokens_bt, "targets": targets_bt})[0]

    def first_choices(params: Params, tokens_bt: Array, targets_bt: Array) -> Array:
        logprobs_bt, first_bt = target_logprobs(reader, params, {"tokens": tokens_bt, "targets": targets_bt})
        return jnp.stack([logprobs_bt, first_bt.astype(jnp.float32)], axis=-1)

    def start(prepared: Any, *args: Any, **options: Any) -> DecodeState:
        return prefill(written, as_params(prepared), *args, **options)

    def go_on(prepared: Any, **options: Any) -> DecodeState:
        return decode(written, as_params(prepared), **options)

    go_on = jax.jit(go_on, static_argnames=("sampling", "stop_ids"), donate_argnames="state")
    if row_kernel is not None:
        by_kernel = functools.partial(decode_row, row_kernel, config)
        go_on = _for_one_row(jax.jit(by_kernel, static_argnames="stop_ids", donate_argnames="state"), go_on)
    return Programs(
        keep=_as_it_is if keeps_trained else lay_out,
        prepare=lay_out if keeps_trained else _as_it_is,
        logits=jax.jit(reader.apply_fn),
        logprobs=jax.jit(logprobs),
        first_choices=jax.jit(first_choices),
        behind=jax.jit(lambda prepared, *asked: score_behind(written, as_params(prepared), *asked))
        if isinstance(config, DecoderConfig)
        else None,
        prefill=jax.jit(start, static_argnames=("max_new_tokens", "sampling", "stop_ids", "pad_id")),
        decode=go_on,
    )


def kernel_of_row(config: DecoderConfig) -> DecodeKernel:
    """The kernel that decodes one row of a decoder of ``inference_config``. Raises UserError where there is none."""
    if config.kernels not in ("triton", "triton_interpret"):
        raise UserError('weights="row" is for our kernel on one NVIDIA GPU, here are XLA\'s alone: leave it out')
    interpret = config.kernels == "triton_interpret"
    # Fewer multiprocessors than programs would hang: all must run at once.
    cut = {"warps": 1, "slots": 16} if interpret else {"programs": getattr(jax.devices()[0], "core_count", 132)}
    try:
        return decode_kernel(config, interpret=interpret, **cut)
    except ValueError as error:
        raise UserError(f'weights="row": {error}; leave it out') from error


def _for_one_row(by_kernel: Callable[..., DecodeState], by_loop: Callable[..., DecodeState]) -> Any:
    """``decode`` by the kernel where it serves, else by XLA's loop."""

    def go_on(prepared: Any, *, state: DecodeState, sampling: SamplingConfig, **options: Any) -> DecodeState:
        if covers(state, sampling):
            return by_kernel(prepared, state=state, **options)
        return by_loop(prepared, state=state, sampling=sampling, **options)

    return go_on


def _as_it_is(params: Params) -> Params:
    return params


class Row(NamedTuple):
    """One completion to draw. Its numbers, with the seed, make its key."""

    prompt: int
    sample: int
    ids: list[int]


class Drawn(NamedTuple):
    """What was drawn for a row."""

    tokens: list[int]
    logprobs: list[float]
    stopped: bool
    """By a stop token, the last of ``tokens``."""


class Completer:
    """One request for completions: a model and the options that its rows share."""

    def __init__(
        self,
        programs: Programs,
        params: Params,
        tokenizer: Tokenizer,
        *,
        context: int,
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        stop: tuple[str, ...] = (),
    ):
        self.programs, self.params, self.tokenizer = programs, params, tokenizer
        self.context, self.max_new_tokens, self.sampling, self.seed = context, max_new_tokens, sampling, seed
        # A reserved symbol never appears in decoded text: as a stop it is its token.
        self.stop = tuple(string for string in stop if string not in tokenizer.special_tokens)
        ends = {tokenizer.eos_id, *(tokenizer.special_tokens.get(string) for string in stop)}
        self.stop_ids = tuple(sorted(token for token in ends if token is not None))

    def batches(self, rows: Sequence[Row], batch_size: int) -> Iterator[list[Row]]:
        """Rows to decode together. Where the context will slide, only samples of one prompt: they slide together."""
        room = self.context - self.max_new_tokens
        fitting = [row for row in rows if len(row.ids) <= room]
        sliding = itertools.groupby((row for row in rows if len(row.ids) > room), key=lambda row: row.prompt)
        for group in [fitting, *(list(group) for _, group in sliding)]:
            for first in range(0, len(group), batch_size):
                yield group[first : first + batch_size]

    def complete(self, rows: Sequence[Row]) -> list[Drawn]:
        """Draw a batch; in rounds where the context has to slide: it goes on from its newest half."""
        drawn = [Drawn([], [], False) for _ in rows]
        live = list(range(len(rows)))
        for round_number in itertools.count():
            if not live:
                return drawn
            # Rows that live have drawn the same number of tokens.
            left = self.max_new_tokens - len(drawn[live[0]].tokens)
            texts = [rows[i].ids + drawn[i].tokens for i in live]
            if max(map(len, texts)) + left > self.context:
                keep = max(1, self.context // 2)
                texts = [ids[-keep:] for ids in texts]
                left = min(left, self.context - keep)
            again = [row._replace(ids=ids) for row, ids in zip((rows[i] for i in live), texts, strict=True)]
            for i, new in zip(live, self._round(again, left, round_number), strict=True):
                old = drawn[i]
                drawn[i] = Drawn(old.tokens + new.tokens, old.logprobs + new.logprobs, new.stopped)
            live = [i for i in live if not drawn[i].stopped and len(drawn[i].tokens) < self.max_new_tokens]
            live = [i for i in live if not self.has_stop(rows[i].ids, drawn[i].tokens)]
        return drawn

    def stream(self, ids: list[int]) -> Iterator[tuple[int, str]]:
        """One completion as it is drawn: (token, new text). Half a character is held back until it is whole, and so is
        what may become a stop string."""
        state = self._start([Row(0, 0, ids)], self.max_new_tokens)
        tokens: list[int] = []
        said = ""
        for count in range(1, self.max_new_tokens + 1):
            if count > 1:
                state = self._decode(state, count)
            token_b, stopped_b = fetch((state.token_b, state.generated.stopped_b))
            token, stopped = int(token_b[0]), bool(stopped_b[0])
            if not stopped:
                tokens.append(token)
            last = stopped or count == self.max_new_tokens
            text = self.text(ids, tokens)
            cut = min((at for at in (text.find(string) for string in self.stop) if at >= 0), default=None)
            last = last or cut is not None
            text = text[:cut] if last else self._without_begun_stop(text.rstrip("\ufffd"))
            yield token, text[len(said) :]
            if last:
                return
            said = text

    def _without_begun_stop(self, text: str) -> str:
        """The text up to where a stop string may have begun at its end."""
        ends = (n for string in self.stop for n in range(len(string) - 1, 0, -1) if text.endswith(string[:n]))
        return text[: len(text) - max(ends, default=0)]

    def text(self, prompt_ids: Sequence[int], tokens: Sequence[int]) -> str:
        """What the tokens add to the prompt's text: a tokenizer may read a piece otherwise at the start of a text."""
        before = self.tokenizer.decode(prompt_ids)
        whole = self.tokenizer.decode([*prompt_ids, *tokens])
        return whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(tokens)

    def has_stop(self, prompt_ids: Sequence[int], tokens: Sequence[int]) -> bool:
        """True if the completion spells a stop string."""
        text = self.text(prompt_ids, tokens) if self.stop else ""
        return any(string in text for string in self.stop)

    def cut_at_stop(self, prompt_ids: Sequence[int], drawn: Drawn) -> tuple[str, Drawn, str]:
        """(text, what was drawn up to the stop, "stop" or "length"). The stop itself is not in the text."""
        text = self.text(prompt_ids, drawn.tokens[:-1] if drawn.stopped else drawn.tokens)
        cut = min((at for at in (text.find(string) for string in self.stop) if at >= 0), default=None)
        if cut is None:
            return text, drawn, "stop" if drawn.stopped else "length"
        # Keep the fewest tokens that spell the stop string: those after it were drawn in the same chunk.
        count = next(n for n in range(1, len(drawn.tokens) + 1) if self.has_stop(prompt_ids, drawn.tokens[:n]))
        return text[:cut], Drawn(drawn.tokens[:count], drawn.logprobs[:count], False), "stop"

    def _start(self, rows: Sequence[Row], max_new_tokens: int, round_number: int = 0) -> DecodeState:
        """Prefill a batch, padded to buckets: of rows (by rows that are done at once), of prompts, of completions."""
        num_rows = 1 << (len(rows) - 1).bit_length()
        prompts = [*(row.ids for row in rows), *[[] for _ in range(num_rows - len(rows))]]
        numbers_b2 = np.zeros((num_rows, 2), np.int32)
        numbers_b2[: len(rows)] = [(row.prompt, row.sample) for row in rows]
        length = bucket_length(max(len(ids) for ids in prompts))
        return self.programs.prefill(
            self.params,
            *left_pad(prompts, self.tokenizer.pad_id, length=length),
            max_new_tokens=bucket_length(max_new_tokens),
            sampling=self.sampling,
            key=_row_keys(np.uint32(self.seed), numbers_b2, np.int32(round_number)),
            stop_ids=self.stop_ids,
            pad_id=self.tokenizer.pad_id,
        )

    def _decode(self, state: DecodeState, until: int) -> DecodeState:
        return self.programs.decode(
            self.params, state=state, until=until, sampling=self.sampling, stop_ids=self.stop_ids
        )

    def _round(self, rows: Sequence[Row], max_new_tokens: int, round_number: int) -> list[Drawn]:
        """One prefill and the decoding after it; with stop strings, in chunks that the host looks at."""
        state = self._start(rows, max_new_tokens, round_number)
        for first in range(0, max_new_tokens, _CHUNK) if self.stop else (0,):
            state = self._decode(state, min(first + _CHUNK, max_new_tokens) if self.stop else max_new_tokens)
            if self.stop:
                done_b = np.array(fetch(state.done_b))
                for i, drawn in enumerate(self._drawn(state, len(rows))):
                    done_b[i] |= self.has_stop(rows[i].ids, drawn.tokens)
                state = state._replace(done_b=jnp.asarray(done_b))
        return self._drawn(state, len(rows))

    def _drawn(self, state: DecodeState, num_rows: int) -> list[Drawn]:
        out = fetch(state.generated)
        return [
            Drawn(out.tokens_bn[i, :length].tolist(), out.logprobs_bn[i, :length].tolist(), bool(out.stopped_b[i]))
            for i, length in enumerate(out.lengths_b[:num_rows])
        ]


def fetch(tree: Any) -> Any:
    """Arrays as NumPy arrays: whole, also where they lie over several hosts."""
    here = all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree))
    return jax.device_get(tree) if here else process_allgather(tree, tiled=True)


@jax.jit
def _row_keys(seed: Array, numbers_b2: Array, round_number: Array) -> Array:
    """A key for each (prompt, sample), and for each time that the context slid. A traced seed serves all seeds."""

    def row_key(numbers: Array) -> Array:
        key = fold_key(cast(int, seed), Purpose.SAMPLE, numbers[0], numbers[1])
        return jnp.where(round_number > 0, jax.random.fold_in(key, round_number), key)

    return jax.vmap(row_key)(numbers_b2)
