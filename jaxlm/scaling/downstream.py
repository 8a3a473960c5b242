"""From loss to a task's error: the second of two steps, size and tokens -> loss -> error.

Two forms, each over the loss alone: an exponential that ends at chance (Gadre et al. 2024), and a sigmoid between
chance and a ceiling (Bhagia et al. 2024). Fitted to small models by least squares of the error, which is a share;
resamples give intervals. `two_steps` puts a law of the loss before it.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.scaling.checks import check_positive, distinct
from jaxlm.scaling.fitting import LEVEL, Fit, interval, resample_weights
from jaxlm.scaling.minimise import minimise

Link = Literal["exponential", "sigmoid"]
EQUATIONS: dict[Link, str] = {
    "exponential": "error = epsilon - k exp(-gamma L)",
    "sigmoid": "error = low + (high - low) / (1 + exp(-k (L - L_0)))",
}
_LEAST_MODELS = 5
_STARTS_K = (0.5, 1.0, 2.0, 4.0, 8.0)
_PLACES = (-1.0, -0.5, 0.0, 0.5, 1.0)
_WITHIN = 1e-3
"""An error may lie so far outside of 0 to 1."""


@dataclasses.dataclass(frozen=True)
class ErrorFit:
    """A task's error as a function of the loss."""

    link: Link
    theta_p: np.ndarray
    draws_bp: np.ndarray
    """Of each resample."""
    residual_n: np.ndarray
    """Observed less predicted error."""
    chance: float | None
    """Error of a guess, where it was given and held."""

    @property
    def constants(self) -> dict[str, float]:
        """By the names in `EQUATIONS`."""
        return {name: float(value) for name, value in _read(self.link, self.theta_p, self.chance).items()}

    def predict(self, loss: Any) -> Any:
        """The error at a loss: a float for a number, else an array."""
        error = _LINKS[self.link](np, self.theta_p, np.asarray(loss, np.float64), _fixed(self.chance))
        return float(error) if error.ndim == 0 else error

    def predict_interval(self, loss: Any, *, new_model: bool = False, level: float = LEVEL) -> tuple[Any, Any]:
        """The middle of the resamples' predictions at a loss, or at one loss a resample [b] (a loss that is itself
        predicted); with ``new_model`` that of one model's error, which scatters as those of the fit do."""
        draws = _LINKS[self.link](np, self.draws_bp.T, np.asarray(loss, np.float64), _fixed(self.chance))
        if new_model:
            draws = draws + scattered(self.residual_n, len(self.theta_p), len(draws))
        return interval(draws, level)


def fit_error_of_loss(
    loss: Any,
    error: Any,
    *,
    link: Link = "exponential",
    chance: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> ErrorFit:
    """Fits a link to models of one task.

    Args:
      loss: nats a token of each model [n], of a text that stays the same.
      error: share of the task that each gets wrong [n].
      link: the form.
      chance: error of a guess; held as the upper end. None fits it, which needs models that are no better than that.
      resamples: of the models, with replacement.
      seed: of the resamples.

    Raises:
      ValueError: for fewer than 5 models or losses, errors outside of 0 to 1 (per cent), and an error that does not
        fall with the loss.
    """
    loss_n, error_n = np.asarray(loss, np.float64), np.asarray(error, np.float64)
    check_positive({"loss": loss_n})
    if error_n.shape != loss_n.shape or not np.isfinite(error_n).all():
        raise ValueError("error must be one number of each model, and not NaN")
    if error_n.min() < -_WITHIN or error_n.max() > 1 + _WITHIN:
        raise ValueError(f"errors go from {error_n.min():g} to {error_n.max():g}: give shares from 0 to 1")
    if chance is not None and not 0 < chance <= 1:
        raise ValueError(f"chance={chance} is the error of a guess, above 0 and at most 1: 0.75 with four choices")
    if distinct(loss_n) < _LEAST_MODELS:
        raise ValueError(f"needs at least {_LEAST_MODELS} values of the loss, and there are {distinct(loss_n)}")
    if np.corrcoef(loss_n, error_n)[0, 1] <= 0:
        raise ValueError("the error does not fall with the loss: no second step can be read off these models")
    centre, spread = float(loss_n.mean()), float(loss_n.std())
    shared = ((loss_n - centre) / spread, error_n, np.float64(_fixed(chance)))
    objective = _OBJECTIVES[link]
    found = minimise(objective, _starts(link, error_n, chance), np.ones((1, len(loss_n))), shared)
    best_p = found.theta_bp[found.value_b.argmin()]
    if not np.isfinite(best_p).all():
        raise ValueError(f"no start led to a fit of {EQUATIONS[link]}: look at the models")
    draws_bp = best_p[None]
    if resamples:
        weights_bn = resample_weights(len(loss_n), resamples, seed)
        draws_bp = minimise(objective, np.repeat(best_p[None], resamples, axis=0), weights_bn, shared).theta_bp
    best_p, draws_bp = (_uncentred(link, theta, centre, spread) for theta in (best_p, draws_bp))
    fit = ErrorFit(link, best_p, draws_bp, np.zeros(len(loss_n)), chance)
    return dataclasses.replace(fit, residual_n=error_n - np.asarray(fit.predict(loss_n)))


@dataclasses.dataclass(frozen=True)
class TwoSteps:
    """What a law of the loss and a link say of a larger model."""

    loss: float
    loss_interval: tuple[float, float]
    error: float
    error_interval: tuple[float, float]
    """Of one model's error: the spread of both fits and the scatter of models about both."""


def two_steps(law: Fit, link: ErrorFit, *inputs: Any) -> TwoSteps:
    """The loss by ``law`` at its ``inputs``, and the error at that loss by ``link``; draws of the two are independent.

    Raises ValueError where either was fitted without resamples.
    """
    if len(law.draws_bp) < 2 or len(link.draws_bp) < 2:
        raise ValueError("an interval of two steps needs resamples of both: fit with resamples=1000")
    loss = float(law.predict(*inputs))
    count = min(len(law.draws_bp), len(link.draws_bp))
    loss_b = np.asarray(law.form.predict(law.draws_bp[:count], *(np.asarray(x, np.float64) for x in inputs)))
    loss_b = loss_b * np.exp(scattered(law.residual_n, law.form.num_constants, count))
    one_run = dataclasses.replace(link, draws_bp=link.draws_bp[:count])
    return TwoSteps(loss, interval(loss_b), link.predict(loss), one_run.predict_interval(loss_b, new_model=True))


def scattered(residual_n: np.ndarray, num_constants: int, count: int) -> np.ndarray:
    """Residuals drawn with replacement, made as large as those of a run that the fit has not seen."""
    index = np.random.default_rng(1).integers(len(residual_n), size=count)
    return residual_n[index] * np.sqrt(len(residual_n) / max(len(residual_n) - num_constants, 1))


def _fixed(chance: float | None) -> float:
    return -1.0 if chance is None else chance


def _exponential(xp, theta, loss, chance):
    epsilon = xp.where(chance > 0, chance, theta[2])
    return epsilon - xp.exp(theta[0] - xp.exp(theta[1]) * loss)


def _sigmoid(xp, theta, loss, chance):
    # The ends lie within 0 and 1 whatever theta is; both written so that nothing overflows.
    low = 0.5 * (1 + xp.tanh(0.5 * theta[2]))
    high = xp.where(chance > 0, chance, low + (1 - low) * 0.5 * (1 + xp.tanh(0.5 * theta[3])))
    return low + (high - low) * 0.5 * (1 + xp.tanh(0.5 * xp.exp(theta[1]) * (loss - theta[0])))


_LINKS: dict[Link, Any] = {"exponential": _exponential, "sigmoid": _sigmoid}


def _objective_of(link: Link):
    def objective(theta: jax.Array, weight_n: jax.Array, shared: Any) -> jax.Array:
        loss_n, error_n, chance = shared
        return (weight_n * (_LINKS[link](jnp, theta, loss_n, chance) - error_n) ** 2).sum() / weight_n.sum()

    return objective


_OBJECTIVES = {link: _objective_of(link) for link in _LINKS}


def _starts(link: Link, error_n: np.ndarray, chance: float | None) -> np.ndarray:
    top = chance if chance is not None else min(float(error_n.max()) + 0.02, 0.99)
    low = max(float(error_n.min()) * 0.5, 0.01)
    if link == "exponential":
        depth = max(top - float(error_n.mean()), 0.01)
        return np.array([(np.log(depth), np.log(k), top) for k in (0.2, 0.5, 1.0, 2.0, 4.0)])
    inner = np.clip((top - low) / (1 - low), 0.01, 0.99)
    ends = (np.log(low / (1 - low)), np.log(inner / (1 - inner)))
    return np.array([(place, np.log(k), *ends) for place in _PLACES for k in _STARTS_K])


def _uncentred(link: Link, theta: np.ndarray, centre: float, spread: float) -> np.ndarray:
    """Constants for losses in nats, from those for standardised losses."""
    moved = np.array(theta)
    slope = np.exp(theta[..., 1]) / spread
    moved[..., 1] = np.log(slope)
    moved[..., 0] = theta[..., 0] + slope * centre if link == "exponential" else theta[..., 0] * spread + centre
    return moved


def _read(link: Link, theta: np.ndarray, chance: float | None) -> dict[str, Any]:
    if link == "exponential":
        return {"epsilon": theta[2] if chance is None else chance, "k": np.exp(theta[0]), "gamma": np.exp(theta[1])}
    low = 0.5 * (1 + np.tanh(0.5 * theta[2]))
    high = low + (1 - low) * 0.5 * (1 + np.tanh(0.5 * theta[3])) if chance is None else chance
    return {"low": low, "high": high, "k": np.exp(theta[1]), "L_0": theta[0]}
