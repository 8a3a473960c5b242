"""Counting parameters with or without embeddings: why Kaplan et al. and Hoffmann et al. disagree.

Kaplan's N and C leave embeddings out, and their models were small, where embeddings are most of the parameters. Pearce
and Song (2024) put Chinchilla's law in Kaplan's terms: the exponent of the best N rises from near 0.5 to near 0.73.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN

OMEGA = 47491.0
"""N_total = N + omega N^(1/3), N without embeddings (Pearce and Song 2024): Chinchilla's models."""
KAPLAN_RANGE = (768.0, 1.5e9)
"""Kaplan's smallest and largest model, parameters without embeddings."""
KAPLAN_EXPONENT = 0.73


def total_params(non_embedding: np.ndarray, omega: float = OMEGA) -> np.ndarray:
    """N with embeddings of N without."""
    return non_embedding + omega * np.cbrt(non_embedding)


class Exponents(NamedTuple):
    """Exponents of the best N in compute, each in its own terms."""

    total: float
    """With embeddings in N and C: the law's own."""
    non_embedding: float
    """Without in either, over a range of models: what a fit there would find."""


def exponents(
    constants: Mapping[str, float], sizes: tuple[float, float] = KAPLAN_RANGE, omega: float = OMEGA
) -> Exponents:
    """Both exponents from one law of total parameters.

    Of each compute without embeddings the best N is found by calculus: L falls in N through A and rises through
    ``D = C / 6N``. A line through log N against log C, as evenly spread over log C as Kaplan's models, is the fit.
    """
    alpha, beta = constants["alpha"], constants.get("beta", constants["alpha"])
    n = np.exp(np.linspace(np.log(sizes[0]), np.log(sizes[1]), 2001))
    total = total_params(n, omega)
    slope = 1 + omega / 3 * np.power(n, -2 / 3)
    # dL/dN = 0 at fixed C: alpha A total^(-alpha-1) total' = beta B D^-beta / N, solved for D.
    d = np.power(beta * constants["B"] * np.power(total, alpha + 1) / (alpha * constants["A"] * slope * n), 1 / beta)
    log_c = np.log(FLOPS_PER_PARAM_TOKEN * n * d)
    even = np.linspace(log_c[0], log_c[-1], 2001)
    found = np.polyfit(even, np.interp(even, log_c, np.log(n)), 1)[0]
    return Exponents(beta / (alpha + beta), float(found))
