"""Published laws, as their authors print them, for plans where there are no runs of one's own."""

import functools
from typing import NamedTuple

import numpy as np

from jaxlm.scaling.chinchilla import ChinchillaFit
from jaxlm.scaling.forms import CHINCHILLA

HOFFMANN = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
"""Hoffmann et al. (2022, eq. 10), rounded. Their approach 3; no intervals that others could confirm."""
HOFFMANN_UNROUNDED = {
    "E": float(np.exp(0.5267228)),
    "A": float(np.exp(6.0073404)),
    "B": float(np.exp(6.0179186)),
    "alpha": 0.33917084,
    "beta": 0.2849083,
}
"""The same with the digits in the source of their paper (Besiroglu et al. 2024)."""
BESIROGLU = {"E": 1.81686, "A": 482.01, "B": 2085.43, "alpha": 0.34781, "beta": 0.36585}
"""Besiroglu et al. (2024): the law fitted again to the runs of Hoffmann's figure 4; see `besiroglu`."""

_MEAN_LOGS = np.array([20.559282582879277, 23.553231356058667])
"""Means of log N and log D of those runs."""
_MEAN = np.array([-0.9728301, -0.9743145, 0.597112, 0.347813, 0.3658542])
"""log A - alpha times the mean of log N, log B - beta times that of log D, log E, alpha, beta: our own fit to
those runs, which is Besiroglu's to five figures."""
_ROOT = np.array(
    [
        [0.057958, 0.0, 0.0, 0.0, 0.0],
        [-0.023502, 0.060026, 0.0, 0.0, 0.0],
        [-0.007483, -0.011593, 0.0011, 0.0, 0.0],
        [-0.014775, -0.000826, -0.000259, 0.002266, 0.0],
        [0.006445, -0.019008, -0.001287, -0.001684, 0.002503],
    ]
)
"""Cholesky root of their covariance over 4,000 resamples of the runs (seed 0). All three are as
``python -m tools.published_laws`` prints them ("spread")."""
_NUM_DRAWS = 2000


PERCENTILES = (10, 90)
"""Of their resamples, between which Hoffmann et al. print an exponent (table 2)."""


class Anchored(NamedTuple):
    """A power law of the best size known by one point and its exponents: N = N_0 (C / C_0)^a, D likewise."""

    num_params: float
    num_tokens: float
    flops: float
    exponent_n: float
    exponent_d: float
    interval_n: tuple[float, float]
    """Of the exponent, between `PERCENTILES`."""

    def at(self, flops: float) -> tuple[float, float]:
        times = flops / self.flops
        return self.num_params * times**self.exponent_n, self.num_tokens * times**self.exponent_d

    def ends(self, flops: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """N and D at the ends of the exponent's interval; a point at the anchor, whose own spread is not printed."""
        times = flops / self.flops
        n = sorted(self.num_params * times**e for e in self.interval_n)
        product = flops / self.flops * self.num_params * self.num_tokens
        return (n[0], n[1]), (product / n[1], product / n[0])


GOPHER_FLOPS = 5.76e23
APPROACH_1 = Anchored(67e9, 1.5e12, GOPHER_FLOPS, 0.50, 0.50, (0.488, 0.502))
"""Hoffmann et al. (2022, tables 2 and 3): the envelope of training curves."""
APPROACH_2 = Anchored(63e9, 1.4e12, GOPHER_FLOPS, 0.49, 0.51, (0.462, 0.534))
"""Their IsoFLOP parabolas (table 2, figure 3)."""


@functools.cache
def besiroglu() -> ChinchillaFit:
    """Besiroglu's law as a fit, with draws from the normal approximation of our bootstrap of the same runs."""
    noise = np.random.default_rng(0).standard_normal((_NUM_DRAWS, 5))
    whole = CHINCHILLA.centred(np.concatenate([_MEAN[None], _MEAN + noise @ _ROOT.T]), _MEAN_LOGS, -1.0)
    return ChinchillaFit(CHINCHILLA, whole[0], whole[1:], np.zeros(1), True)
