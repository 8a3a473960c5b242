"""Loss where text runs out and is read again (Muennighoff et al. 2023)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.scaling.checks import check_positive
from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN, allocate
from jaxlm.scaling.fitting import interval, resample_weights
from jaxlm.scaling.minimise import minimise

CONSTANTS = {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353}
"""Of the law of fresh text, on C4 (their appendix A)."""
HALF_LIFE_TOKENS = 15.39
"""R*_D: repetitions at which 1 - 1/e of all that repeating can give is had."""
HALF_LIFE_PARAMS = 5.31
"""R*_N: the same of parameters beyond what the unique text calls for."""
_LEAST_RUNS = 3


def effective(unique: Any, used: Any, half_life: float) -> Any:
    """What ``used`` is worth where only ``unique`` of it is new: ``U + U R* (1 - exp(-R / R*))``, R = used/U - 1
    repetitions (their eq. 5 and 6)."""
    unique = np.minimum(unique, used)
    repeats = np.asarray(used, np.float64) / unique - 1
    return unique + unique * half_life * (1 - np.exp(-repeats / half_life))


def params_for_tokens(constants: Mapping[str, Any], num_tokens: Any) -> Any:
    """N that is best for D fresh tokens, by the law's own allocation."""
    alpha, beta = constants["alpha"], constants["beta"]
    ratio = np.power(alpha * constants["A"] / (beta * constants["B"]), 1 / (alpha + beta))
    # At the best allocation N = G (C/6)^(beta/s) and D = (C/6)^(alpha/s) / G.
    return ratio * np.power(np.asarray(num_tokens, np.float64) * ratio, beta / alpha)


def loss(
    num_params: Any,
    num_tokens: Any,
    unique_tokens: Any,
    *,
    constants: Mapping[str, Any] = CONSTANTS,
    half_life_tokens: float = HALF_LIFE_TOKENS,
    half_life_params: float = HALF_LIFE_PARAMS,
) -> Any:
    """Loss of N parameters after D tokens of which ``unique_tokens`` differ (their eq. 7), nats a token."""
    unique = np.minimum(unique_tokens, num_tokens)
    tokens = effective(unique, num_tokens, half_life_tokens)
    params = effective(params_for_tokens(constants, unique), num_params, half_life_params)
    floor = constants["E"] + constants["A"] / np.power(params, constants["alpha"])
    return floor + constants["B"] / np.power(tokens, constants["beta"])


def best_epochs(flops: float, unique_tokens: float, **law: Any) -> tuple[float, float, float]:
    """(N, epochs, loss) of the lowest loss at C = 6ND with so much unique text, by a fine grid of N."""
    constants = law.get("constants", CONSTANTS)
    centre = float(allocate(constants, flops).num_params)
    n = centre * np.exp(np.linspace(-6.0, 6.0, 4801))
    d = flops / FLOPS_PER_PARAM_TOKEN / n
    losses = loss(n, d, unique_tokens, **law)
    at = int(losses.argmin())
    return float(n[at]), float(max(d[at] / unique_tokens, 1.0)), float(losses[at])


class HalfLives(NamedTuple):
    """R*_D and R*_N of runs that repeat their text."""

    tokens: float
    params: float
    draws_b2: np.ndarray
    """The logarithms of both in each resample."""

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % of both, the middle of the resamples."""
        return {name: interval(np.exp(self.draws_b2[:, i])) for i, name in enumerate(("tokens", "params"))}


def fit_half_lives(
    num_params: Any,
    num_tokens: Any,
    unique_tokens: Any,
    loss_n: Any,
    *,
    constants: Mapping[str, Any],
    resamples: int = 1000,
    seed: int = 0,
) -> HalfLives:
    """Fits both to runs [n] that repeat, given the law of fresh text: least Huber error of log loss, from a grid.

    Raises ValueError for fewer than 3 runs, what is no number above 0, and where no run repeats its text.
    """
    n, d, u, observed = (np.asarray(x, np.float64) for x in (num_params, num_tokens, unique_tokens, loss_n))
    check_positive({"N": n, "D": d, "unique tokens": u, "loss": observed})
    if len(observed) < _LEAST_RUNS:
        raise ValueError(f"needs at least {_LEAST_RUNS} runs, and there are {len(observed)}")
    if not (d > 1.5 * u).any():
        raise ValueError("no run reads its text more than 1.5 times: repetition cannot be fitted")
    law = {name: float(constants[name]) for name in ("E", "A", "B", "alpha")}
    law["beta"] = float(constants.get("beta", law["alpha"]))
    unique = np.minimum(u, d)
    wanted = np.minimum(params_for_tokens(law, unique), n)
    shared = (law, (unique, d / unique - 1), (wanted, n / wanted - 1), np.log(observed))
    starts = np.log([(x, y) for x in (1.0, 5.0, 25.0) for y in (1.0, 5.0, 25.0)])
    found = minimise(_apart, starts, np.ones((1, len(observed))), shared)
    best_p = found.theta_bp[found.value_b.argmin()]
    weights_bn = resample_weights(len(observed), resamples, seed)
    draws = minimise(_apart, np.repeat(best_p[None], resamples, axis=0), weights_bn, shared).theta_bp
    tokens, params = np.exp(best_p)
    return HalfLives(float(tokens), float(params), draws)


def _apart(log_lives: jax.Array, weight_n: jax.Array, shared: Any) -> jax.Array:
    """Huber's function of log loss, predicted less observed."""
    law, tokens, params, log_loss_n = shared

    def worth(part: tuple[jax.Array, jax.Array], life: jax.Array) -> jax.Array:
        unique_n, repeats_n = part
        return unique_n * (1 - life * jnp.expm1(-repeats_n / life))

    tokens_n, params_n = worth(tokens, jnp.exp(log_lives[0])), worth(params, jnp.exp(log_lives[1]))
    predicted_n = law["E"] + law["A"] / params_n ** law["alpha"] + law["B"] / tokens_n ** law["beta"]
    apart_n = jnp.abs(jnp.log(predicted_n) - log_loss_n)
    huber_n = jnp.where(apart_n <= 1e-3, 0.5e3 * apart_n**2, apart_n - 0.5e-3)
    return (weight_n * huber_n).sum() / weight_n.sum()
