"""Kaplan et al. (2020): their laws with their constants, and the same forms fitted to one's own runs.

Their N leaves out embeddings, and so do these constants.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxlm.scaling.chinchilla import Allocation, allocate, flops_for
from jaxlm.scaling.fitting import LEVEL, Fit, Scale, fit_form, interval
from jaxlm.scaling.forms import KAPLAN, KAPLAN_STEPS, POWER, POWER_FLOOR

PF_DAY = 8.64e19
"""FLOPs in a petaflop/s-day, their unit of compute."""
_COMPUTE, _ALPHA_COMPUTE = 3.1e8 * PF_DAY, 0.050
"""Of eq. 1.3."""


def loss_of_params(num_params: Any) -> Any:
    """L(N), trained to convergence on enough data (eq. 1.1)."""
    return (8.8e13 / np.asarray(num_params, np.float64)) ** 0.076


def loss_of_tokens(num_tokens: Any) -> Any:
    """L(D), a large model stopped early (eq. 1.2)."""
    return (5.4e13 / np.asarray(num_tokens, np.float64)) ** 0.095


def loss_of_compute(flops: Any) -> Any:
    """L(C_min), the best size at batches far below the critical one (eq. 1.3)."""
    return (_COMPUTE / np.asarray(flops, np.float64)) ** _ALPHA_COMPUTE


def flops_for_loss(loss: Any) -> Any:
    """C_min that reaches a loss: eq. 1.3 the other way round."""
    return _COMPUTE / np.asarray(loss, np.float64) ** (1 / _ALPHA_COMPUTE)


def loss_of_params_and_tokens(num_params: Any, num_tokens: Any) -> Any:
    """L(N, D) (eq. 1.5; constants of their table 2)."""
    n, d = np.asarray(num_params, np.float64), np.asarray(num_tokens, np.float64)
    return ((6.4e13 / n) ** (0.076 / 0.103) + 1.8e13 / d) ** 0.103


def loss_of_params_and_steps(num_params: Any, min_steps: Any) -> Any:
    """L(N, S_min) (eq. 1.6; constants of their table 3)."""
    n, s = np.asarray(num_params, np.float64), np.asarray(min_steps, np.float64)
    return (6.5e13 / n) ** 0.077 + (2.1e3 / s) ** 0.76


def critical_batch_tokens(loss: Any) -> Any:
    """B_crit(L) in tokens: there twice the least steps and twice the least tokens are used (eq. 1.4)."""
    return 2.1e8 / np.asarray(loss, np.float64) ** (1 / 0.21)


def min_steps(steps: Any, batch_tokens: Any, loss: Any) -> Any:
    """S_min: steps that a batch far above the critical one would need for the same loss (eq. 5.4)."""
    return np.asarray(steps, np.float64) / (1 + critical_batch_tokens(loss) / np.asarray(batch_tokens, np.float64))


def min_flops(flops: Any, batch_tokens: Any, loss: Any) -> Any:
    """C_min: compute that a batch far below the critical one would need for the same loss (eq. 5.5)."""
    return np.asarray(flops, np.float64) / (1 + np.asarray(batch_tokens, np.float64) / critical_batch_tokens(loss))


def optimal_params(flops: Any) -> Any:
    """N_opt(C_min), without embeddings (table 6)."""
    return 1.3e9 * (np.asarray(flops, np.float64) / PF_DAY) ** 0.73


@dataclasses.dataclass(frozen=True)
class KaplanFit(Fit):
    """L(N, D) with its constants."""

    @property
    def N_c(self) -> float:
        return self.constants["N_c"]

    @property
    def D_c(self) -> float:
        return self.constants["D_c"]

    @property
    def alpha_N(self) -> float:
        return self.constants["alpha_N"]

    @property
    def alpha_D(self) -> float:
        return self.constants["alpha_D"]

    def optimal(self, flops: float) -> Allocation:
        """N, D and loss of the lowest loss at C = 6 N D."""
        return Allocation(*map(float, _allocate(self.constants, flops)))

    def optimal_intervals(self, flops: float, level: float = LEVEL) -> Allocation:
        """The middle ``level`` of the resamples, for each of the three."""
        return Allocation(*(interval(x, level) for x in _allocate(self.draws, flops)))

    def flops_for(self, loss: float) -> float:
        """Compute that reaches a loss at the best allocation."""
        return float(flops_for(_as_sum(self.constants), loss ** (1 / self.alpha_D)))


def _as_sum(constants: Any) -> dict[str, Any]:
    """Chinchilla's constants of L^(1/alpha_D), which is a sum of two powers with nothing irreducible."""
    power = constants["alpha_N"] / constants["alpha_D"]
    return {"E": 0.0 * power, "A": constants["N_c"] ** power, "B": constants["D_c"], "alpha": power, "beta": 1.0}


def _allocate(constants: Any, flops: float) -> Allocation:
    best = allocate(_as_sum(constants), flops)
    return best._replace(loss=best.loss ** constants["alpha_D"])


def fit_kaplan(
    num_params: Any,
    num_tokens: Any,
    loss: Any,
    *,
    delta: float | None = 1e-3,
    scale: Scale = "fitted",
    resamples: int = 1000,
    seed: int = 0,
    embeddings: bool = False,
) -> KaplanFit:
    """L(N, D) of eq. 1.5, fitted as `chinchilla.fit_chinchilla` fits its law.

    ``num_params`` leaves out embeddings unless ``embeddings=True``. Raises ValueError as it does there.
    """
    runs = {"N": np.asarray(num_params, np.float64), "D": np.asarray(num_tokens, np.float64)}
    return fit_form(
        KAPLAN, runs, loss, delta=delta, scale=scale, resamples=resamples, seed=seed, embeddings=embeddings,
        kind=KaplanFit,
    )  # fmt: skip


def fit_kaplan_steps(num_params: Any, min_steps: Any, loss: Any, *, embeddings: bool = False, **options: Any) -> Fit:
    """L(N, S_min) of eq. 1.6 (``options``: of `fitting.fit_form`)."""
    runs = {"N": np.asarray(num_params, np.float64), "S_min": np.asarray(min_steps, np.float64)}
    return fit_form(KAPLAN_STEPS, runs, loss, embeddings=embeddings, **options)


def fit_power_law(sizes: Any, loss: Any, *, irreducible: bool = False, embeddings: bool = False, **options: Any) -> Fit:
    """L(N), L(D) or L(C_min) of eq. 1.1 to 1.3; ``irreducible`` adds a floor (``options``: of `fitting.fit_form`)."""
    runs = {"X": np.asarray(sizes, np.float64)}
    return fit_form(POWER_FLOOR if irreducible else POWER, runs, loss, embeddings=embeddings, **options)
