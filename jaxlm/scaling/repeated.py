"""Loss where text runs out and is read again (Muennighoff et al. 2023)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN, allocate

CONSTANTS = {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353}
"""Of the law of fresh text, on C4 (their appendix A)."""
HALF_LIFE_TOKENS = 15.39
"""R*_D: repetitions at which 1 - 1/e of all that repeating can give is had."""
HALF_LIFE_PARAMS = 5.31
"""R*_N: the same of parameters beyond what the unique text calls for."""


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


def fit_half_lives(
    num_params: Any, num_tokens: Any, unique_tokens: Any, loss_n: Any, *, constants: Mapping[str, Any]
) -> tuple[float, float]:
    """(R*_D, R*_N) of runs that repeat, given the law of fresh text: least Huber error of log loss, by Nelder and Mead
    from a grid. Raises ValueError where no run repeats its text."""
    from scipy import optimize

    n, d, u, observed = (np.asarray(x, np.float64) for x in (num_params, num_tokens, unique_tokens, loss_n))
    if not (d > 1.5 * u).any():
        raise ValueError("no run reads its text more than 1.5 times: repetition cannot be fitted")

    def error(log_lives: np.ndarray) -> float:
        tokens_life, params_life = np.exp(log_lives)
        predicted = loss(n, d, u, constants=constants, half_life_tokens=tokens_life, half_life_params=params_life)
        apart = np.abs(np.log(predicted / observed))
        return float(np.where(apart <= 1e-3, 0.5e3 * apart**2, apart - 0.5e-3).sum())

    starts = [np.log([x, y]) for x in (1.0, 5.0, 25.0) for y in (1.0, 5.0, 25.0)]
    tried = [optimize.minimize(error, start, method="Nelder-Mead", options={"xatol": 1e-6}) for start in starts]
    tokens_life, params_life = np.exp(min(tried, key=lambda one: one.fun).x)
    return float(tokens_life), float(params_life)
