"""A run beyond a ladder, predicted from it, and the prediction judged by the run: laws over numbers alone."""

from typing import Any, NamedTuple

import numpy as np

from jaxlm.scaling.chinchilla import ChinchillaFit
from jaxlm.scaling.fitting import Fit
from jaxlm.scaling.isoflop import group_budgets
from jaxlm.scaling.kaplan import fit_power_law
from jaxlm.scaling.lowest import Lowest

WITHIN_LOSS, WITHIN_DROP = 0.02, 0.15
"""What is asked of a prediction: relative error of the loss, and error over the drop since the last rung."""


class Ahead(NamedTuple):
    """What two laws say of one run."""

    law: str
    """The one that is judged."""
    loss: float
    """By it."""
    interval: tuple[float, float]
    power: float
    """Of a plain power law of compute through the best run of each budget."""
    power_interval: tuple[float, float]
    last_loss: float
    """The best loss of the largest budget: what the drop is counted from."""
    last_flops: float


class Judged(NamedTuple):
    """A prediction and the loss that came."""

    loss: float
    error: float
    """Predicted over observed, less 1."""
    share_of_drop: float
    """Error over how far the loss fell since the last rung; infinite where it did not fall."""
    power_error: float
    inside: bool
    """Whether the interval of the law holds the loss."""
    within_loss: bool
    within_drop: bool
    nearer_than_power: bool

    @property
    def holds(self) -> bool:
        """All three that are asked."""
        return self.within_loss and self.within_drop and self.nearer_than_power


def best_of_budgets(flops: Any, loss: Any) -> tuple[np.ndarray, np.ndarray]:
    """(compute, loss) of the best run of each budget, the smallest first."""
    flops_n, loss_n = np.asarray(flops, np.float64), np.asarray(loss, np.float64)
    places = [group[loss_n[group].argmin()] for group in group_budgets(flops_n)]
    return flops_n[places], loss_n[places]


def fit_frontier(flops: Any, loss: Any, *, resamples: int = 1000, seed: int = 0) -> Fit:
    """L(C) = (C_c / C)^alpha through the best run of each budget. Raises ValueError for fewer than 3 budgets."""
    best_c, best_l = best_of_budgets(flops, loss)
    return fit_power_law(best_c, best_l, resamples=resamples, seed=seed)


def predict_ahead(
    law: ChinchillaFit | Lowest, frontier: Fit, runs_flops: Any, runs_loss: Any, *, num_params: float,
    num_tokens: float, flops: float,
) -> Ahead:  # fmt: skip
    """What two laws of a ladder say of a run of ``num_params`` and ``num_tokens`` that costs ``flops``. The law of the
    lowest losses takes it that those are the best for it."""
    best_c, best_l = best_of_budgets(runs_flops, runs_loss)
    if isinstance(law, Lowest):
        name, loss, ends = "lowest", law.predict(flops), law.predict_interval(flops)
    else:
        name, loss = "parametric", law.predict(num_params, num_tokens)
        ends = law.predict_interval(num_params, num_tokens, new_run=True)
    return Ahead(
        name,
        loss,
        ends,
        frontier.predict(flops),
        frontier.predict_interval(flops, new_run=True),
        float(best_l[-1]),
        float(best_c[-1]),
    )


def judge(ahead: Ahead, loss: float) -> Judged:
    """The prediction against the loss of the run. Raises ValueError for a loss that is no number above 0."""
    if not np.isfinite(loss) or loss <= 0:
        raise ValueError(f"loss {loss} is no number above 0: the run went wrong, and says nothing of the prediction")
    error, power_error = ahead.loss / loss - 1, ahead.power / loss - 1
    drop = ahead.last_loss - loss
    share = abs(ahead.loss - loss) / drop if drop > 0 else float("inf")
    low, high = ahead.interval
    return Judged(
        loss,
        error,
        share,
        power_error,
        low <= loss <= high,
        abs(error) <= WITHIN_LOSS,
        share <= WITHIN_DROP,
        abs(error) < abs(power_error),
    )
