"""The lowest loss that each budget of a ladder buys, and the law through those (approach 2 of Hoffmann et al. 2022).

A parabola through the runs near the best of a budget has its lowest point between the sizes that were trained, and is
less a matter of chance than its best run; a law of N and D that is fitted to all runs is bent by those far from it.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxlm.scaling.fitting import Fit, interval, resample_starts
from jaxlm.scaling.forms import POWER_FLOOR
from jaxlm.scaling.isoflop import group_budgets, lowest_of_parabola
from jaxlm.scaling.kaplan import fit_power_law
from jaxlm.scaling.recovery import fit_tables

NEAR = 0.08
"""Log loss above the best run of a budget, up to which its runs count."""
_LEAST_RUNS = 3
_LEAST_BUDGETS = 4
"""One more than the law has constants."""


class Lowest(NamedTuple):
    """``L(C) = E + A / C^alpha`` at the best N for C, which is a power of C."""

    flops_k: np.ndarray
    num_params_k: np.ndarray
    """Where the parabola of each budget is lowest; its best run where that lies beyond its runs."""
    loss_k: np.ndarray
    """Its loss there."""
    law: Fit
    exponent: float
    """Of the best N."""
    log_scale: float

    def num_params(self, flops: float) -> float:
        """The best N."""
        return float(np.exp(self.log_scale + self.exponent * np.log(flops)))

    def predict(self, flops: float) -> float:
        """The loss of the best N."""
        return self.law.predict(flops)

    def predict_interval(
        self, flops: float, *, level: float = 0.95, draws: int = 2000, seed: int = 0
    ) -> tuple[float, float]:
        """Of one run's loss, by refits to losses drawn about the law: their scatter is what budgets lie off it,
        Student's, with as many degrees of freedom as there are budgets beyond the law's constants."""
        theta_bp, scatter_b, rng = self._refits(draws, seed)
        predicted_b = POWER_FLOOR.predict(theta_bp, flops) * np.exp(scatter_b * rng.standard_normal(draws))
        return interval(predicted_b, level)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % of the constants of the law, by the same refits."""
        read = POWER_FLOOR.read(self._refits(2000, 0)[0])
        return {name: interval(read[name]) for name in POWER_FLOOR.names}

    def _refits(self, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """Constants [b, p] and scatter [b] of each, and what draws on."""
        rng = np.random.default_rng(seed)
        spare = len(self.flops_k) - POWER_FLOOR.num_constants
        scatter = np.sqrt((self.law.residual_n**2).sum() / spare)
        scatter_b = scatter * np.sqrt(spare / rng.chisquare(spare, draws))
        clean_k = self.law.form.predict(self.law.theta_p, self.flops_k)
        loss_bk = clean_k * np.exp(scatter_b[:, None] * rng.standard_normal((draws, len(clean_k))))
        found = [
            fit_tables(POWER_FLOOR, start_p, {"X": self.flops_k}, loss_bk)
            for start_p in resample_starts(POWER_FLOOR, self.law.theta_p, self.loss_k)
        ]
        off_sb = [(np.log(POWER_FLOOR.predict(one, self.flops_k) / loss_bk) ** 2).sum(axis=1) for one in found]
        return np.choose(np.argmin(off_sb, axis=0)[:, None], found), scatter_b, rng


def fit_lowest(num_params: Any, flops: Any, loss: Any, *, embeddings: bool = True) -> Lowest:
    """Approach 2 for the loss itself. Raises ValueError for fewer than 4 budgets of at least 3 sizes."""
    log_n, log_c, log_loss_n = (np.log(np.asarray(x, np.float64)) for x in (num_params, flops, loss))
    groups = [group for group in group_budgets(flops) if len(np.unique(log_n[group])) >= _LEAST_RUNS]
    if len(groups) < _LEAST_BUDGETS:
        raise ValueError(f"needs at least {_LEAST_BUDGETS} budgets of {_LEAST_RUNS} sizes, and there are {len(groups)}")
    points = np.array([_lowest_point(log_n[g], log_c[g].mean(), log_loss_n[g]) for g in groups])
    c_k, n_k, loss_k = np.exp(points.T)
    law = fit_power_law(c_k, loss_k, irreducible=True, embeddings=embeddings, delta=None, resamples=0)
    exponent, log_scale = np.polyfit(points[:, 0], points[:, 1], 1)
    return Lowest(c_k, n_k, loss_k, law, float(exponent), float(log_scale))


def _lowest_point(log_n: np.ndarray, log_c: float, log_loss: np.ndarray) -> tuple[float, float, float]:
    """log C, log N and log loss; the best run's where the parabola is lowest beyond its runs."""
    bound = max(log_loss.min() + NEAR, np.sort(log_loss)[_LEAST_RUNS - 1])
    u, y = log_n[log_loss <= bound], log_loss[log_loss <= bound]
    place, lowest, inside = lowest_of_parabola(u, y)
    return (log_c, place, lowest) if inside else (log_c, float(u[y.argmin()]), float(y.min()))
