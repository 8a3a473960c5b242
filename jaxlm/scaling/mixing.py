"""Loss by domain as a law of the mixture, fitted on small runs, and the mixture that it calls best.

With shares p_s of the training tokens, the loss on held-out text of domain d is taken to be

    L_d(p) = c_d + exp(sum_s t_ds p_s)

the data mixing law of Ye et al. (2024, eq. 6; their factor k_d is in the t, as the shares sum to 1), or with c = 0 the
log-linear form. Both are convex in p, so the best mixture is one, and a local search finds it. Which of the two is used
is decided by leave-one-out: each run is predicted from the others.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

LawKind = Literal["log-linear", "mixing law"]

_FLOORS = 48
"""Values of c that are tried for each domain; given c the fit is linear."""


class MixingLaw(NamedTuple):
    """A fitted law of d domains and s sources."""

    kind: LawKind
    floor_d: np.ndarray
    slope_ds: np.ndarray

    def predict(self, share_ms: np.ndarray) -> np.ndarray:
        """Losses [m, d] of mixtures [m, s]."""
        return self.floor_d + np.exp(np.asarray(share_ms, np.float64) @ self.slope_ds.T)


def num_needed(num_sources: int, kind: LawKind) -> int:
    """Mixtures that a fit needs at least, with one more left out."""
    return num_sources + (kind == "mixing law") + 1


def fit_mixing(share_ms: np.ndarray, loss_md: np.ndarray, kind: LawKind) -> MixingLaw:
    """Least squares in the loss, by domain. Raises ValueError for another kind, or losses that are not above 0."""
    share_ms, loss_md = np.asarray(share_ms, np.float64), np.asarray(loss_md, np.float64)
    if kind not in get_args(LawKind):
        raise ValueError(f"kind={kind!r} is none of {', '.join(get_args(LawKind))}")
    if not (loss_md > 0).all():
        raise ValueError("a loss is not above 0")
    fits = [_fit_domain(share_ms, loss_m, kind) for loss_m in loss_md.T]
    return MixingLaw(kind, np.array([floor for floor, _ in fits]), np.stack([slope_s for _, slope_s in fits]))


def _fit_domain(share_ms: np.ndarray, loss_m: np.ndarray, kind: LawKind) -> tuple[float, np.ndarray]:
    best = (np.inf, 0.0, np.zeros(share_ms.shape[1]))
    floors = [0.0] if kind == "log-linear" else np.linspace(0.0, 0.99, _FLOORS) * loss_m.min()
    for floor in floors:
        above_m = loss_m - floor
        # An error in log(L - c) is one of L divided by L - c: weighted by that, it is the error of the loss.
        slope_s = np.linalg.lstsq(share_ms * above_m[:, None], np.log(above_m) * above_m, rcond=None)[0]
        error = float(np.square(floor + np.exp(share_ms @ slope_s) - loss_m).sum())
        if error < best[0]:
            best = (error, float(floor), slope_s)
    return best[1], best[2]


def leave_one_out(share_ms: np.ndarray, loss_md: np.ndarray, kind: LawKind) -> np.ndarray:
    """Relative error [m, d] of each run's loss, predicted by the law of the others."""
    share_ms, loss_md = np.asarray(share_ms, np.float64), np.asarray(loss_md, np.float64)
    errors = []
    for left in range(len(share_ms)):
        others = np.arange(len(share_ms)) != left
        law = fit_mixing(share_ms[others], loss_md[others], kind)
        errors.append(law.predict(share_ms[left : left + 1])[0] / loss_md[left] - 1)
    return np.array(errors)


class Choice(NamedTuple):
    """The law that predicts left-out runs better."""

    law: MixingLaw
    errors: dict[LawKind, float]
    """Mean absolute relative error of leave-one-out, of each kind that the runs suffice for."""


def choose_law(share_ms: np.ndarray, loss_md: np.ndarray) -> Choice:
    """Fits both kinds and takes the one with the smaller error. Raises ValueError for too few runs."""
    kinds: Sequence[LawKind] = get_args(LawKind)
    num_runs, num_sources = np.shape(share_ms)
    errors = {
        kind: float(np.abs(leave_one_out(share_ms, loss_md, kind)).mean())
        for kind in kinds
        if num_runs >= num_needed(num_sources, kind)
    }
    if not errors:
        raise ValueError(
            f"{num_runs} mixtures of {num_sources} sources: a law needs {num_needed(num_sources, kinds[0])}"
        )
    kind = min(errors, key=lambda one: errors[one])
    return Choice(fit_mixing(share_ms, loss_md, kind), errors)


def best_mixture(law: MixingLaw, weight_d: np.ndarray) -> np.ndarray:
    """The shares [s] of the lowest ``sum_d weight_d L_d``, rounded to 0.001."""
    from scipy import optimize

    num_sources = law.slope_ds.shape[1]

    def loss(share_s: np.ndarray) -> tuple[float, np.ndarray]:
        part_d = weight_d * np.exp(law.slope_ds @ share_s)
        return float(part_d.sum()), part_d @ law.slope_ds

    found = optimize.minimize(
        loss,
        np.full(num_sources, 1 / num_sources),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * num_sources,
        constraints=[{"type": "eq", "fun": lambda share_s: share_s.sum() - 1.0, "jac": np.ones_like}],
        options={"maxiter": 500, "ftol": 1e-12},
    )
    share_s = np.round(np.clip(found.x, 0.0, 1.0), 3)
    share_s[share_s.argmax()] += 1.0 - share_s.sum()
    return np.round(share_s, 3)


def design_mixtures(num_sources: int, count: int, *, seed: int) -> np.ndarray:
    """``count`` mixtures [count, s] that tell a law apart: all alike, then mostly one source each, then drawn evenly.

    Each source has some part in each, so that no loss is that of a domain never seen. Raises ValueError for fewer than
    one more than there are sources.
    """
    if count < num_sources + 1:
        raise ValueError(f"{count} mixtures of {num_sources} sources: use at least {num_sources + 1}")
    even = np.full((1, num_sources), 1 / num_sources)
    corners = 0.25 / num_sources + 0.75 * np.eye(num_sources)
    drawn = np.random.default_rng(seed).dirichlet(np.ones(num_sources), count - 1 - num_sources)
    return np.round(np.concatenate([even, corners, 0.1 / num_sources + 0.9 * drawn]), 4)
