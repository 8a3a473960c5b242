"""How the best rate moves with width: figures of a grid of losses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Best(NamedTuple):
    """The best rate at one width."""

    place: int
    """Where it stands in the grid."""
    rate: float
    loss: float
    """Mean over seeds."""
    standard_error: float
    """Of that mean; 0 of one seed."""
    vertex: float
    """log2 of the rate where a parabola through the best rate and its neighbours is lowest; that of the best rate at
    an edge of the grid."""
    at_edge: bool


def best_rate(rates: Sequence[float], losses_rs: np.ndarray) -> Best | None:
    """The rate whose mean loss over seeds is lowest; ``losses_rs`` is [rates, seeds], NaN or infinite where a run
    diverged, which rules its rate out. None where every rate is."""
    means = np.where(np.isfinite(losses_rs).all(axis=1), losses_rs.mean(axis=1), np.inf)
    index = int(np.argmin(means))
    if not np.isfinite(means[index]):
        return None
    seeds = losses_rs.shape[1]
    error = float(losses_rs[index].std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else 0.0
    at_edge, vertex = index in (0, len(rates) - 1), float(np.log2(rates[index]))
    if not at_edge and np.isfinite(means[index - 1 : index + 2]).all():
        left, middle, right = means[index - 1 : index + 2]
        bend = left - 2 * middle + right
        vertex += 0.5 * (left - right) / bend if bend > 0 else 0.0
    return Best(index, float(rates[index]), float(means[index]), error, float(vertex), at_edge)


def drift_steps(best: Mapping[int, Best | None]) -> int | None:
    """Grid steps between the highest and the lowest best rate over all widths that have one; None where none has."""
    places = [one.place for one in best.values() if one is not None]
    return max(places) - min(places) if places else None


def log_slope(widths: Sequence[int], sizes: Sequence[float]) -> float:
    """Slope of log size against log width by least squares: 0 where a size does not move with width, 1 where it grows
    in proportion."""
    return float(np.polyfit(np.log(np.asarray(widths, np.float64)), np.log(np.asarray(sizes, np.float64)), 1)[0])
