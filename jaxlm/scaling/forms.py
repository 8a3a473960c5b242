"""The laws as forms to be fitted: log loss as a function of a vector of constants and the logarithms of what varies.

In every form a coefficient stands beside an exponent times a logarithm, ``a - alpha log N``. Those two trade off almost
perfectly, so a search measures ``log N`` from its mean (`centred`), where they do not; the law is the same.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LogLoss = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Form:
    """One law."""

    name: str
    equation: str
    inputs: tuple[str, ...]
    """What varies, in the order of rows of ``x_kn``: logarithms are taken of each."""
    names: tuple[str, ...]
    """Of the constants as they are reported."""
    log_loss: LogLoss
    """(theta_p, x_kn) -> log loss [n]."""
    read: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    """theta [..., p] -> the constants by name."""
    shifts: tuple[tuple[int, int, int], ...]
    """(place of a coefficient, of its exponent, of the input) for each product of an exponent and a logarithm."""
    grid: tuple[tuple[float, ...], ...]
    """Starting values of each element of theta."""
    floor: int | None = None
    """The place of the logarithm of the irreducible loss."""

    @property
    def num_constants(self) -> int:
        return len(self.grid)

    def starts(self) -> np.ndarray:
        """Every combination of starting values [s, p]."""
        return np.array(list(itertools.product(*self.grid)), np.float64)

    def centred(self, theta_bp: np.ndarray, mean_k: np.ndarray, sign: float = 1.0) -> np.ndarray:
        """Coefficients for logarithms measured from ``mean_k``; with ``sign=-1`` back again."""
        moved_bp = np.array(theta_bp, np.float64)
        for coefficient, exponent, feature in self.shifts:
            moved_bp[..., coefficient] -= sign * moved_bp[..., exponent] * mean_k[feature]
        return moved_bp

    def predict(self, theta: np.ndarray, *inputs: Any) -> np.ndarray:
        """Loss of theta [..., p] at inputs that broadcast to [n]: [..., n]. NumPy alone, float64."""
        x_kn = np.log(np.stack(np.broadcast_arrays(*(np.asarray(x, np.float64) for x in inputs))))
        theta = np.asarray(theta, np.float64)
        parts = np.moveaxis(theta, -1, 0).reshape(theta.shape[-1:] + theta.shape[:-1] + (1,) * (x_kn.ndim - 1))
        return np.exp(_NUMPY[self.name](parts, x_kn))


def _sum_of_powers(xp, theta, x_kn, places: Sequence[tuple[int, int, int]], floor: int | None):
    """log of a sum of ``exp(theta[i] - theta[j] x[k])`` for each (i, j, k), and of ``exp(theta[floor])``."""
    terms = [theta[i] - theta[j] * x_kn[k] for i, j, k in places]
    return _log_sum_exp(xp, terms if floor is None else [*terms, theta[floor]])


def _log_sum_exp(xp, terms: Sequence[Any]):
    if len(terms) == 1:
        return terms[0]
    if xp is np:
        return functools.reduce(np.logaddexp, terms)
    # The derivative of jnp.logaddexp minds infinities, and made a fit's gradient cost seven times its value.
    highest = jax.lax.stop_gradient(functools.reduce(jnp.maximum, terms))
    return highest + jnp.log(sum(jnp.exp(term - highest) for term in terms))


_CHINCHILLA = ((0, 3, 0), (1, 4, 1))
_TIED = ((0, 3, 0), (1, 3, 1))
_STEPS = ((0, 2, 0), (1, 3, 1))
_POWER = ((0, 1, 0),)
_POWER_FLOOR = ((0, 2, 0),)


def _chinchilla(xp, theta, x_kn):
    return _sum_of_powers(xp, theta, x_kn, _CHINCHILLA, 2)


def _tied(xp, theta, x_kn):
    return _sum_of_powers(xp, theta, x_kn, _TIED, 2)


def _steps(xp, theta, x_kn):
    return _sum_of_powers(xp, theta, x_kn, _STEPS, None)


def _power(xp, theta, x_kn):
    return _sum_of_powers(xp, theta, x_kn, _POWER, None)


def _power_floor(xp, theta, x_kn):
    return _sum_of_powers(xp, theta, x_kn, _POWER_FLOOR, 1)


def _kaplan(xp, theta, x_kn):
    # theta holds alpha log of the scale, so that the form is linear in it where one term rules.
    n_c, d_c, alpha_n, alpha_d = theta
    return alpha_d * _log_sum_exp(xp, [(n_c - alpha_n * x_kn[0]) / alpha_d, (d_c - alpha_d * x_kn[1]) / alpha_d])


def _read_chinchilla(theta: np.ndarray) -> dict[str, np.ndarray]:
    a, b, e, alpha, beta = np.moveaxis(theta, -1, 0)
    return {"E": np.exp(e), "A": np.exp(a), "B": np.exp(b), "alpha": alpha, "beta": beta}


def _read_tied(theta: np.ndarray) -> dict[str, np.ndarray]:
    a, b, e, alpha = np.moveaxis(theta, -1, 0)
    return {"E": np.exp(e), "A": np.exp(a), "B": np.exp(b), "alpha": alpha}


def _read_kaplan(theta: np.ndarray) -> dict[str, np.ndarray]:
    n_c, d_c, alpha_n, alpha_d = np.moveaxis(theta, -1, 0)
    return {"N_c": _scale(n_c, alpha_n), "D_c": _scale(d_c, alpha_d), "alpha_N": alpha_n, "alpha_D": alpha_d}


def _read_steps(theta: np.ndarray) -> dict[str, np.ndarray]:
    n_c, s_c, alpha_n, alpha_s = np.moveaxis(theta, -1, 0)
    return {"N_c": _scale(n_c, alpha_n), "S_c": _scale(s_c, alpha_s), "alpha_N": alpha_n, "alpha_S": alpha_s}


def _read_power(theta: np.ndarray) -> dict[str, np.ndarray]:
    x_c, alpha = np.moveaxis(theta, -1, 0)
    return {"X_c": _scale(x_c, alpha), "alpha": alpha}


def _read_power_floor(theta: np.ndarray) -> dict[str, np.ndarray]:
    a, e, alpha = np.moveaxis(theta, -1, 0)
    return {"E": np.exp(e), "A": np.exp(a), "alpha": alpha}


def _scale(log_scaled: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.exp(log_scaled / alpha)


def _over(law, xp) -> LogLoss:
    def log_loss(theta, x_kn):
        return law(xp, theta, x_kn)

    return log_loss


_COEFFICIENTS = tuple(np.arange(0.0, 30.0, 5.0))
_EXPONENTS = tuple(np.arange(0.0, 2.5, 0.5))
_FLOORS = tuple(np.arange(-1.0, 1.5, 0.5))
_SMALL = (0.05, 0.1, 0.2, 0.4)

CHINCHILLA = Form(
    "chinchilla",
    "L(N, D) = E + A / N^alpha + B / D^beta",
    ("N", "D"),
    ("E", "A", "B", "alpha", "beta"),
    _over(_chinchilla, jnp),
    _read_chinchilla,
    _CHINCHILLA,
    (_COEFFICIENTS, _COEFFICIENTS, _FLOORS, _EXPONENTS, _EXPONENTS),
    floor=2,
)
"""Hoffmann et al. (2022, eq. 2), with their grid of starts (appendix D.3): 4,500 of them."""

EQUAL_EXPONENTS = Form(
    "equal exponents",
    "L(N, D) = E + A / N^alpha + B / D^alpha",
    ("N", "D"),
    ("E", "A", "B", "alpha"),
    _over(_tied, jnp),
    _read_tied,
    _TIED,
    (_COEFFICIENTS, _COEFFICIENTS, _FLOORS, (0.1, 0.25, 0.5, 1.0)),
    floor=2,
)
"""One exponent for both, so that at any M = D/N the loss is ``E + (a M^eta + b M^-eta) C^-eta`` (Gadre et al. 2024, eq.
4)."""

KAPLAN = Form(
    "kaplan",
    "L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D",
    ("N", "D"),
    ("N_c", "D_c", "alpha_N", "alpha_D"),
    _over(_kaplan, jnp),
    _read_kaplan,
    ((0, 2, 0), (1, 3, 1)),
    ((1.0, 2.0, 4.0, 8.0), (1.0, 2.0, 4.0, 8.0), _SMALL, _SMALL),
)
"""Kaplan et al. (2020, eq. 1.5); their N leaves out embeddings."""

KAPLAN_STEPS = Form(
    "kaplan steps",
    "L(N, S) = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S",
    ("N", "S_min"),
    ("N_c", "S_c", "alpha_N", "alpha_S"),
    _over(_steps, jnp),
    _read_steps,
    _STEPS,
    ((1.0, 2.0, 4.0, 8.0), (1.0, 4.0, 8.0), _SMALL, (*_SMALL, 0.8)),
)
"""Kaplan et al. (2020, eq. 1.6), of steps at batches far above the critical one."""

POWER = Form(
    "power", "L(X) = (X_c / X)^alpha", ("X",), ("X_c", "alpha"), _over(_power, jnp), _read_power, _POWER,
    ((0.0, 1.0, 3.0), _SMALL),
)  # fmt: skip
"""Kaplan et al. (2020, eq. 1.1 to 1.3): of N, of D, or of the least compute; nothing irreducible."""

POWER_FLOOR = Form(
    "power with a floor", "L(X) = E + A / X^alpha", ("X",), ("E", "A", "alpha"), _over(_power_floor, jnp),
    _read_power_floor, _POWER_FLOOR, (_COEFFICIENTS, _FLOORS, (*_SMALL, 0.8)), floor=1,
)  # fmt: skip

_NUMPY: dict[str, LogLoss] = {
    CHINCHILLA.name: _over(_chinchilla, np),
    EQUAL_EXPONENTS.name: _over(_tied, np),
    KAPLAN.name: _over(_kaplan, np),
    KAPLAN_STEPS.name: _over(_steps, np),
    POWER.name: _over(_power, np),
    POWER_FLOOR.name: _over(_power_floor, np),
}
FORMS = {form.name: form for form in (CHINCHILLA, EQUAL_EXPONENTS, KAPLAN, KAPLAN_STEPS, POWER, POWER_FLOOR)}
