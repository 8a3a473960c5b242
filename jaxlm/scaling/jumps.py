"""Does a score jump between two rungs of a ladder, or is what looks like a jump a curve that is smooth in log size?

Two descriptions of scores over log10 of size are fitted by weighted least squares. Smooth: a logistic curve of any
place and of any width from the narrowest that the ladder can show; its tails are exponentials, its widest form is a
line. Jump: a line with a step, or a rise narrower than that. F is what the jump explains beyond the curve, in units of
what neither explains; the largest F over all places is compared with that of ladders drawn from the smooth curve itself
(a parametric bootstrap of the supremum test of Andrews 1993). Only a jump that makes up half of the rise counts.
"""

from typing import Any, NamedTuple

import numpy as np

LEAST_RUNGS = 6
LEVEL = 0.02
"""Of the bootstrap, which accuses smooth curves about twice as often as it says: their fit is too narrow."""
LEAST_SHARE = 0.5
"""Of the whole rise, that a jump must make up."""
_GAPS = 2.0
_SPAN = 1 / 8
"""The narrowest smooth rise takes two gaps between rungs, and an eighth of the ladder, for its middle 80 %."""
_TEN_TO_NINETY = 2 * np.log(9.0)
"""Of a logistic function, in units of its scale."""
_WIDTHS, _PLACES = 9, 25
_BESIDE = 2
"""Rungs on each side of a jump: one alone cannot be told from an outlier."""


class Jump(NamedTuple):
    """The best jump of a curve and what speaks for it."""

    found: bool
    """Whether the smooth curve is rejected, and the jump makes up enough of the rise."""
    p: float
    """Chance of so much gained by a jump, were the curve smooth."""
    share: float
    """Of the whole rise of the curve with the jump."""
    size: float
    """Where the jump is, halfway between rungs in log size."""
    between: tuple[float, float]
    """The rungs beside it."""
    smooth_width: float
    """Decades of size in which the best smooth curve makes the middle 80 % of its rise."""


class JumpTest:
    """The test for one ladder of sizes and errors: the fits of all curves are prepared once.

    Args:
      sizes: parameters, tokens or steps of each rung, rising [s].
      covariance_ss: of the scores' errors.
      level: of the test.
      draws: of the bootstrap.
      seed: of the draws.

    Raises:
      ValueError: for fewer than 6 rungs, or sizes that do not rise.
    """

    def __init__(self, sizes: Any, covariance_ss: np.ndarray, *, level: float = LEVEL, draws: int = 400, seed: int = 0):
        x = np.log10(np.asarray(sizes, np.float64))
        if len(x) < LEAST_RUNGS or (np.diff(x) <= 0).any():
            raise ValueError(f"{len(x)} rungs: a jump needs {LEAST_RUNGS} or more, of rising sizes")
        self.sizes, self.x_s, self.level = np.asarray(sizes, np.float64), x, level
        self.root_s = 1 / np.sqrt(np.diag(covariance_ss))
        self.least_width = max(_GAPS * float(np.median(np.diff(x))), _SPAN * float(x[-1] - x[0]))
        self.smooth, self.widths = self._smooth()
        self.jump, self.heights_gs, self.places = self._jumps()
        values, vectors = np.linalg.eigh(covariance_ss)
        normal_ds = np.random.default_rng(seed).standard_normal((draws, len(x)))
        self.noise_ds = normal_ds @ (vectors * np.sqrt(np.maximum(values, 0.0))).T

    def under_smooth(self, scores: Any) -> np.ndarray:
        """F of ladders drawn from the smooth curve that fits these scores best [d]: what F is, without a jump."""
        y_s = np.asarray(scores, np.float64)
        smooth_g, smooth_1 = self._squares(self.smooth, y_s[None])
        basis_sk = self.smooth[int(smooth_g[:, 0].argmin())]
        curve_s = basis_sk @ (basis_sk.T @ (y_s * self.root_s)) / self.root_s
        # Where the curve fits worse than the errors allow, models scatter: so do the drawn ones.
        scatter = np.sqrt(max(1.0, float(smooth_1[0]) / max(1, len(y_s) - 4)))
        drawn_ds = curve_s + scatter * self.noise_ds
        return self._gain(self._squares(self.smooth, drawn_ds)[1], self._squares(self.jump, drawn_ds)[1])

    def __call__(self, scores: Any, under_smooth: np.ndarray | None = None) -> Jump:
        """The verdict on scores [s], higher is better; ``under_smooth``: that of scores much like these."""
        y_s = np.asarray(scores, np.float64)
        under_chance = self.under_smooth(y_s) if under_smooth is None else under_smooth
        smooth_g, smooth_1 = self._squares(self.smooth, y_s[None])
        _, jump_1 = self._squares(self.jump, y_s[None])
        at = int(smooth_g[:, 0].argmin())
        gain = self._gain(smooth_1, jump_1)[0]
        p = float((1 + (under_chance >= gain).sum()) / (1 + len(under_chance)))
        share, place = self._best_jump(y_s)
        after = int(np.searchsorted(self.x_s, place))
        return Jump(
            found=p < self.level and share >= LEAST_SHARE,
            p=p,
            share=share,
            size=float(10**place),
            between=(float(self.sizes[after - 1]), float(self.sizes[after])),
            smooth_width=float(self.widths[at]),
        )

    def _best_jump(self, y_s: np.ndarray) -> tuple[float, float]:
        """(its share of the rise, its place) of the jump that fits best."""
        at = int(self._squares(self.jump, y_s[None])[0][:, 0].argmin())
        columns_sk = np.stack([np.ones_like(self.x_s), self.x_s, self.heights_gs[at]], axis=1)
        constants = np.linalg.lstsq(self.root_s[:, None] * columns_sk, self.root_s * y_s, rcond=None)[0]
        fitted = columns_sk @ constants
        rise = float(fitted[-1] - fitted[0])
        # A jump down, or in a curve that falls, is no emergence.
        return (float(constants[2]) / rise if rise > 0 else 0.0), float(self.places[at])

    def _gain(self, smooth: np.ndarray, jump: np.ndarray) -> np.ndarray:
        return (smooth - jump) / np.maximum(1.0, jump / max(1, len(self.x_s) - 5))

    def _squares(self, bases_gsk: np.ndarray, scores_ds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted squares about each fit [g, d], and the least of them [d]."""
        scaled_ds = scores_ds * self.root_s
        along_gkd = np.swapaxes(bases_gsk, 1, 2) @ scaled_ds.T
        squares_gd = (scaled_ds**2).sum(axis=1) - (along_gkd**2).sum(axis=1)
        return squares_gd, np.maximum(squares_gd.min(axis=0), 0.0)

    def _smooth(self) -> tuple[np.ndarray, np.ndarray]:
        x, span = self.x_s, float(self.x_s[-1] - self.x_s[0])
        shapes, widths = [x], [4 * span]
        for width in self.least_width * np.geomspace(1.0, max(2.0, 4 * span / self.least_width), _WIDTHS):
            for place in np.linspace(x[0] - width, x[-1] + width, _PLACES):
                shapes.append(_logistic(x, place, width))
                widths.append(width)
        return self._bases([[np.ones_like(x), shape] for shape in shapes]), np.array(widths)

    def _jumps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = self.x_s
        middles = (x[1:] + x[:-1]) / 2
        steps = [(float(place), (x > place).astype(np.float64)) for place in middles[_BESIDE - 1 : 1 - _BESIDE]]
        # A rise with one rung on its way up.
        places = [*middles[_BESIDE - 1 : 1 - _BESIDE], *(x[_BESIDE:-_BESIDE] + 1e-9)]
        steps += [(float(place), _logistic(x, place, self.least_width / 2)) for place in places]
        bases = self._bases([[np.ones_like(x), x, step] for _, step in steps])
        return bases, np.stack([step for _, step in steps]), np.array([place for place, _ in steps])

    def _bases(self, designs: list[list[np.ndarray]]) -> np.ndarray:
        """Orthonormal columns of each weighted design, [g, s, k]."""
        return np.linalg.qr(np.stack([np.stack(columns, axis=1) * self.root_s[:, None] for columns in designs]))[0]


def _logistic(x: np.ndarray, place: float, width: float) -> np.ndarray:
    # By tanh, which does not overflow.
    return 0.5 * (1 + np.tanh(0.5 * _TEN_TO_NINETY * (x - place) / width))
