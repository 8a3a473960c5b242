"""Does an ability come at once with size, or does it only look so under the metric? A verdict over a ladder of models.

Wei et al. (2022) call an ability emergent that small models lack and large ones have, past a point that the small ones
do not foretell. Schaeffer et al. (2023) show that exact match makes such a picture of any ability that grows smoothly:
of an answer of k tokens it is p^k. So every task is looked at twice, by its discontinuous metric (exact match,
accuracy) and by continuous ones (log-likelihood of the right answer, Brier's score, edit distance):

    flat      neither metric moves by more than its error
    inverse   larger models are worse, and nowhere better
    smooth    already the discontinuous metric grows smoothly in log size
    smooth once measured continuously
              the discontinuous one starts late or jumps; a continuous one does not jump, and grows already where the
              other is at its floor
    sharp     a jump, or a late start, under every continuous metric too (or where there is none)
    irregular it falls and rises

A curve starts late where it makes its first tenth of the rise only after a third of the ladder (in log size), three
rungs or more. Jumps are those of `scaling.jumps`, trends those of `scaling.size_trend`. How firm the verdict is: the
share of resamples (of the items, or of the scores within their errors) that end in the same one.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxlm.scaling.jumps import LEAST_RUNGS, Jump, JumpTest
from jaxlm.scaling.size_trend import SizeTrend, rising_fit, size_trend

Verdict = Literal["sharp", "smooth once measured continuously", "smooth", "flat", "inverse", "irregular"]
MOST_RUNGS = 64
LATE_RISE, LATE_SPAN, LATE_RUNGS = 0.1, 1 / 3, 3
EARLY_SHARE = 0.25
"""Of its even share of the rise, that a continuous metric must have made where the other is at its floor."""
_TREND_DRAWS, _RESAMPLED_TREND_DRAWS = 2000, 400


class Scores(NamedTuple):
    """One metric over the ladder; a higher score is better."""

    values: np.ndarray
    """[s]."""
    errors: np.ndarray
    """Standard errors [s], or their covariance [s, s] where all models were asked the same items."""


class Curve(NamedTuple):
    """What one metric says."""

    trend: SizeTrend
    jump: Jump
    floor: int
    """Rungs from the smallest on that have made less than a tenth of the rise; 0 where it does not rise."""
    late: bool
    """Whether they are a third of the ladder."""

    @property
    def sudden(self) -> bool:
        """Whether the curve looks like emergence."""
        return self.jump.found or self.late


class Emergence(NamedTuple):
    """The verdict on one task."""

    verdict: Verdict
    discontinuous: Curve
    continuous: dict[str, Curve]
    stability: float | None
    """Share of resamples with the same verdict; None without resamples."""
    verdicts: dict[str, float]
    """Share of resamples with each verdict."""
    place: tuple[float, float] | None
    """Where the jump lies or the rise begins, 95 % of the resamples that have one; None where few have."""


def emergence(
    sizes: Any, discontinuous: Scores, continuous: Mapping[str, Scores], *, scatter: float = 0.0,
    resamples: int = 200, seed: int = 0,
) -> Emergence:  # fmt: skip
    """The verdict from scores with their errors; resamples draw scores anew within them.

    Args:
      sizes: parameters, tokens or steps of each rung, in any order, each once [s]; 6 to 64 of them.
      discontinuous: exact match, accuracy.
      continuous: by name; may be empty, then a sudden curve is "sharp" as far as it was measured.
      scatter: of models of one size, as a share of each metric's range, added to the errors.
      resamples: 0 for the verdict alone.
      seed: of all draws.

    Raises:
      ValueError: for too few or too many rungs, or numbers that are none (see `size_trend`).
    """
    order = np.argsort(np.asarray(sizes, np.float64))
    size_s = np.asarray(sizes, np.float64)[order]
    metrics = {
        name: _widened(Scores(np.asarray(one.values, np.float64)[order], _covariance(one.errors)[np.ix_(order, order)]),
                       scatter)
        for name, one in {"": discontinuous, **continuous}.items()
    }  # fmt: skip
    judge = _Judge(size_s, {name: one.errors for name, one in metrics.items()}, seed, _TREND_DRAWS)
    rng = np.random.default_rng((seed, 1))

    def resample() -> dict[str, np.ndarray]:
        return {name: rng.multivariate_normal(one.values, one.errors) for name, one in metrics.items()}

    values = {name: one.values for name, one in metrics.items()}
    return _with_resamples(judge, values, [resample() for _ in range(resamples)])


def emergence_of_items(
    sizes: Any, discontinuous_si: Any, continuous: Mapping[str, Any], *, scatter: float = 0.0,
    resamples: int = 200, seed: int = 0,
) -> Emergence:  # fmt: skip
    """The same from scores of each rung and item [s, i]; the same items throughout, and resamples draw items."""
    order = np.argsort(np.asarray(sizes, np.float64))
    size_s = np.asarray(sizes, np.float64)[order]
    items = {name: np.asarray(one, np.float64)[order] for name, one in {"": discontinuous_si, **continuous}.items()}
    shape = items[""].shape
    if len(shape) != 2 or any(one.shape != shape for one in items.values()) or shape[1] <= shape[0]:
        raise ValueError(f"scores of shape {shape}: [rungs, items] for every metric, and more items than rungs")
    metrics = {name: _widened(Scores(one.mean(axis=1), _item_covariance(one)), scatter) for name, one in items.items()}
    judge = _Judge(size_s, {name: one.errors for name, one in metrics.items()}, seed, _TREND_DRAWS)
    rng = np.random.default_rng((seed, 1))
    drawn = [rng.integers(shape[1], size=shape[1]) for _ in range(resamples)]
    return _with_resamples(
        judge,
        {name: one.values for name, one in metrics.items()},
        [{name: one[:, places].mean(axis=1) for name, one in items.items()} for places in drawn],
    )


def share_errors(shares: Any, num_items: Any) -> np.ndarray:
    """Standard errors of shares of right items, above 0 even where none or all are right: one right and one wrong item
    are counted beside those that were asked (Agresti and Coull 1998 add two of each)."""
    p, n = np.asarray(shares, np.float64), np.asarray(num_items, np.float64)
    padded = (p * n + 1) / (n + 2)
    return np.sqrt(padded * (1 - padded) / (n + 2))


class _Judge:
    """Verdicts on one ladder; tests are prepared once for all resamples."""

    def __init__(self, size_s: np.ndarray, covariances: Mapping[str, np.ndarray], seed: int, draws: int):
        if not LEAST_RUNGS <= len(size_s) <= MOST_RUNGS:
            raise ValueError(
                f"{len(size_s)} rungs: a verdict needs {LEAST_RUNGS} to {MOST_RUNGS} (of more, average neighbours)"
            )
        if not (size_s > 0).all() or (np.diff(size_s) <= 0).any():
            raise ValueError("sizes must be above 0, each once: pool models of one size first")
        self.size_s, self.x_s, self.covariances, self.seed = size_s, np.log10(size_s), dict(covariances), seed
        self.draws = draws
        # One task, several metrics: each has its part of the 5 %.
        self.level = 1 - 0.05 / len(covariances)
        self.jumps = {name: JumpTest(size_s, one, seed=seed) for name, one in covariances.items()}
        self.under_smooth: dict[str, np.ndarray] = {}

    def for_resamples(self, values: Mapping[str, np.ndarray]) -> "_Judge":
        """A judge of resamples, which have the error of the scores and that of the drawing; jumps are tested against
        the chance of the scores' own smooth curve, from which they differ little."""
        doubled = {name: 2 * covariance for name, covariance in self.covariances.items()}
        judge = _Judge(self.size_s, doubled, self.seed, _RESAMPLED_TREND_DRAWS)
        judge.under_smooth = {name: judge.jumps[name].under_smooth(one) for name, one in values.items()}
        return judge

    def __call__(self, values: Mapping[str, np.ndarray]) -> tuple[Verdict, dict[str, Curve]]:
        curves = {name: self.curve(name, one) for name, one in values.items()}
        return self.verdict(values, curves), curves

    def curve(self, name: str, value_s: np.ndarray) -> Curve:
        """What one metric says."""
        trend = self.trend(name, value_s, slice(None))
        rising = rising_fit(value_s, 1 / np.diag(self.covariances[name]))
        floor = 0
        if trend.shape == "rises":
            floor = int((rising < rising[0] + LATE_RISE * (rising[-1] - rising[0])).sum())
        covered = self.x_s[floor - 1] - self.x_s[0] if floor else 0.0
        late = floor >= LATE_RUNGS and covered >= LATE_SPAN * (self.x_s[-1] - self.x_s[0])
        return Curve(trend, self.jumps[name](value_s, self.under_smooth.get(name)), floor, bool(late))

    def trend(self, name: str, value_s: np.ndarray, part: slice) -> SizeTrend:
        """Of all rungs or some."""
        return size_trend(
            self.size_s[part],
            value_s[part],
            self.covariances[name][part, part],
            level=self.level,
            draws=self.draws,
            seed=self.seed,
        )

    def verdict(self, values: Mapping[str, np.ndarray], curves: Mapping[str, Curve]) -> Verdict:
        """See the module."""
        main = curves[""]
        others = {name: curve for name, curve in curves.items() if name}
        shapes = [curve.trend.shape for curve in curves.values()]
        # Where the discontinuous metric says nothing (all at chance), the continuous ones may.
        leading = next((shape for shape in shapes if shape != "no trend"), "no trend")
        if leading == "no trend":
            return "flat"
        if leading == "falls":
            return "inverse"
        if leading != "rises":
            return "irregular"
        jumps = [curve.jump.found for curve in others.values()]
        if not main.sudden and main.trend.shape == "rises":
            return "sharp" if jumps and all(jumps) else "smooth"
        floor = main.floor if main.floor else len(self.size_s)
        continuous = [
            not curve.jump.found and self.grows_early(name, values[name], floor) for name, curve in others.items()
        ]
        return "smooth once measured continuously" if any(continuous) else "sharp"

    def grows_early(self, name: str, value_s: np.ndarray, floor: int) -> bool:
        """Whether a continuous metric rises over the first rungs, and by a good part of what an even rise would be."""
        part = slice(0, max(floor, LATE_RUNGS))
        rising = rising_fit(value_s, 1 / np.diag(self.covariances[name]))
        whole, span = float(rising[-1] - rising[0]), float(self.x_s[-1] - self.x_s[0])
        if whole <= 0:
            return False
        x_part = self.x_s[part]
        share = float(rising[part][-1] - rising[0]) / whole
        even = float(x_part[-1] - x_part[0]) / span
        return share >= EARLY_SHARE * even and self.trend(name, value_s, part).shape == "rises"


def _with_resamples(
    judge: _Judge, values: Mapping[str, np.ndarray], resampled: list[dict[str, np.ndarray]]
) -> Emergence:
    verdict, curves = judge(values)
    of_resamples = judge.for_resamples(values)
    said: Counter[str] = Counter()
    places = []
    for one in resampled:
        other, its_curves = of_resamples(one)
        said[other] += 1
        main = its_curves[""]
        if main.jump.found:
            places.append(main.jump.size)
        elif main.late:
            places.append(float(judge.size_s[main.floor - 1]))
    ends = np.quantile(places, [0.025, 0.975]) if len(places) > len(resampled) / 2 else None
    return Emergence(
        verdict,
        curves[""],
        {name: curve for name, curve in curves.items() if name},
        said[verdict] / len(resampled) if resampled else None,
        {name: count / len(resampled) for name, count in said.most_common()},
        None if ends is None else (float(ends[0]), float(ends[1])),
    )


def _covariance(errors: Any) -> np.ndarray:
    errors = np.asarray(errors, np.float64)
    return np.diag(errors**2) if errors.ndim == 1 else errors


def _item_covariance(scores_si: np.ndarray) -> np.ndarray:
    """Of the means; where all items of a rung are alike, one that differs is allowed for."""
    n = scores_si.shape[1]
    covariance_ss = np.cov(scores_si) / n
    least = (float(np.ptp(scores_si)) / n) ** 2 or 1e-12
    return covariance_ss + np.diag(np.maximum(least - np.diag(covariance_ss), 0.0))


def _widened(scores: Scores, scatter: float) -> Scores:
    extra = (scatter * float(np.ptp(scores.values))) ** 2
    return Scores(scores.values, scores.errors + extra * np.eye(len(scores.values)))
