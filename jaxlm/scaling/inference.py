"""The best size where the model is also used (Sardana et al. 2023), and over-training (Gadre et al. 2024)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN, allocate

FLOPS_PER_SERVED_TOKEN = 2.0
"""A parameter takes part in one multiplication and one addition for each token read or written."""


class Served(NamedTuple):
    """A model and its bill."""

    num_params: float
    num_tokens: float
    loss: float
    training_flops: float
    inference_flops: float


def for_loss(constants: Mapping[str, float], loss: float, served_tokens: float) -> Served:
    """The N and D that reach ``loss`` with the least ``6ND + 2N served_tokens`` (Sardana et al., eq. 1 to 3).

    Raises ValueError for a loss that is not above the irreducible one.
    """
    if loss <= constants["E"]:
        raise ValueError(f"loss {loss:g} is not above the irreducible loss, {constants['E']:.4g}: no budget reaches it")

    def tokens(log_n: np.ndarray) -> np.ndarray:
        left = loss - constants["E"] - constants["A"] * np.exp(-constants["alpha"] * log_n)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(
                left > 0, (constants["B"] / left) ** (1 / constants.get("beta", constants["alpha"])), np.inf
            )

    def cost(log_n: np.ndarray) -> np.ndarray:
        n = np.exp(log_n)
        return np.log(FLOPS_PER_PARAM_TOKEN * n * tokens(log_n) + FLOPS_PER_SERVED_TOKEN * n * served_tokens)

    # The smallest N that reaches the loss with endless data is where the search begins.
    least = np.log(constants["A"] / (loss - constants["E"])) / constants["alpha"]
    log_n = _lowest(cost, least + 1e-9, least + 40.0)
    n, d = float(np.exp(log_n)), float(tokens(np.array(log_n)))
    return Served(n, d, loss, FLOPS_PER_PARAM_TOKEN * n * d, FLOPS_PER_SERVED_TOKEN * n * served_tokens)


def for_budget(constants: Mapping[str, float], flops: float, served_tokens: float) -> Served:
    """The N and D of the lowest loss where training and use together cost ``flops``."""

    def tokens(log_n: np.ndarray) -> np.ndarray:
        n = np.exp(log_n)
        return (flops - FLOPS_PER_SERVED_TOKEN * n * served_tokens) / (FLOPS_PER_PARAM_TOKEN * n)

    def loss(log_n: np.ndarray) -> np.ndarray:
        d = tokens(log_n)
        beta = constants.get("beta", constants["alpha"])
        with np.errstate(divide="ignore", invalid="ignore"):
            data = np.where(d > 0, constants["B"] / np.power(np.maximum(d, 1e-300), beta), np.inf)
        return constants["E"] + constants["A"] * np.exp(-constants["alpha"] * log_n) + data

    centre = float(np.log(allocate(constants, flops).num_params))
    log_n = _lowest(loss, centre - 25.0, centre + 1.0)
    n, d = float(np.exp(log_n)), float(tokens(np.array(log_n)))
    return Served(
        n, d, float(loss(np.array(log_n))), FLOPS_PER_PARAM_TOKEN * n * d, FLOPS_PER_SERVED_TOKEN * n * served_tokens
    )


def overtrained(constants: Mapping[str, float], flops: float, tokens_per_param: float) -> tuple[float, float, float]:
    """(N, D, loss) at C = 6ND and D/N = M."""
    n = float(np.sqrt(flops / FLOPS_PER_PARAM_TOKEN / tokens_per_param))
    d = n * tokens_per_param
    beta = constants.get("beta", constants["alpha"])
    return n, d, float(constants["E"] + constants["A"] / n ** constants["alpha"] + constants["B"] / d**beta)


def _lowest(value_fn: Any, low: float, high: float) -> float:
    """The place of the lowest value, by grids of 401 points about the last's best: smooth and single-bottomed."""
    for _ in range(6):
        places = np.linspace(low, high, 401)
        at = int(np.argmin(value_fn(places)))
        low, high = places[max(at - 1, 0)], places[min(at + 1, 400)]
    return float(0.5 * (low + high))
