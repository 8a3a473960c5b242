"""Many small minimisations side by side: BFGS from every start, on every resample.

Each lane is a search of its own with its own weights of the same points. A lane does one evaluation a tick, whether in
its line search or on to its next step, so that no lane waits for another; a lane that is done gives its place to the
next start. With fewer constants than L-BFGS remembers pairs, BFGS is what it approaches. The line search is that of
Lewis and Overton (2013): bisection to the weak Wolfe conditions, which holds where the objective has kinks too.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.scaling.precision import double_precision

_DECREASE = 1e-4
_CURVATURE = 0.9
_MOST_TRIALS = 40
"""Points tried along one direction."""
_LANES = 512
_FEW_LANES = 32
_TICKS = 48
"""Between two looks at which lanes are done."""

Objective = Callable[[jax.Array, jax.Array, Any], jax.Array]
"""(theta [p], weights [n], what all lanes share) -> the value to make small."""


class Minima(NamedTuple):
    """What b searches found."""

    theta_bp: np.ndarray
    value_b: np.ndarray
    converged_b: np.ndarray


class _Lane(NamedTuple):
    theta: jax.Array
    value: jax.Array
    grad: jax.Array
    inverse: jax.Array
    """Of the Hessian, as BFGS knows it so far."""
    direction: jax.Array
    step: jax.Array
    low: jax.Array
    high: jax.Array
    trials: jax.Array
    flat: jax.Array
    """Steps in a row that gained next to nothing."""
    evals: jax.Array
    done: jax.Array
    converged: jax.Array


def minimise(
    objective: Objective,
    starts_bp: np.ndarray,
    weights_bn: np.ndarray,
    shared: Any,
    *,
    max_evals: int = 1000,
    tolerance: float = 1e-10,
) -> Minima:
    """The minimum that each start leads to, in float64.

    Args:
      objective: a module's function (it is compiled once); see `Objective`.
      starts_bp: where the searches begin.
      weights_bn: the weights of the points for each search; one row serves all.
      shared: arrays that every search reads.
      max_evals: a search ends, not converged, after so many evaluations.
      tolerance: a search ends where three steps in a row gained less than this share of the value.
    """
    starts_bp = np.asarray(starts_bp, np.float64)
    weights_bn = np.broadcast_to(np.asarray(weights_bn, np.float64), (len(starts_bp), np.shape(weights_bn)[-1]))
    count = len(starts_bp)
    # Two sizes alone, so that few programs are compiled; lanes without a start are done from the beginning.
    num_lanes = _FEW_LANES if count <= _FEW_LANES else _LANES
    theta_bp, value_b = starts_bp.copy(), np.full(count, np.inf)
    converged_b = np.zeros(count, bool)
    with double_precision():
        limits = (np.float64(tolerance), np.int64(max_evals))
        shared = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), shared)
        owner = np.full(num_lanes, -1)
        following, lanes = 0, _no_lanes(num_lanes, starts_bp.shape[1])
        weights = jnp.zeros((num_lanes, weights_bn.shape[1]))
        while True:
            free = np.flatnonzero(owner < 0)
            if following >= count and len(free) == num_lanes:
                return Minima(theta_bp, value_b, converged_b)
            # Many lanes are filled together: the first evaluation of one costs as much as that of all.
            if following < count and len(free) >= num_lanes // 4:
                taken = free[: count - following]
                owner[taken] = np.arange(following, following + len(taken))
                following += len(taken)
                rows = np.maximum(owner, 0)
                weights = jnp.asarray(weights_bn[rows])
                fresh = np.zeros(num_lanes, bool)
                fresh[taken] = True
                lanes = _fill(objective, lanes, jnp.asarray(fresh), jnp.asarray(starts_bp[rows]), weights, shared)
            lanes = _tick(objective, lanes, weights, shared, limits)
            done = np.asarray(lanes.done) & (owner >= 0)
            theta_bp[owner[done]] = np.asarray(lanes.theta)[done]
            value_b[owner[done]] = np.asarray(lanes.value)[done]
            converged_b[owner[done]] = np.asarray(lanes.converged)[done]
            owner[done] = -1


def _no_lanes(lanes: int, size: int) -> _Lane:
    zero, count, vector = jnp.zeros(lanes), jnp.zeros(lanes, jnp.int64), jnp.zeros((lanes, size))
    return _Lane(
        vector, zero, vector, jnp.zeros((lanes, size, size)), vector, zero, zero, zero, count, count, count,
        jnp.ones(lanes, bool), jnp.zeros(lanes, bool),
    )  # fmt: skip


def _value_and_grad(objective: Objective, theta: jax.Array, weights: jax.Array, shared: Any):
    value, grad = jax.vmap(jax.value_and_grad(objective), in_axes=(0, 0, None))(theta, weights, shared)
    bad = ~(jnp.isfinite(value) & jnp.isfinite(grad).all(axis=-1))
    return jnp.where(bad, jnp.inf, value), jnp.where(bad[:, None], 0.0, grad)


def _begin(objective: Objective, theta: jax.Array, weights: jax.Array, shared: Any) -> _Lane:
    value, grad = _value_and_grad(objective, theta, weights, shared)
    lanes, size = theta.shape
    # The first step is of length one tenth at most: a constant is a logarithm or an exponent.
    inverse = jnp.eye(size) * (0.1 / jnp.maximum(jnp.linalg.norm(grad, axis=-1), 1e-300))[:, None, None]
    zero, count = jnp.zeros(lanes), jnp.zeros(lanes, jnp.int64)
    return _Lane(
        theta, value, grad, inverse, -jnp.einsum("bij,bj->bi", inverse, grad), zero + 1.0, zero, zero + jnp.inf,
        count, count, count, ~jnp.isfinite(value), jnp.zeros(lanes, bool),
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _fill(
    objective: Objective, lanes: _Lane, fresh: jax.Array, starts: jax.Array, weights: jax.Array, shared: Any
) -> _Lane:
    begun = _begin(objective, starts, weights, shared)
    return jax.tree.map(lambda new, old: _select(fresh, new, old), begun, lanes)


def _select(chosen: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(chosen.reshape(chosen.shape + (1,) * (new.ndim - 1)), new, old)


@functools.partial(jax.jit, static_argnums=0)
def _tick(
    objective: Objective, lanes: _Lane, weights: jax.Array, shared: Any, limits: tuple[jax.Array, jax.Array]
) -> _Lane:
    """Up to `_TICKS` evaluations of every lane; fewer where all are done."""

    def body(carry: tuple[jax.Array, _Lane]) -> tuple[jax.Array, _Lane]:
        tick, before = carry
        theta = before.theta + before.step[:, None] * before.direction
        value, grad = _value_and_grad(objective, theta, weights, shared)
        after = jax.vmap(_advance, in_axes=(0, 0, 0, 0, None))(before, theta, value, grad, limits)
        return tick + 1, jax.tree.map(lambda new, old: _select(before.done, old, new), after, before)

    def on(carry: tuple[jax.Array, _Lane]) -> jax.Array:
        return (carry[0] < _TICKS) & ~carry[1].done.all()

    return jax.lax.while_loop(on, body, (jnp.zeros((), jnp.int64), lanes))[1]


def _advance(lane: _Lane, theta: jax.Array, value: jax.Array, grad: jax.Array, limits: Any) -> _Lane:
    """One lane after the evaluation at its trial point: bisect the step on, or move there."""
    tolerance, max_evals = limits
    slope, slope_there = lane.grad @ lane.direction, grad @ lane.direction
    too_far = ~(value <= lane.value + _DECREASE * lane.step * slope)
    too_near = ~too_far & (slope_there < _CURVATURE * slope)
    high = jnp.where(too_far, lane.step, lane.high)
    low = jnp.where(too_near, lane.step, lane.low)
    step = jnp.where(jnp.isfinite(high), 0.5 * (low + high), 2.0 * low)
    trials, evals = lane.trials + 1, lane.evals + 1
    stuck = trials >= _MOST_TRIALS
    # At a kink no step may meet both conditions: one that goes down is taken.
    moves = ~too_far & (~too_near | stuck)

    change, change_grad = theta - lane.theta, grad - lane.grad
    along = change @ change_grad
    # After the first step the inverse gets the size that this step shows.
    first = jnp.where(lane.evals == lane.trials, along / jnp.maximum(change_grad @ change_grad, 1e-300), 1.0)
    scaled = jnp.where((lane.evals == lane.trials) & (along > 0), jnp.eye(len(theta)) * first, lane.inverse)
    inverse = jnp.where(along > 1e-300, _updated(scaled, change, change_grad, along), lane.inverse)
    direction = -inverse @ grad

    flat = jnp.where(lane.value - value <= tolerance * jnp.abs(value) + 1e-300, lane.flat + 1, 0)
    still = flat >= 3
    lost = stuck & ~moves
    done = jnp.where(moves, still, lost) | (evals >= max_evals)
    moved = _Lane(
        theta, value, grad, inverse, direction, jnp.ones(()), jnp.zeros(()), jnp.full((), jnp.inf),
        jnp.zeros((), jnp.int64), flat, evals, done, still,
    )  # fmt: skip
    # A direction along which nothing goes down at all, after so many bisections, is a minimum as well as is known.
    stays = lane._replace(step=step, low=low, high=high, trials=trials, evals=evals, done=done, converged=lost)
    return jax.tree.map(lambda new, old: jnp.where(moves, new, old), moved, stays)


def _updated(inverse: jax.Array, change: jax.Array, change_grad: jax.Array, along: jax.Array) -> jax.Array:
    rho, moved = 1.0 / jnp.where(along > 0, along, 1.0), inverse @ change_grad
    both = jnp.outer(moved, change)
    return inverse + rho * ((1.0 + rho * change_grad @ moved) * jnp.outer(change, change) - both - both.T)
