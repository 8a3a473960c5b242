"""Likelihood on held-out text, as sums: dividing is the caller's, once, by the global count.

perplexity = exp(nats / tokens); bits per byte = nats / (ln 2 * bytes of the text that the tokens spell).
"""

from collections.abc import Callable

import jax.numpy as jnp

from jaxlm.core.axes import free_axes
from jaxlm.core.types import CONTEXT_AXIS, Array, Batch, Params, PyTree
from jaxlm.losses.tokens import in_chunks, token_nll
from jaxlm.models.api import Cache, Model

Sums = dict[str, Array]
"""``nats``, ``tokens`` and ``correct``: f32 sums over the counted targets of a batch."""


def target_logprobs(model: Model, params: Params, batch: Batch, *, state: Cache | None = None) -> tuple[Array, Array]:
    """Log-probability of each target, nats, f32, and whether it is the model's first choice, bool; both [b, t].

    Keys of ``batch``: ``tokens``, ``targets`` and, for packed rows, ``segment_ids`` and ``positions``. ``state``: what
    was read before, if anything.
    """
    return _target_logprobs(model, params, batch, state)[:2]


def _target_logprobs(
    model: Model, params: Params, batch: Batch, state: PyTree, loss_chunk: int | None = None
) -> tuple[Array, Array, PyTree]:
    hidden = model.hidden(
        params,
        batch["tokens"],
        positions=batch.get("positions"),
        segment_ids=batch.get("segment_ids"),
        kv_cache=state,
    )

    def judged(hidden_btd: Array, targets_bt: Array) -> tuple[Array, Array]:
        logits_btv = model.logits(params, hidden_btd)
        return token_nll(logits_btv, targets_bt)[0], jnp.argmax(logits_btv, axis=-1) == targets_bt

    ways = free_axes().get(CONTEXT_AXIS, 1)
    nll_bt, correct_bt = in_chunks(judged, (hidden.hidden_btd, batch["targets"]), loss_chunk, ways=ways)
    return -nll_bt, correct_bt, hidden.kv_cache


def make_eval_step(
    model: Model, *, per_row: bool = False, loss_chunk: int | None = None
) -> Callable[[Params, Batch], Sums]:
    """``f(params, batch) -> sums``: scalars, or with ``per_row`` one sum for each row, shape [b].

    A target counts with its ``loss_mask``; a masked one adds exactly 0. Add batches up in float64 on the host: f32
    loses single tokens beyond 16 M. ``loss_chunk``: positions of each row whose logits exist at once; None = all.
    """

    def eval_step(params: Params, batch: Batch) -> Sums:
        logprobs_bt, correct_bt, _ = _target_logprobs(model, params, batch, None, loss_chunk)
        return _sums(logprobs_bt, correct_bt, batch, axis=1 if per_row else None)

    return eval_step


def make_carried_eval_step(
    model: Model, *, loss_chunk: int | None = None
) -> Callable[[Params, Batch, PyTree], tuple[Sums, PyTree]]:
    """``f(params, batch, state) -> (sums, state)``, for batches that go on where the one before ended."""

    def eval_step(params: Params, batch: Batch, state: PyTree) -> tuple[Sums, PyTree]:
        logprobs_bt, correct_bt, state = _target_logprobs(model, params, batch, state, loss_chunk)
        return _sums(logprobs_bt, correct_bt, batch, axis=None), state

    return eval_step


def _sums(logprobs_bt: Array, correct_bt: Array, batch: Batch, *, axis: int | None) -> Sums:
    loss_mask_bt = batch["loss_mask"].astype(jnp.float32)
    return {
        "nats": jnp.sum(jnp.where(loss_mask_bt > 0, -logprobs_bt * loss_mask_bt, 0.0), axis=axis),
        "tokens": jnp.sum(loss_mask_bt, axis=axis),
        "correct": jnp.sum(jnp.where(correct_bt, loss_mask_bt, 0.0), axis=axis),
    }
