"""Likelihood on held-out text, as sums: dividing is the caller's, once, by the global count.

perplexity = exp(nats / tokens); bits per byte = nats / (ln 2 * bytes of the text that the tokens spell).
"""

from collections.abc import Callable

import jax.numpy as jnp

from jaxlm.core.types import Array, Batch, Params, PyTree
from jaxlm.losses.tokens import token_nll
from jaxlm.models.api import Cache, Model

Sums = dict[str, Array]
"""``nats``, ``tokens`` and ``correct``: f32 sums over the counted targets of a batch."""


def target_logprobs(model: Model, params: Params, batch: Batch, *, state: Cache | None = None) -> tuple[Array, Array]:
    """Log-probability of each target, nats, f32, and whether it is the model's first choice, bool; both [b, t].

    Keys of ``batch``: ``tokens``, ``targets`` and, for packed rows, ``segment_ids`` and ``positions``. ``state``: what
    was read before, if anything.
    """
    return _target_logprobs(model, params, batch, state)[:2]


def _target_logprobs(model: Model, params: Params, batch: Batch, state: PyTree) -> tuple[Array, Array, PyTree]:
    hidden = model.hidden(
        params,
        batch["tokens"],
        positions=batch.get("positions"),
        segment_ids=batch.get("segment_ids"),
        kv_cache=state,
    )
    logits_btv = model.logits(params, hidden.hidden_btd)
    nll_bt, _ = token_nll(logits_btv, batch["targets"])
    return -nll_bt, jnp.argmax(logits_btv, axis=-1) == batch["targets"], hidden.kv_cache


def make_eval_step(model: Model, *, per_row: bool = False) -> Callable[[Params, Batch], Sums]:
    """``f(params, batch) -> sums``: scalars, or with ``per_row`` one sum for each row, shape [b].

    A target counts with its ``loss_mask``; a masked one adds exactly 0. Add batches up in float64 on the host: f32
    loses single tokens beyond 16 M.
    """

    def eval_step(params: Params, batch: Batch) -> Sums:
        return _sums(*target_logprobs(model, params, batch), batch, axis=1 if per_row else None)

    return eval_step


def make_carried_eval_step(model: Model) -> Callable[[Params, Batch, PyTree], tuple[Sums, PyTree]]:
    """``f(params, batch, state) -> (sums, state)``, for batches that go on where the one before ended."""

    def eval_step(params: Params, batch: Batch, state: PyTree) -> tuple[Sums, PyTree]:
        logprobs_bt, correct_bt, state = _target_logprobs(model, params, batch, state)
        return _sums(logprobs_bt, correct_bt, batch, axis=None), state

    return eval_step


def _sums(logprobs_bt: Array, correct_bt: Array, batch: Batch, *, axis: int | None) -> Sums:
    loss_mask_bt = batch["loss_mask"].astype(jnp.float32)
    return {
        "nats": jnp.sum(jnp.where(loss_mask_bt > 0, -logprobs_bt * loss_mask_bt, 0.0), axis=axis),
        "tokens": jnp.sum(loss_mask_bt, axis=axis),
        "correct": jnp.sum(jnp.where(correct_bt, loss_mask_bt, 0.0), axis=axis),
    }
