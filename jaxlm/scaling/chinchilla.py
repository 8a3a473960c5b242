"""Chinchilla: L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022), fitted and used."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxlm.scaling.fitting import LEVEL, Error, Fit, Scale, fit_form, interval
from jaxlm.scaling.forms import CHINCHILLA, EQUAL_EXPONENTS, Form
from jaxlm.scaling.profile import profile_intervals

FLOPS_PER_PARAM_TOKEN = 6.0
"""C = 6 N D, without attention."""


class Allocation(NamedTuple):
    """What to spend compute on."""

    num_params: Any
    num_tokens: Any
    loss: Any


@dataclasses.dataclass(frozen=True)
class ChinchillaFit(Fit):
    """The constants, and what follows from them."""

    @property
    def E(self) -> float:
        """The irreducible loss."""
        return self.constants["E"]

    @property
    def A(self) -> float:
        return self.constants["A"]

    @property
    def B(self) -> float:
        return self.constants["B"]

    @property
    def alpha(self) -> float:
        return self.constants["alpha"]

    @property
    def beta(self) -> float:
        """alpha too, where both exponents are one."""
        return self.constants.get("beta", self.alpha)

    @property
    def exponent(self) -> float:
        """a of N_opt ~ C^a: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def exponent_interval(self) -> tuple[float, float]:
        draws = self.draws
        beta = draws.get("beta", draws["alpha"])
        return interval(beta / (draws["alpha"] + beta))

    def optimal(self, flops: float) -> Allocation:
        """N, D and loss of the lowest loss at C = 6 N D."""
        n, d, loss = (float(x) for x in allocate(self.form.read(self.theta_p), flops))
        return Allocation(n, d, loss)

    def optimal_intervals(self, flops: float, level: float = LEVEL) -> Allocation:
        """The middle ``level`` of the resamples, for each of the three."""
        return Allocation(*(interval(x, level) for x in allocate(self.draws, flops)))

    def flops_for(self, loss: float) -> float:
        """Compute that reaches a loss at the best allocation. Raises ValueError for one that none reaches."""
        return float(flops_for(self.form.read(self.theta_p), loss))


def allocate(constants: Any, flops: Any) -> Allocation:
    """The closed form (Hoffmann et al. 2022, eq. 4) for constants by name, arrays or not."""
    alpha = constants["alpha"]
    beta = constants.get("beta", alpha)
    total = alpha + beta
    ratio = np.power(alpha * constants["A"] / (beta * constants["B"]), 1 / total)
    product = flops / FLOPS_PER_PARAM_TOKEN
    n, d = ratio * np.power(product, beta / total), np.power(product, alpha / total) / ratio
    return Allocation(n, d, constants["E"] + constants["A"] / np.power(n, alpha) + constants["B"] / np.power(d, beta))


def flops_for(constants: Any, loss: float) -> Any:
    """Compute that reaches ``loss`` at the best allocation; at it the reducible loss is a power of compute."""
    floor = np.asarray(constants["E"])
    if floor.ndim == 0 and loss <= floor:
        raise ValueError(f"loss {loss:g} is not above the irreducible loss, {float(floor):.4g}: no budget reaches it")
    alpha = constants["alpha"]
    beta = constants.get("beta", alpha)
    power = alpha * beta / (alpha + beta)
    at_one = allocate(constants, 1.0).loss - floor
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.where(loss > floor, np.power(at_one / np.maximum(loss - floor, 1e-300), 1 / power), np.inf)


def fit_chinchilla(
    num_params: Any,
    num_tokens: Any,
    loss: Any,
    *,
    delta: float | None = 1e-3,
    scale: Scale = "fitted",
    error: Error = "log",
    resamples: int = 1000,
    seed: int = 0,
    embeddings: bool = True,
    equal_exponents: bool = False,
) -> ChinchillaFit:
    """Approach 3: the constants by the lowest sum of Huber's function of log loss, from a grid of 4,500 starts.

    Args:
      num_params: N of each run, with embeddings unless ``embeddings=False``, which is kept and stated.
      num_tokens: D, tokens trained on.
      loss: nats a token at the end of the run.
      delta: see `fitting.fit_form`; None = least squares, and intervals of the constants by profile likelihood.
      scale: "fitted", as in the figures of Besiroglu et al. (2024); "fixed", as in Hoffmann et al. (2022).
      error: predicted less observed, in logarithms or in nats; in nats the scale is fixed.
      resamples: for standard errors and intervals.
      seed: of the resamples.
      embeddings: whether ``num_params`` counts them.
      equal_exponents: alpha = beta, which needs fewer runs (Gadre et al. 2024).

    Raises:
      ValueError: for too few runs or values of N or D, mixed units, NaN, losses that are not above 0 or lie below the
        irreducible one, runs given twice.
    """
    form: Form = EQUAL_EXPONENTS if equal_exponents else CHINCHILLA
    runs = {"N": np.asarray(num_params, np.float64), "D": np.asarray(num_tokens, np.float64)}
    if delta is None:  # squares bend the law to a loss below the irreducible one; this does not, and names it
        fit_form(form, runs, loss, resamples=0)
    fit: ChinchillaFit = fit_form(
        form, runs, loss, delta=delta, scale=scale, error=error, resamples=resamples, seed=seed, embeddings=embeddings,
        kind=ChinchillaFit,
    )  # fmt: skip
    if delta is None and error == "log" and resamples:
        fit = dataclasses.replace(fit, profile=profile_intervals(form, fit.theta_p, runs, np.asarray(loss)))
    return fit
