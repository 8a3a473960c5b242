"""What learned embeddings hold: nearest neighbours and analogies by cosine (Mikolov et al. 2013)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Neighbour(NamedTuple):
    """A row of the table and its cosine with what was asked for."""

    token: int
    cosine: float


def nearest(
    table_vd: np.ndarray, query_d: np.ndarray, *, count: int = 10, without: Sequence[int] = ()
) -> list[Neighbour]:
    """The rows of a table [v, d] nearest to a vector [d] by cosine, the nearest first; ``without`` some rows."""
    norms_v = np.linalg.norm(table_vd, axis=1)
    cosine_v = table_vd @ query_d / np.maximum(norms_v * np.linalg.norm(query_d), 1e-30)
    cosine_v[list(without)] = -np.inf
    order = np.argsort(-cosine_v, kind="stable")[:count]
    return [Neighbour(int(token), float(cosine_v[token])) for token in order if np.isfinite(cosine_v[token])]


def analogy(table_vd: np.ndarray, a: int, b: int, c: int, *, count: int = 10) -> list[Neighbour]:
    """What is to ``c`` as ``b`` is to ``a``: the rows, none of these, nearest to b - a + c, all scaled to length 1."""
    unit_vd = table_vd / np.maximum(np.linalg.norm(table_vd, axis=1, keepdims=True), 1e-30)
    return nearest(unit_vd, unit_vd[b] - unit_vd[a] + unit_vd[c], count=count, without=(a, b, c))
