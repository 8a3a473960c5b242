"""The one train step. Every gradient step of jaxlm is this function with another objective."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxlm.core.types import Array, Batch, Params, PyTree, Terms
from jaxlm.train.state import TrainState

TermsFn = Callable[[Params, PyTree, PyTree, Batch, Array], tuple[Terms, PyTree]]
CountsFn = Callable[[Batch], dict[str, Array]]
TrainStep = Callable[[TrainState, PyTree, Batch, Array], tuple[TrainState, dict[str, Array]]]


class Objective(NamedTuple):
    """What is minimised: the terms of a batch, and what each is summed over, known before any gradient."""

    terms: TermsFn
    """``terms(params, frozen, carry, batch, key) -> (name -> Term, carry)``."""
    counts: CountsFn
    """``counts(batch) -> name -> count``: of the whole batch, so that microbatches are divided by the global count."""
    carry_rows: bool = False
    """True where the carry has an entry for each row of the batch, as a recurrent state has: a microbatch then takes
    those of its rows. Else the carry goes from one microbatch to the next."""


def split_microbatches(batch: Batch, grad_accum_steps: int) -> Batch:
    """[b, ...] -> [a, b / a, ...]: microbatch i holds rows i, i + a, i + 2a...

    Rows are dealt rather than cut so that a batch axis sharded over devices stays sharded: each device splits its own
    rows, and nothing moves.
    """

    def split(x: Array) -> Array:
        rows = x.shape[0]
        if rows % grad_accum_steps:
            raise ValueError(f"{rows} rows do not split into grad_accum_steps={grad_accum_steps} microbatches")
        return x.reshape(rows // grad_accum_steps, grad_accum_steps, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)


def join_microbatches(parts: PyTree) -> PyTree:
    """[a, b / a, ...] -> [b, ...]: `split_microbatches` undone."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)


def _is_zero(weight: float | Array) -> bool:
    return isinstance(weight, int | float) and weight == 0


def make_train_step(
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    schedule: optax.Schedule,
    grad_accum_steps: int = 1,
    ema_decay: float | None = None,
) -> TrainStep:
    """A pure ``train_step(state, frozen, batch, key) -> (state, metrics)``; the caller jits it and donates the state.

    ``key`` is the run's constant dropout key; the step and the microbatch are folded in here. The gradient is that of
    ``sum over terms of weight * total / count`` with ``count`` that of the whole batch: however the rows are split into
    microbatches or over devices, it is the same number but for rounding. A step whose loss or gradient norm is not
    finite changes nothing but ``step`` and ``skipped``.
    """

    def micro_loss(
        params: Params, frozen: PyTree, carry: PyTree, micro: Batch, key: Array, counts: dict[str, Array]
    ) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
        terms, carry = objective.terms(params, frozen, carry, micro, key)
        means = {name: term.total / jnp.maximum(counts[name], 1) for name, term in terms.items()}
        # What is only watched stays out of the sum: 0 times what overflows there would be no number.
        weights = {name: term.weight for name, term in terms.items() if not _is_zero(term.weight)}
        loss = sum((weight * means[name] for name, weight in weights.items()), start=jnp.zeros((), jnp.float32))
        return loss, (means, carry)

    grad_fn = jax.value_and_grad(micro_loss, has_aux=True)

    def gradients(
        state: TrainState, frozen: PyTree, batch: Batch, key: Array
    ) -> tuple[Array, dict[str, Array], PyTree, Params]:
        counts = objective.counts(batch)
        if grad_accum_steps == 1:
            micro_key = jax.random.fold_in(key, 0)
            (loss, (means, carry)), grads = grad_fn(state.params, frozen, state.carry, batch, micro_key, counts)
            return loss, means, carry, grads

        rows = objective.carry_rows

        def body(sums: Any, xs: tuple[Array, Batch, PyTree]) -> tuple[Any, PyTree]:
            index, micro, own = xs
            total, passed_on = sums
            (loss, (means, carry)), grads = grad_fn(
                state.params, frozen, own if rows else passed_on, micro, jax.random.fold_in(key, index), counts
            )
            total = jax.tree.map(lambda sum_, one: sum_ + one.astype(sum_.dtype), total, (loss, means, grads))
            return (total, None if rows else carry), carry if rows else None

        micros = split_microbatches(batch, grad_accum_steps)
        own, passed_on = (split_microbatches(state.carry, grad_accum_steps), None) if rows else (None, state.carry)
        first = jax.tree.map(lambda x: x[0], (micros, own))
        shapes = jax.eval_shape(grad_fn, state.params, frozen, first[1] if rows else passed_on, first[0], key, counts)
        (loss_shape, (means_shape, _)), grads_shape = shapes
        # In f32 at least: each microbatch's share is small beside the sum, and 16 bits would lose it.
        zeros = jax.tree.map(
            lambda s: jnp.zeros(s.shape, jnp.float32 if s.dtype.itemsize < 4 else s.dtype),
            (loss_shape, means_shape, grads_shape),
        )
        indices = jnp.arange(grad_accum_steps, dtype=jnp.int32)
        ((loss, means, grads), carry), own = jax.lax.scan(body, (zeros, passed_on), (indices, micros, own))
        grads = jax.tree.map(lambda sum_, shape: sum_.astype(shape.dtype), grads, grads_shape)
        return loss, means, join_microbatches(own) if rows else carry, grads

    def train_step(state: TrainState, frozen: PyTree, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Array]]:
        step_key = jax.random.fold_in(key, state.step)
        loss, means, carry, grads = gradients(state, frozen, batch, step_key)
        grad_norm = optax.tree.norm(grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = state.ema_params
        if ema_decay is not None:
            keep = float(ema_decay)
            ema_params = jax.tree.map(lambda e, p: keep * e + (1 - keep) * p.astype(e.dtype), state.ema_params, params)
        ok = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        old = (state.params, state.opt_state, state.carry, state.ema_params)
        new = (params, opt_state, carry, ema_params)
        params, opt_state, carry, ema_params = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)
        skipped = state.skipped + jnp.where(ok, 0, 1)
        metrics = {
            "loss": loss,
            **{f"term/{name}": mean for name, mean in means.items()},
            "grad_norm": grad_norm,
            "learning_rate": jnp.asarray(schedule(state.step - state.skipped), jnp.float32),
            "skipped": skipped,
        }
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            carry=carry,
            ema_params=ema_params,
            skipped=skipped,
        )
        return new_state, metrics

    return train_step


def make_many_steps(train_step: TrainStep) -> TrainStep:
    """``many_steps(state, frozen, batches, key)``: a step for each batch of a stack (leaves [steps, b, ...]) in one
    program, metrics [steps]. For models so small that to start a program costs as much as a step."""

    def many_steps(state: TrainState, frozen: PyTree, batches: Batch, key: Array) -> tuple[TrainState, Any]:
        return jax.lax.scan(lambda state, batch: train_step(state, frozen, batch, key), state, batches)

    return many_steps
