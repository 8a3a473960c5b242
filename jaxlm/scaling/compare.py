"""Which of several laws the runs speak for, and whether they can tell at all."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN
from jaxlm.scaling.fitting import Fit, interval
from jaxlm.scaling.forms import CHINCHILLA, EQUAL_EXPONENTS

FitRuns = Callable[[np.ndarray, np.ndarray, np.ndarray], Fit]
"""(N, D, loss) -> the law."""

_BEYOND_CHANCE = 1.96


class HeldOut(NamedTuple):
    """The largest runs predicted from the smaller."""

    num_left_out: int
    mean_error: float
    """Mean absolute relative error of their loss."""
    bias: float
    """Mean relative error, predicted less observed: above 0, the law is gloomy."""
    largest_used: float
    smallest_left_out: float
    """Compute, FLOPs."""


def leave_largest_out(
    fit_runs: FitRuns, num_params: Any, num_tokens: Any, loss: Any, *, flops: Any = None, share: float = 0.1
) -> HeldOut:
    """Error of the runs with the most compute, predicted by a law of all the others.

    At least ``share`` of the runs (and one) are left out, at most 2.5 times that: the cut is where compute jumps most
    there, so that a budget is left out whole. ``flops``: of each run; 6ND unless given.
    """
    n, d, loss_n = (np.asarray(x, np.float64) for x in (num_params, num_tokens, loss))
    flops_n = FLOPS_PER_PARAM_TOKEN * n * d if flops is None else np.asarray(flops, np.float64)
    order = np.argsort(flops_n, kind="stable")
    last = len(order) - max(math.ceil(share * len(order)), 1)
    first = max(len(order) - max(math.ceil(2.5 * share * len(order)), 1), 1)
    jumps = np.diff(np.log(flops_n[order]))[first - 1 : last]
    cut = first + int(jumps.argmax())
    used, left = order[:cut], order[cut:]
    error = fit_runs(n[used], d[used], loss_n[used]).predict(n[left], d[left]) / loss_n[left] - 1
    return HeldOut(
        len(left), float(np.abs(error).mean()), float(error.mean()), float(flops_n[used].max()),
        float(flops_n[left].min()),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Two laws of the same runs against each other."""

    first: str
    second: str
    better: str | None
    """The law that the runs speak for; None where they cannot tell."""
    why: str
    """The figure that says so."""
    apart_at: float
    """Largest relative difference of the two predictions at the sizes asked about; NaN where none were."""
    z: float | None = None
    """Vuong's statistic, where neither law is a case of the other: above 0, the first is nearer to the runs."""
    exponents_apart: tuple[float, float] | None = None
    """95 % of alpha - beta, where the other law has them equal."""

    def sentence(self) -> str:
        apart = "" if math.isnan(self.apart_at) else f"; ahead they differ by {100 * self.apart_at:.2g} % of the loss"
        if self.better is None:
            return f"these runs cannot tell {self.first} from {self.second} ({self.why}){apart}"
        other = self.second if self.better == self.first else self.first
        return f"these runs speak for {self.better} against {other} ({self.why}){apart}"


def preferred(first: str, verdicts: Sequence[Verdict]) -> str:
    """The law that the runs speak for: ``first``, where none of the others is better."""
    return next((one.better for one in verdicts if one.better is not None and one.better != first), first)


def tell_apart(first: Fit, second: Fit, ahead: Sequence[Any] = ()) -> Verdict:
    """Compares two laws of the same runs; ``ahead``: inputs at which their predictions are compared as well.

    Chinchilla's law with equal exponents is a case of that law: there the resamples of the free one decide, by whether
    the interval of alpha - beta holds 0. For others Vuong's test (1989) does, of the log-likelihood of each run's
    residual under absolute deviations, with the correction of his eq. 5.9 for the number of constants: for laws of
    which one holds the other its z is no normal number. Raises ValueError where resamples are needed and missing.
    """
    apart = math.nan
    if len(ahead):
        one, other = np.asarray(first.predict(*ahead)), np.asarray(second.predict(*ahead))
        apart = float(np.abs(one / other - 1).max())
    names = (first.form.name, second.form.name)
    if set(names) == {CHINCHILLA.name, EQUAL_EXPONENTS.name}:
        free = first if first.form.name == CHINCHILLA.name else second
        low, high = _exponents_apart(free)
        better = None if low <= 0 <= high else CHINCHILLA.name
        why = f"alpha - beta from {low:.3f} to {high:.3f}"
        return Verdict(*names, better, why, apart, exponents_apart=(low, high))
    z = _vuong(first, second)
    better = None if not abs(z) > _BEYOND_CHANCE else names[0] if z > 0 else names[1]
    return Verdict(*names, better, f"z = {z:.1f}", apart, z=z)


def _exponents_apart(free: Fit) -> tuple[float, float]:
    if len(free.draws_bp) < 2:
        raise ValueError("whether alpha and beta are equal is told by resamples: fit with resamples=1000")
    draws = free.draws
    return interval(draws["alpha"] - draws["beta"])


def _vuong(first: Fit, second: Fit) -> float:
    parts = []
    for fit in (first, second):
        apart_n = np.abs(fit.residual_n)
        size = max(float(apart_n.mean()), 1e-300)
        parts.append(-apart_n / size - math.log(2 * size))
    more = first.form.num_constants - second.form.num_constants
    num_runs = len(parts[0])
    gain_n = parts[0] - parts[1] - 0.5 * more * math.log(num_runs) / num_runs
    spread = float(gain_n.std())
    return float(gain_n.sum() / (math.sqrt(num_runs) * spread)) if spread > 0 else 0.0
