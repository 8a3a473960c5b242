"""Does a score rise with size, fall (inverse scaling), or turn? Tests over a ladder of models.

No curve is assumed but that errors are normal. "Never falls" is tested by the distance of the scores from the nearest
rising sequence (isotonic regression), against its distribution where all scores are one: the worst case of that
hypothesis (Robertson, Wright and Dykstra 1988, ch. 2). "Never rises" likewise. A fall alone is inverse scaling
(McKenzie et al. 2023); both at once are a U or its inverse (Wei et al. 2022), which a slope alone cannot tell.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxlm.scaling.checks import distinct

Shape = Literal["rises", "falls", "U", "inverted U", "irregular", "no trend"]
_LEAST_SIZES = 3
_DRAWS = 20_000


class SizeTrend(NamedTuple):
    """What a ladder of scores says; a higher score is better."""

    shape: Shape
    """"falls" is inverse scaling. "irregular": it falls and rises, and no single turn accounts for it."""
    slope: float
    """Score gained by a tenfold size: weighted least squares of score on log10 of size."""
    interval: tuple[float, float]
    """95 % of the slope, from the errors of the scores; it does not know that the curve is no line (see ``misfit``)."""
    misfit: float
    """Squares about the line over their expectation: far above 1, the slope is a summary and no law."""
    p_never_falls: float
    """Chance of scores as far from every rising sequence, were all equal."""
    p_never_rises: float
    turn: float | None
    """The size at the bottom of a U or the top of its inverse."""

    @property
    def inverse(self) -> bool:
        """Whether larger models are worse: a fall without a rise, and a slope whose interval lies below 0."""
        return self.shape == "falls" and bool(self.interval[1] < 0)


class SeedErrors(NamedTuple):
    """The part of the errors that models of one size told: it is itself known from few of them."""

    errors: np.ndarray
    """Standard errors [s] of the means."""
    spare: int
    """Degrees of freedom of the one deviation that they come of."""


def size_trend(
    sizes: Any, scores: Any, errors: Any, *, level: float = 0.95, scatter: float = 0.0,
    seed_errors: SeedErrors | None = None, draws: int = _DRAWS, seed: int = 0,
) -> SizeTrend:  # fmt: skip
    """The trend of one score a size.

    Args:
      sizes: parameters (or compute) of each model [s], at least 3 of them, each once.
      scores: higher is better [s].
      errors: standard errors of the scores [s], or their covariance [s, s] where the same questions were asked.
      level: of the interval; each of the two tests has half of what is left.
      scatter: standard deviation from model to model of one size (another seed, another checkpoint), added to the
        errors. Without it a curve that is jagged for that reason is taken at its word.
      seed_errors: what of ``errors`` was found from several models of a size (:func:`pool_seeds`): it has Student's
        distribution, not the normal one.
      draws: of the tests' distribution: no p is below 1 / (1 + draws).
      seed: of the draws.

    Raises:
      ValueError: for fewer than 3 sizes, a size given twice, scores that are no numbers, errors that are not above 0.
    """
    size_s, score_s = np.asarray(sizes, np.float64), np.asarray(scores, np.float64)
    covariance_ss = _covariance(np.asarray(errors, np.float64), scatter)
    _check(size_s, score_s, covariance_ss)
    order = np.argsort(size_s)
    size_s, score_s, covariance_ss = size_s[order], score_s[order], covariance_ss[np.ix_(order, order)]
    weight_s = 1 / np.diag(covariance_ss)

    x_s = np.log10(size_s) - np.average(np.log10(size_s), weights=weight_s)
    gain_s = weight_s * x_s / (weight_s * x_s**2).sum()
    slope = float(gain_s @ score_s)
    variance = float(gain_s @ covariance_ss @ gain_s)
    found = None if seed_errors is None else (float(gain_s**2 @ seed_errors.errors[order] ** 2), seed_errors.spare)
    reach = float(_quantile(0.5 + level / 2, variance, found)) * np.sqrt(variance)
    apart_s = score_s - np.average(score_s, weights=weight_s) - slope * x_s

    noise_ds = _noise(covariance_ss, seed_errors, order, draws, seed)
    p_never_falls = _tail(_from_rising(score_s, weight_s), _from_rising(noise_ds, weight_s))
    p_never_rises = _tail(_from_rising(-score_s, weight_s), _from_rising(-noise_ds, weight_s))
    limit = (1 - level) / 2
    falls, rises = p_never_falls < limit, p_never_rises < limit
    shape: Shape = "falls" if falls else "rises" if rises else "no trend"
    turn = None
    if falls and rises:
        shape, turn = _turning(size_s, score_s, weight_s, noise_ds, limit)
    misfit = float((weight_s * apart_s**2).sum()) / (len(size_s) - 2)
    return SizeTrend(shape, slope, (slope - reach, slope + reach), misfit, p_never_falls, p_never_rises, turn)


def size_trend_of_items(
    sizes: Any, scores_si: Any, *, level: float = 0.95, scatter: float = 0.0, draws: int = _DRAWS, seed: int = 0
) -> SizeTrend:
    """The same of one score for each model and question [s, i]: questions are what varies, the same for all models, so
    that what is hard for all cancels. Raises ValueError for fewer questions than models, or scores that never vary."""
    scores_si = np.asarray(scores_si, np.float64)
    if scores_si.ndim != 2 or scores_si.shape[1] <= scores_si.shape[0]:
        raise ValueError(f"scores have shape {scores_si.shape}: [models, questions], and more questions than models")
    covariance_ss = np.cov(scores_si) / scores_si.shape[1]
    return size_trend(
        sizes, scores_si.mean(axis=1), covariance_ss, level=level, scatter=scatter, draws=draws, seed=seed
    )  # fmt: skip


class Ladder(NamedTuple):
    """One score a size."""

    sizes: np.ndarray
    scores: np.ndarray
    errors: np.ndarray
    """Standard errors, what models of one size differ by in them."""
    scatter: float | None
    """Standard deviation between models of one size; None where each size stands once."""
    seed_errors: SeedErrors | None
    """What of the errors is due to that; None likewise."""

    def half_widths(self, level: float = 0.95) -> np.ndarray:
        """Of the interval of each score."""
        variance_s = self.errors**2
        found = None if self.seed_errors is None else (self.seed_errors.errors**2, self.seed_errors.spare)
        return _quantile(0.5 + level / 2, variance_s, found) * self.errors


def pool_seeds(sizes: Any, scores: Any, errors: Any) -> Ladder:
    """Models of one size (seeds, late checkpoints) as their mean. What they differ by, over all sizes together, is
    added to the errors of the scores, which do not fall with the number of models: the questions are the same."""
    size_n, score_n, error_n = (np.asarray(x, np.float64) for x in (sizes, scores, errors))
    if (error_n < 0).any():
        raise ValueError("a standard error is below 0")
    size_s, back_n, count_s = np.unique(size_n, return_inverse=True, return_counts=True)
    mean_s, error_s = (np.bincount(back_n, weights=x) / count_s for x in (score_n, error_n))
    spare = len(size_n) - len(size_s)
    if not spare:
        return Ladder(size_s, mean_s, error_s, None, None)
    variance = float(((score_n - mean_s[back_n]) ** 2).sum()) / spare
    seed_errors = SeedErrors(np.sqrt(variance / count_s), spare)
    return Ladder(size_s, mean_s, np.sqrt(error_s**2 + seed_errors.errors**2), float(np.sqrt(variance)), seed_errors)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusted for their number (Holm 1979): one below 0.05 is a finding though so many were looked at."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def rising_fit(scores_ds: Any, weight_s: Any) -> np.ndarray:
    """The nearest sequence that never falls, by weighted squares: isotonic regression of each row."""
    scores_ds, weight_s = np.asarray(scores_ds, np.float64), np.asarray(weight_s, np.float64)
    sums = np.concatenate([np.zeros_like(scores_ds[..., :1]), np.cumsum(scores_ds * weight_s, axis=-1)], axis=-1)
    weights = np.concatenate([[0.0], np.cumsum(weight_s)])
    fit = np.full_like(scores_ds, -np.inf)
    for a in range(len(weight_s)):
        # The min-max formula: of the means of all stretches from a <= i to b >= i.
        means = (sums[..., a + 1 :] - sums[..., a : a + 1]) / (weights[a + 1 :] - weights[a])
        least = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        fit[..., a:] = np.maximum(fit[..., a:], least)
    return fit


def _from_rising(scores_ds: np.ndarray, weight_s: np.ndarray) -> np.ndarray:
    return (weight_s * (scores_ds - rising_fit(scores_ds, weight_s)) ** 2).sum(axis=-1)


def _turning(
    size_s: np.ndarray, score_s: np.ndarray, weight_s: np.ndarray, noise_ds: np.ndarray, limit: float
) -> tuple[Shape, float | None]:
    """Which of the two turns is nearer, and whether it is near enough."""
    found: list[tuple[float, Shape, float]] = []
    for sign, shape in ((1.0, "U"), (-1.0, "inverted U")):
        for at in range(1, len(size_s) - 1):
            distance = float(_from_valley(sign * score_s, weight_s, at))
            found.append((distance, shape, float(size_s[at])))  # pyright: ignore[reportArgumentType]
    distance, shape, turn = min(found, key=lambda one: one[0])
    at = int(np.searchsorted(size_s, turn))
    sign = 1.0 if shape == "U" else -1.0
    p = _tail(np.asarray(distance), _from_valley(sign * noise_ds, weight_s, at))
    return (shape, turn) if p >= limit else ("irregular", None)


def _from_valley(scores_ds: np.ndarray, weight_s: np.ndarray, at: int) -> np.ndarray:
    left, right = slice(None, at), slice(at, None)
    falling = _from_rising(-scores_ds[..., left], weight_s[left])
    return falling + _from_rising(scores_ds[..., right], weight_s[right])


def _tail(observed: np.ndarray, under_chance_d: np.ndarray) -> float:
    # The allowance: a sequence that is its own nearest one has a distance of rounding errors.
    return float((1 + (under_chance_d >= observed - 1e-12).sum()) / (1 + len(under_chance_d)))


def _noise(
    covariance_ss: np.ndarray, seed_errors: SeedErrors | None, order: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """Draws of the scores' errors, the part that seeds told over a deviation that is drawn as well."""
    rng = np.random.default_rng(seed)
    seed_s = np.zeros(len(order)) if seed_errors is None else seed_errors.errors[order]
    values, vectors = np.linalg.eigh(covariance_ss - np.diag(seed_s**2))
    root_ss = vectors * np.sqrt(np.maximum(values, 0.0))
    noise_ds = rng.standard_normal((draws, len(values))) @ root_ss.T
    if seed_errors is None:
        return noise_ds
    times_d = np.sqrt(seed_errors.spare / rng.chisquare(seed_errors.spare, draws))
    return noise_ds + times_d[:, None] * seed_s * rng.standard_normal((draws, len(values)))


def _covariance(errors: np.ndarray, scatter: float) -> np.ndarray:
    covariance_ss = np.diag(errors**2) if errors.ndim == 1 else errors
    if covariance_ss.ndim != 2 or covariance_ss.shape[0] != covariance_ss.shape[1]:
        raise ValueError(f"errors have shape {errors.shape}: one of each model, or a covariance of all")
    return covariance_ss + scatter**2 * np.eye(len(covariance_ss))


def _check(size_s: np.ndarray, score_s: np.ndarray, covariance_ss: np.ndarray) -> None:
    if not (len(size_s) == len(score_s) == len(covariance_ss)):
        raise ValueError(
            f"{len(size_s)} sizes, {len(score_s)} scores, {len(covariance_ss)} errors: one of each a model"
        )
    if not (np.isfinite(size_s) & (size_s > 0)).all():
        raise ValueError("sizes must be numbers above 0")
    if not np.isfinite(score_s).all() or not np.isfinite(covariance_ss).all():
        raise ValueError("scores and errors must be numbers, and not NaN: leave the model out")
    if not (np.diag(covariance_ss) > 0).all():
        raise ValueError("errors must be above 0: of accuracy p over i questions sqrt(p (1 - p) / (i - 1))")
    if len(size_s) < _LEAST_SIZES or distinct(size_s) < len(size_s):
        raise ValueError(f"needs at least {_LEAST_SIZES} sizes, each once, and there are {len(size_s)} models")


def _quantile(level: float, variance: Any, found: tuple[Any, int] | None) -> Any:
    """Of a sum of normal errors of ``variance`` in all, of which ``found`` (variance, degrees of freedom) was
    estimated: Student's, with the degrees of Satterthwaite (1946)."""
    from scipy import stats

    if found is None:
        return stats.norm.ppf(level)
    part, spare = np.asarray(found[0]) / variance, found[1]
    with np.errstate(divide="ignore"):
        degrees = np.minimum(spare / part**2, 1e9)
    return stats.t.ppf(level, degrees)
