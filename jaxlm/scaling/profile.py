"""Intervals by profile likelihood: how far a constant can be moved while the others make up for it.

For errors of log loss that are normal and of one size. The deviance of a constant held at a value is the least sum of
squares there, over the others, against the least of all; the interval is where it stays below the quantile of F(1, n-p)
(Bates and Watts 1988, ch. 6). It needs no resamples, is not symmetric, and is right with few runs, where a bootstrap is
too narrow.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.scaling.fitting import LEVEL, NO_FLOOR
from jaxlm.scaling.forms import Form
from jaxlm.scaling.precision import double_precision

_DOUBLINGS = 9
"""Of the distance from the best value, from half a standard error on, until the deviance is past its limit."""
_BISECTIONS = 14
_STEPS = 8
"""Of Levenberg and Marquardt at every value: each begins where the last ended."""
_RAISED_STEPS = 40
"""The same from half the lowest loss, where the best fit has no irreducible loss."""
_NOTHING = 1e-4
"""Share of the lowest loss that is as good as none."""
_FLOOR_REACH = 0.1
"""In logarithms: doubled, it comes from there past the lowest loss."""
_LANES = 2000


def profile_intervals(
    form: Form, theta_p: np.ndarray, inputs: Mapping[str, np.ndarray], loss: np.ndarray, *, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """The interval of every constant about a least-squares fit (``fit_form(..., delta=None)``).

    An end that is never reached is 0 or infinite. For forms whose constants are each a coordinate or its exponential
    (Chinchilla's, and that with equal exponents); scales of Kaplan's forms are read off `Fit.intervals`.
    """
    ends = profile_bounds(form, theta_p[None], inputs, np.asarray(loss, np.float64)[None], level=level)[0]
    names = _coordinates(form)
    return {name: (float(ends[names[name], 0]), float(ends[names[name], 1])) for name in form.names}


def profile_bounds(
    form: Form, theta_bp: np.ndarray, inputs: Mapping[str, np.ndarray], loss_bn: np.ndarray, *, level: float = LEVEL
) -> np.ndarray:
    """The same for b tables of runs at the same inputs: ends [b, p, 2] in the order of theta, exponentials taken."""
    from scipy import stats

    x_kn = np.log(np.stack([np.asarray(inputs[name], np.float64) for name in form.inputs]))
    mean_k = x_kn.mean(axis=1)
    num_runs, size = x_kn.shape[1], form.num_constants
    log_bn = np.log(loss_bn)
    allowed = float(stats.f.ppf(level, 1, num_runs - size)) / (num_runs - size)
    count = len(theta_bp)
    # What has next to no irreducible loss never finds one, for nothing falls with its logarithm: it is looked for.
    lowest_b = log_bn.min(axis=1)
    assert form.floor is not None
    raised_b = theta_bp[:, form.floor] < np.log(NO_FLOOR) + lowest_b
    # A lane for each table, constant and side.
    table, place, side = (a.ravel() for a in np.meshgrid(np.arange(count), np.arange(size), (-1.0, 1.0), indexing="ij"))
    found = np.empty(len(table))
    parts = [(raised, np.flatnonzero(raised_b[table] == raised)) for raised in (False, True)]
    with double_precision():
        mean = jnp.asarray(mean_k)
        for raised, part, first in ((r, p, first) for r, p in parts for first in range(0, len(p), _LANES)):
            lanes = np.resize(part[first : first + _LANES], min(_LANES, len(part)))
            ends = _ends(
                form, raised, jnp.asarray(theta_bp[table[lanes]]), jnp.asarray(log_bn[table[lanes]]),
                jnp.asarray(place[lanes]), jnp.asarray(side[lanes]), jnp.asarray(x_kn), mean,
                jnp.asarray(np.float64(allowed)),
            )  # fmt: skip
            found[lanes] = np.asarray(ends)
    ends_bpe = found.reshape(count, size, 2)
    logs = [i for i, name in enumerate(_order(form)) if name in ("A", "B", "E")]
    ends_bpe[:, logs] = np.exp(ends_bpe[:, logs])
    return ends_bpe


def _order(form: Form) -> list[str]:
    order = ["A", "B", "E", "alpha", "beta"][: form.num_constants]
    if set(order) != set(form.names):
        raise ValueError(f"profile intervals are of Chinchilla's forms, and this is {form.name}")
    return order


def _coordinates(form: Form) -> dict[str, int]:
    return {name: i for i, name in enumerate(_order(form))}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _ends(form: Form, raised: bool, theta_bp, log_bn, place_b, side_b, x_kn, mean_k, allowed):
    return jax.vmap(functools.partial(_end, form, raised), in_axes=(0, 0, 0, 0, None, None, None))(
        theta_bp, log_bn, place_b, side_b, x_kn, mean_k, allowed
    )


def _end(form: Form, raised: bool, theta, log_n, place, side, x_kn, mean_k, allowed):
    """Where the deviance of one constant reaches its limit on one side."""
    size = form.num_constants
    held = jnp.arange(size) == place
    # A coefficient is held at the inputs' own zero, not at their mean: its search direction moves it and its exponent.
    basis = jnp.eye(size)
    for coefficient, exponent, feature in form.shifts:
        basis = basis.at[coefficient, exponent].add(mean_k[feature])

    def residual(at):
        return form.log_loss(at, x_kn) - log_n

    def jacobian(at):
        # In coordinates whose coefficients belong to centred inputs: well conditioned, and the held one stays itself.
        return jax.jacfwd(residual)(at) @ basis

    def step(_, carry):
        at, damp = carry
        r, j = residual(at), jacobian(at)
        # Moving along a column of the basis moves the coefficient too; where that is the held one, it must not.
        direction = basis
        moves_held = jnp.where(held, 0.0, direction[place])
        j = j - jnp.outer(j[:, place], moves_held)
        j = jnp.where(held, 0.0, j)
        gram = j.T @ j
        scale = jnp.diag(gram) * damp + jnp.where(held, 1.0, 1e-300)
        change = -jnp.linalg.solve(gram + jnp.diag(scale), j.T @ r)
        change = jnp.where(held, -(moves_held @ change), change)
        tried = at + direction @ change
        better = jnp.sum(residual(tried) ** 2) <= jnp.sum(r**2)
        return jnp.where(better, tried, at), jnp.where(better, damp * 0.1, damp * 10.0)

    least = jnp.sum(residual(theta) ** 2)

    def over(at):
        return jnp.sum(residual(at) ** 2) / least - 1 > allowed

    def search(value, start, steps):
        return jax.lax.fori_loop(0, steps, step, (jnp.where(held, value, start), jnp.full((), 1e-6)))[0]

    def held_at(value, start):
        near = search(value, start, _STEPS)
        if not raised:
            return near
        far = search(value, start.at[form.floor].set(lowest - jnp.log(2.0)), _RAISED_STEPS)
        return jnp.where(jnp.sum(residual(far) ** 2) < jnp.sum(residual(near) ** 2), far, near)

    j = jacobian(theta)
    covariance = basis @ jnp.linalg.pinv(j.T @ j) @ basis.T * least / (x_kn.shape[1] - size)
    reach = 0.5 * jnp.sqrt(jnp.sum(jnp.where(held, jnp.diag(covariance), 0.0)))
    best = jnp.sum(jnp.where(held, theta, 0.0))
    lowest = jnp.min(log_n)
    is_none = jnp.array(False)
    if raised:  # the irreducible loss itself is looked for from next to nothing upwards, and may be none
        nothing = lowest + jnp.log(_NOTHING)
        is_none = (place == form.floor) & (best < nothing)
        best = jnp.where(is_none, nothing, best)
        reach = jnp.where(is_none, _FLOOR_REACH, reach)

    def widen(_, carry):
        inner, at, reach, done = carry
        there = held_at(best + side * reach, at)
        past = over(there)
        stop = done | past
        return jnp.where(stop, inner, reach), jnp.where(stop, at, there), jnp.where(stop, reach, reach * 2), stop

    inner, at, outer, reached = jax.lax.fori_loop(0, _DOUBLINGS, widen, (jnp.zeros(()), theta, reach, jnp.array(False)))

    def bisect(_, carry):
        inner, outer, at = carry
        middle = 0.5 * (inner + outer)
        there = held_at(best + side * middle, at)
        past = over(there)
        return jnp.where(past, inner, middle), jnp.where(past, middle, outer), jnp.where(past, at, there)

    inner, outer, _ = jax.lax.fori_loop(0, _BISECTIONS, bisect, (inner, outer, at))
    reached = reached & ~(is_none & (side < 0))
    return jnp.where(reached, best + side * 0.5 * (inner + outer), side * jnp.inf)


def coverage(form: Form, truth_p: np.ndarray, ends_bpe: np.ndarray) -> dict[str, float]:
    """Share of intervals [b, p, 2] that hold the constant they are of."""
    read: Any = form.read(np.asarray(truth_p))
    places = _coordinates(form)
    return {
        name: float(
            ((ends_bpe[:, places[name], 0] <= read[name]) & (read[name] <= ends_bpe[:, places[name], 1])).mean()
        )
        for name in form.names
    }
