"""Fitting a form: a grid of starts, then resamples from the best fit; what comes out knows its intervals."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.scaling.checks import BadRunError, check_runs
from jaxlm.scaling.forms import FORMS, Form
from jaxlm.scaling.minimise import Minima, Objective, minimise

Scale = Literal["fitted", "fixed"]
Error = Literal["log", "loss"]
LEVEL = 0.95
NO_FLOOR = 0.01
"""Share of the lowest loss below which an irreducible loss is none."""
_LEAST_EXPONENT = 1e-6
_LARGEST_ERROR = 0.05
"""Of the loss, on average over the runs: beyond it they follow no law."""
_POINTS = 64
"""The number of points is made a multiple of this."""
_KEPT = 32
"""Starts that are followed on where the scale is fitted."""
_FAR_BELOW, _SAME_TURN, _MOST_TURNS = 1e-3, 1e-6, 50
"""Of the residuals' size, below which a turn says nothing more; between two turns, relatively; turns that follow."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A law with its constants. Losses are in nats a token."""

    form: Form
    theta_p: np.ndarray
    draws_bp: np.ndarray
    """The constants of each resample."""
    residual_n: np.ndarray
    """log of the observed loss less that of the predicted."""
    embeddings: bool
    """Whether N counts embeddings."""
    converged: float = 1.0
    """Share of the resamples whose search ended at a minimum."""
    profile: Mapping[str, tuple[float, float]] | None = None
    """Intervals by profile likelihood, of a fit by least squares."""

    @property
    def constants(self) -> dict[str, float]:
        read = self.form.read(self.theta_p)
        return {name: float(read[name]) for name in self.form.names}

    @property
    def mean_error(self) -> float:
        """Of the loss, relative, on average over the runs."""
        return float(np.abs(np.expm1(self.residual_n)).mean())

    @property
    def draws(self) -> dict[str, np.ndarray]:
        """Each constant in every resample."""
        return dict(self.form.read(self.draws_bp))

    @property
    def standard_errors(self) -> dict[str, float]:
        """Standard deviation over resamples. ValueError where there are none."""
        self._check_draws()
        return {name: float(np.std(self.draws[name])) for name in self.form.names}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % of every constant: by profile likelihood where there is one, else the middle of the resamples."""
        if self.profile is not None:
            return dict(self.profile)
        self._check_draws()
        return {name: interval(self.draws[name]) for name in self.form.names}

    def predict(self, *inputs: Any) -> Any:
        """The loss at inputs in the order of ``form.inputs``: a float for numbers, else an array."""
        loss = self.form.predict(self.theta_p, *(np.asarray(x, np.float64) for x in inputs))
        return float(loss) if loss.ndim == 0 else loss

    def predict_interval(self, *inputs: Any, level: float = LEVEL, new_run: bool = False) -> tuple[Any, Any]:
        """The middle ``level`` of the resamples' predictions; with ``new_run`` that of one run's loss, which scatters
        around the law as the runs that it was fitted to do."""
        self._check_draws()
        draws = self.form.predict(self.draws_bp, *(np.asarray(x, np.float64) for x in inputs))
        if new_run:
            index = np.random.default_rng(0).integers(len(self.residual_n), size=len(draws))
            spread = np.sqrt(len(self.residual_n) / max(len(self.residual_n) - self.form.num_constants, 1))
            draws = draws * np.exp(spread * self.residual_n[index]).reshape(-1, *[1] * (draws.ndim - 1))
        return interval(draws, level)

    def _check_draws(self) -> None:
        if len(self.draws_bp) < 2:
            raise ValueError("this fit has no resamples to take intervals from: fit with resamples=1000")

    def as_json(self, num_draws: int = 1000) -> dict[str, Any]:
        """What `fit_from_json` reads back."""
        return {
            "form": self.form.name,
            "theta": self.theta_p.tolist(),
            "draws": np.round(self.draws_bp[:num_draws], 8).tolist(),
            "residuals": np.round(self.residual_n, 8).tolist(),
            "embeddings": self.embeddings,
        }


AnyFit = TypeVar("AnyFit", bound=Fit)


def check_followed(fit: Fit) -> None:
    """Raises ValueError where the runs do not follow the law, or do not tell a constant of it."""
    if fit.mean_error > _LARGEST_ERROR:
        raise ValueError(
            f"{fit.form.equation} is {100 * fit.mean_error:.1f} % off on average, where runs of one sweep follow it to "
            f"about 1: mixed units of N, D or loss, or runs that went wrong? Mend them or leave them out"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        errors = fit.standard_errors
    if unknown := [name for name in fit.form.names if not np.isfinite(errors[name])]:
        raise ValueError(
            f"these runs do not tell {', '.join(unknown)} of {fit.form.equation}: more values of N and D, or mend "
            "those that stand apart"
        )


def fit_from_json(kind: type[AnyFit], values: Mapping[str, Any]) -> AnyFit:
    """The fit that was written. Raises ValueError for what is none."""
    try:
        theta, draws, residuals = (np.asarray(values[key], np.float64) for key in ("theta", "draws", "residuals"))
        return kind(FORMS[values["form"]], theta, draws, residuals, bool(values["embeddings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this is no fit that experiments.scaling wrote: {error!r}") from None


def interval(draws: np.ndarray, level: float = LEVEL) -> tuple[Any, Any]:
    """The middle ``level`` along the first axis; floats where nothing else is left."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


@functools.cache
def _objective(form: Form, error: Error) -> Objective:
    def objective(theta: jax.Array, weight_n: jax.Array, shared: Any) -> jax.Array:
        x_kn, log_loss_n, delta = shared
        predicted_n = form.log_loss(theta, x_kn)
        if error == "log":
            apart_n = jnp.abs(predicted_n - log_loss_n)
        else:
            apart_n = jnp.abs(jnp.exp(predicted_n) - jnp.exp(log_loss_n))
        # In units of delta, so that far residuals count as themselves; without delta, squares.
        safe = jnp.where(delta > 0, delta, 1.0)
        huber_n = jnp.where(apart_n <= safe, 0.5 * apart_n**2 / safe, apart_n - 0.5 * safe)
        cost_n = jnp.where(delta > 0, huber_n, 0.5 * apart_n**2)
        return (weight_n * cost_n).sum() / weight_n.sum()

    return objective


def fit_form(
    form: Form,
    inputs: Mapping[str, np.ndarray],
    loss: np.ndarray,
    *,
    delta: float | None = 1e-3,
    scale: Scale = "fitted",
    error: Error = "log",
    resamples: int = 1000,
    seed: int = 0,
    embeddings: bool = True,
    kind: type[Fit] = Fit,
    starts_sp: np.ndarray | None = None,
    checked: bool = False,
    weights_bn: np.ndarray | None = None,
) -> Any:
    """Fits a form to runs.

    The error of a run is Huber's function of log loss, predicted less observed (Hoffmann et al. 2022, eq. 3).

    Args:
      form: the law.
      inputs: what varies, in the order of ``form.inputs``.
      loss: nats a token.
      delta: where Huber's function turns from squares to absolute values; None = least squares throughout.
      scale: "fixed": ``delta`` in units of log loss. "fitted": in units of the residuals' own scale, which is fitted
        with the rest (the likelihood of Besiroglu et al. 2024). At 1e-3 that is least absolute deviations. Only of
        ``error="log"``: with "loss" the scale is fixed whatever is asked, and ``delta`` is in nats.
      error: predicted less observed, in logarithms or in nats.
      resamples: of the runs, with replacement, for intervals; each search begins at the best fit. 0: no intervals.
      seed: of the resamples.
      embeddings: whether N counts embeddings.
      kind: the class of what comes out.
      starts_sp: where to begin in place of the form's grid of starts.
      checked: the runs were checked by the caller.
      weights_bn: how often each run stands in each resample, where they were drawn elsewhere; ``resamples`` and
        ``seed`` then say nothing.

    Raises:
      ValueError: for runs that no law can be read off, with what is missing.
    """
    if delta is not None and not 0 < delta < np.inf:
        raise ValueError(f"delta={delta} must be a number above 0: use 1e-3, or None for least squares")
    arrays = {name: np.asarray(values, np.float64) for name, values in inputs.items()}
    loss_n = np.asarray(loss, np.float64)
    if not checked:
        check_runs(arrays, loss_n, num_constants=form.num_constants)
    x_kn = np.log(np.stack([arrays[name] for name in form.inputs]))
    mean_k = x_kn.mean(axis=1)
    data = (x_kn - mean_k[:, None], np.log(loss_n))
    objective, ones_n = _objective(form, error), np.ones((1, len(loss_n)))

    def search(starts_bp: np.ndarray, weights_bn: np.ndarray, turn: float) -> Minima:
        # Points of weight 0 make the number of points one of few, and so the programs that are compiled.
        spare = -len(loss_n) % _POINTS
        padded = [np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, spare)]) for x in (weights_bn, *data)]
        return minimise(objective, starts_bp, padded[0], (*padded[1:], turn))

    starts_sp = form.starts() if starts_sp is None else starts_sp
    found = search(form.centred(starts_sp, mean_k), ones_n, _turn(delta))
    best_p = found.theta_bp[found.value_b.argmin()]
    turn = _turn(delta)
    if delta is not None and scale == "fitted" and error == "log":
        order = found.value_b.argsort()[:_KEPT]
        best_p, turn = _with_scale(
            lambda starts, turn: search(starts, ones_n, turn),
            lambda theta: np.abs(data[1] - form_log_loss(form, theta, data[0])),
            found.theta_bp[order],
            delta,
        )
    if not np.isfinite(best_p).all():
        raise ValueError(f"no start led to a fit of {form.equation}: look at the runs")
    _check_constants(form, best_p, loss_n)
    residual_n = data[1] - form_log_loss(form, best_p, data[0])

    draws_bp, converged = best_p[None], 1.0
    if weights_bn is None and resamples:
        weights_bn = resample_weights(len(loss_n), resamples, seed)
    if weights_bn is not None:
        drawn = [
            search(np.repeat(start_p[None], len(weights_bn), axis=0), weights_bn, turn)
            for start_p in resample_starts(form, best_p, loss_n)
        ]
        lowest_b = np.argmin([one.value_b for one in drawn], axis=0)
        draws_bp = np.choose(lowest_b[:, None], [one.theta_bp for one in drawn])
        converged = float(np.choose(lowest_b, [one.converged_b for one in drawn]).mean())
    best_p, draws_bp = (form.centred(theta, mean_k, -1.0) for theta in (best_p, draws_bp))
    return kind(form, best_p, draws_bp, residual_n, embeddings, converged)


def resample_starts(form: Form, best_p: np.ndarray, loss_n: np.ndarray) -> list[np.ndarray]:
    """Where the searches of other draws of the losses begin: at the best fit. Where that has next to no irreducible
    loss nothing falls with its logarithm, and no search would ever find one: then at half the lowest loss as well."""
    if form.floor is None or np.exp(best_p[form.floor]) > NO_FLOOR * loss_n.min():
        return [best_p]
    raised_p = best_p.copy()
    raised_p[form.floor] = np.log(loss_n.min() / 2)
    return [best_p, raised_p]


def _check_constants(form: Form, theta_p: np.ndarray, loss_n: np.ndarray) -> None:
    """Raises ValueError where the best fit is no law: a loss that does not fall, or lies below the irreducible one."""
    for _, exponent, feature in form.shifts:
        if not theta_p[exponent] > _LEAST_EXPONENT:
            raise ValueError(
                f"the loss does not fall with {form.inputs[feature]} (its exponent would be {theta_p[exponent]:.2g}): "
                f"no law {form.equation} can be read off these runs"
            )
    floor = float(form.read(theta_p).get("E", 0.0))
    if loss_n.min() < floor:
        at = int(loss_n.argmin())
        raise BadRunError(
            f"loss of {{}} is {loss_n[at]:.4g}, below the irreducible loss that the others give, {floor:.4g}: mend it "
            "or leave it out",
            at,
        )


def form_log_loss(form: Form, theta_p: np.ndarray, x_kn: np.ndarray) -> np.ndarray:
    """log loss at logarithms, without any centring."""
    return np.log(form.predict(theta_p, *np.exp(x_kn)))


def resample_weights(num_runs: int, resamples: int, seed: int) -> np.ndarray:
    """How often each run stands in each resample [b, n]."""
    return np.random.default_rng(seed).multinomial(num_runs, np.full(num_runs, 1 / num_runs), size=resamples) * 1.0


def _turn(delta: float | None) -> float:
    return -1.0 if delta is None else float(delta)


def _with_scale(
    search: Callable[[np.ndarray, float], Minima],
    apart: Callable[[np.ndarray], np.ndarray],
    theta_bp: np.ndarray,
    delta: float,
) -> tuple[np.ndarray, float]:
    """The fit with the scale fitted too, and a delta in log loss to resample with. ``apart``: theta -> the size of each
    run's residual.

    The turn in log loss is delta times the density's best scale. One far below the residuals is gone down to by factors
    of 10, as the last kinks stop a search from afar; where it lies among them the scale and the fit follow each other.
    """

    def best_turn() -> float:
        return max(delta * _best_scale(apart(theta_bp[0]), delta), 1e-300)

    size = float(apart(theta_bp[0]).mean())
    last = best_turn()
    turn = max(size / 10, last)
    while True:
        found = search(theta_bp, turn)
        theta_bp = found.theta_bp[found.value_b.argsort()]
        if turn <= last * 1.0001:
            break
        turn = max(turn / 10, last)
    for _ in range(_MOST_TURNS if last > _FAR_BELOW * size else 0):
        turn, last = last, best_turn()
        if abs(turn / last - 1) < _SAME_TURN:
            break
        found = search(theta_bp, last)
        theta_bp = found.theta_bp[found.value_b.argsort()]
    # Resamples turn where squares and absolute values still differ by little against their own scatter: the kinks would
    # cost time. With runs as noisy as Hoffmann's this is the delta that is given.
    return theta_bp[0], max(last, min(delta, size / 5))


def _best_scale(apart_n: np.ndarray, delta: float) -> float:
    """Where ``log s + mean of Huber's function of x / s`` is lowest: ``mean of min(x / s, delta) x / s`` is 1 there."""
    x_n = np.sort(apart_n)
    x_n = x_n[x_n > 0]
    squares_n, beyond_n = np.cumsum(x_n**2), x_n.sum() - np.cumsum(x_n)
    # At the scale whose turn is x the mean is delta^2 times this: falling with x, and so those above 1 lie within.
    within = int(((squares_n / x_n**2 + beyond_n / x_n) * delta**2 >= len(apart_n)).sum())
    square = squares_n[within - 1] if within else 0.0
    linear = delta * (beyond_n[within - 1] if within else x_n.sum())
    # n s^2 = linear s + square.
    count = len(apart_n)
    return float((linear + np.sqrt(linear**2 + 4 * count * square)) / (2 * count))
