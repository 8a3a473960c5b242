"""Prefill and decode over a KV cache, as pure functions that a caller jits.

Prompts of different lengths are padded on the **left**, so that every row writes the same cache slot at each step;
padding has segment id 0 and no one attends to it, and positions count from the first real token. A row's completion is
therefore the one that it has alone (its randomness too: each row has a key of its own, folded with the step).

:func:`generate_tokens` is the whole thing in one program. :func:`prefill` and :func:`decode` are its halves, for those
who want to look at the tokens in between: streaming, stop strings, interruption.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.types import Array, Params
from jaxlm.generate.sampling import SamplingConfig, row_keys, sample_token, token_logprobs
from jaxlm.models.api import KVCache, Model
from jaxlm.models.decoder_cache import repeat_rows


class Generated(NamedTuple):
    """Completions, as long as the longest allowed; past a row's length tokens are ``pad_id`` and logprobs 0."""

    tokens_bn: Array
    """int32, the stop token included where one was drawn."""
    logprobs_bn: Array
    """f32, nats: of each token under the model's own distribution."""
    lengths_b: Array
    """Tokens drawn, the stop token included."""
    stopped_b: Array
    """True where a stop token ended the row (else it ran to ``max_new_tokens``)."""
    tempered_logprobs_bn: Array | None = None
    """f32, nats: of each token under ``softmax(logits / temperature)``, from which a policy samples; only where asked
    for (``prefill(..., tempered=True)``)."""


class DecodeState(NamedTuple):
    """Between two tokens: the newest token of each row is drawn and recorded, but not yet in the cache."""

    num_sampled: Array
    kv_cache: KVCache
    token_b: Array
    position_b: Array
    """Position of ``token_b``."""
    done_b: Array
    key_b: Array
    seen_bv: Array | None
    """Tokens of prompt and completion, for the repetition penalty; None without one."""
    generated: Generated


def bucket_length(length: int, *, smallest: int = 16) -> int:
    """The next of 16, 24, 32, 48, 64, 96, ...: few programs are compiled, and at most a third of a row is padding."""
    bucket = smallest
    while bucket < length:
        bucket = bucket * 3 // 2 if bucket.bit_count() == 1 else bucket * 4 // 3
    return bucket


def left_pad(
    prompts: Sequence[Sequence[int]], pad_id: int, *, multiple: int = 1, length: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ragged prompts as ``(tokens_bt, segment_ids_bt, positions_bt)``, int32, padded on the left.

    ``t`` is ``length``, or the longest prompt rounded up to a ``multiple``. An empty prompt gives a row of padding,
    which decoding takes as done from the start.

    >>> left_pad([[7, 8, 9], [5]], pad_id=0)[0].tolist()
    [[7, 8, 9], [0, 0, 5]]
    """
    longest = max((len(prompt) for prompt in prompts), default=0)
    width = -(-longest // multiple) * multiple if length is None else length
    if longest > width:
        raise ValueError(f"length={width} is shorter than the longest prompt of {longest} tokens")
    tokens_bt = np.full((len(prompts), width), pad_id, np.int32)
    lengths_b1 = np.array([len(prompt) for prompt in prompts], np.int32).reshape(-1, 1)
    for row, prompt in enumerate(prompts):
        if len(prompt):
            tokens_bt[row, -len(prompt) :] = prompt
    positions_bt = np.arange(width, dtype=np.int32)[None, :] - (width - lengths_b1)
    return tokens_bt, (positions_bt >= 0).astype(np.int32), np.maximum(positions_bt, 0).astype(np.int32)


def _draw(state: DecodeState, logits_bv: Array, sampling: SamplingConfig, stop_ids: tuple[int, ...]) -> DecodeState:
    """Draw the next token of every row that is not done, and write it down."""
    step, out = state.num_sampled, state.generated
    key_b = jax.vmap(jax.random.fold_in, in_axes=(0, None))(state.key_b, step)
    token_b, logprob_b = sample_token(key_b, logits_bv, sampling, state.seen_bv)
    live_b = ~state.done_b
    stop_b = live_b & jnp.isin(token_b, jnp.asarray(stop_ids, jnp.int32))
    pad_b = out.tokens_bn[:, -1]  # not written before the last step, and then it is the padding that we look for

    def written(column_b: Array, into_bn: Array) -> Array:
        return jax.lax.dynamic_update_slice(into_bn, column_b[:, None], (jnp.zeros_like(step), step))

    tempered_bn = out.tempered_logprobs_bn
    if tempered_bn is not None:
        tempered_b = logprob_b
        if sampling.temperature not in (0, 1):
            tempered_b = token_logprobs(logits_bv, token_b, temperature=sampling.temperature)
        tempered_bn = written(jnp.where(live_b, tempered_b, 0.0), tempered_bn)
    generated = Generated(
        tokens_bn=written(jnp.where(live_b, token_b, pad_b), out.tokens_bn),
        logprobs_bn=written(jnp.where(live_b, logprob_b, 0.0), out.logprobs_bn),
        lengths_b=out.lengths_b + live_b.astype(jnp.int32),
        stopped_b=out.stopped_b | stop_b,
        tempered_logprobs_bn=tempered_bn,
    )
    seen_bv = state.seen_bv
    if seen_bv is not None:
        seen_bv = seen_bv.at[jnp.arange(token_b.shape[0]), token_b].set(True)
    return state._replace(
        num_sampled=step + 1,
        token_b=token_b,
        position_b=state.position_b + 1,
        done_b=state.done_b | stop_b,
        seen_bv=seen_bv,
        generated=generated,
    )


def prefill(
    model: Model,
    params: Params,
    tokens_bt: Array,
    segment_ids_bt: Array,
    positions_bt: Array,
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    key: Array,
    stop_ids: tuple[int, ...] = (),
    pad_id: int = 0,
    tempered: bool = False,
    num_answers: int = 1,
) -> DecodeState:
    """Read left-padded prompts and draw each row's first token. ``key``: scalar, or one for each row.

    ``tempered``: keep the log-probabilities at the sampling temperature too. ``num_answers``: rows that go on from each
    prompt, side by side; the prompts of a decoder are read once.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    batch_size, prompt_len = tokens_bt.shape
    kv_cache = model.init_cache(batch_size, prompt_len + max_new_tokens - 1)
    hidden = model.hidden(params, tokens_bt, positions=positions_bt, segment_ids=segment_ids_bt, kv_cache=kv_cache)
    assert hidden.kv_cache is not None
    logits_bv, kv_cache = model.logits(params, hidden.hidden_btd[:, -1:])[:, 0], hidden.kv_cache
    if num_answers > 1:
        kv_cache, batch_size = repeat_rows(kv_cache, num_answers), batch_size * num_answers
        logits_bv, tokens_bt, segment_ids_bt, positions_bt = (
            jnp.repeat(x, num_answers, axis=0) for x in (logits_bv, tokens_bt, segment_ids_bt, positions_bt)
        )
    seen_bv = None
    if sampling.repetition_penalty != 1:
        rows_b1 = jnp.arange(batch_size)[:, None]
        seen_bv = jnp.zeros(logits_bv.shape, bool).at[rows_b1, tokens_bt].max(segment_ids_bt > 0)
    state = DecodeState(
        num_sampled=jnp.zeros((), jnp.int32),
        kv_cache=kv_cache,
        token_b=tokens_bt[:, -1],
        position_b=positions_bt[:, -1],
        done_b=~jnp.any(segment_ids_bt > 0, axis=1),
        key_b=row_keys(key, batch_size),
        seen_bv=seen_bv,
        generated=Generated(
            tokens_bn=jnp.full((batch_size, max_new_tokens), pad_id, jnp.int32),
            logprobs_bn=jnp.zeros((batch_size, max_new_tokens), jnp.float32),
            lengths_b=jnp.zeros(batch_size, jnp.int32),
            stopped_b=jnp.zeros(batch_size, bool),
            tempered_logprobs_bn=jnp.zeros((batch_size, max_new_tokens), jnp.float32) if tempered else None,
        ),
    )
    return _draw(state, logits_bv, sampling, stop_ids)


def decode(
    model: Model,
    params: Params,
    state: DecodeState,
    *,
    until: int | Array,
    sampling: SamplingConfig,
    stop_ids: tuple[int, ...] = (),
) -> DecodeState:
    """Draw on until ``until`` tokens a row are drawn (at most ``max_new_tokens``), or all rows are done.

    ``until`` may be traced: streaming one token at a time is one program.
    """
    until = jnp.minimum(until, state.generated.tokens_bn.shape[1])

    def not_finished(state: DecodeState) -> Array:
        return (state.num_sampled < until) & ~jnp.all(state.done_b)

    def decode_step(state: DecodeState) -> DecodeState:
        hidden = model.hidden(
            params,
            state.token_b[:, None],
            positions=state.position_b[:, None],
            segment_ids=jnp.ones_like(state.token_b)[:, None],
            kv_cache=state.kv_cache,
        )
        logits_bv = model.logits(params, hidden.hidden_btd)[:, 0]
        return _draw(state._replace(kv_cache=hidden.kv_cache), logits_bv, sampling, stop_ids)

    return jax.lax.while_loop(not_finished, decode_step, state)


def generate_tokens(
    model: Model,
    params: Params,
    tokens_bt: Array,
    segment_ids_bt: Array,
    positions_bt: Array,
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    key: Array,
    stop_ids: tuple[int, ...] = (),
    pad_id: int = 0,
    tempered: bool = False,
    num_answers: int = 1,
) -> Generated:
    """Complete left-padded prompts (:func:`left_pad`): prefill, then a loop that ends early when all rows are done.

    Static: ``model``, ``max_new_tokens``, ``sampling``, ``stop_ids``, ``pad_id``, ``tempered``, ``num_answers`` (to
    each prompt, side by side). ``key`` is a scalar (each row folds its number into it) or one key a row. The caller
    sees to it that each prompt and ``max_new_tokens`` fit the context.
    """
    state = prefill(
        model,
        params,
        tokens_bt,
        segment_ids_bt,
        positions_bt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        key=key,
        stop_ids=stop_ids,
        pad_id=pad_id,
        tempered=tempered,
        num_answers=num_answers,
    )
    return decode(model, params, state, until=max_new_tokens, sampling=sampling, stop_ids=stop_ids).generated
