"""Linear functions shown by examples: x_1, y_1, x_2, y_2, ... with y = w x + noise and a w of each row's own.

Whoever reads a row can only learn w from it (Garg et al. 2022). With w ~ N(0, 1/d) in each coordinate and noise of
deviation s, the best guess after some examples is that of ridge regression with the penalty d s^2.
"""

import dataclasses

import numpy as np

from jaxlm.data.puzzles.draws import generator


@dataclasses.dataclass(frozen=True)
class RegressionsConfig:
    """The rows."""

    dim: int = 3
    """Coordinates of x, each N(0, 1); those of w are N(0, 1 / dim), so that w x has the variance 1."""
    num_pairs: int = 12
    """Examples in a row."""
    noise: float = 0.1
    """Deviation of what is added to w x."""

    def __post_init__(self) -> None:
        if self.dim < 1 or self.num_pairs <= self.dim:
            raise ValueError(f"dim={self.dim} and num_pairs={self.num_pairs}: give at least 1, and more pairs than dim")
        if self.noise <= 0:
            raise ValueError(f"noise={self.noise} must be above 0: ridge regression is then the best there is")

    @property
    def penalty(self) -> float:
        """Of the ridge regression that no other guess beats on average."""
        return self.dim * self.noise**2


def regression_rows(
    config: RegressionsConfig, seed: int, cursor: int, num_rows: int, *, for_test: bool = False
) -> dict[str, np.ndarray]:
    """``x`` f32 [b, n, dim] and ``y`` f32 [b, n], a row for each function."""
    rng = generator(seed, cursor, for_test=for_test)
    x_bni = rng.standard_normal((num_rows, config.num_pairs, config.dim), np.float32)
    w_bi = rng.standard_normal((num_rows, config.dim), np.float32) / np.float32(np.sqrt(config.dim))
    noise_bn = np.float32(config.noise) * rng.standard_normal((num_rows, config.num_pairs), np.float32)
    return {"x": x_bni, "y": np.einsum("bni,bi->bn", x_bni, w_bi) + noise_bn}


def ridge_guesses(x_bni: np.ndarray, y_bn: np.ndarray, penalty: float) -> np.ndarray:
    """What ridge regression on the pairs before says of each y, f64 [b, n]: 0 for the first.

    w = (X^T X + penalty I)^-1 X^T y; at ``penalty`` 0 least squares, of several solutions the shortest w.
    """
    x_bni, y_bn = x_bni.astype(np.float64), y_bn.astype(np.float64)
    guesses_bn = np.zeros_like(y_bn)
    eye_ij = np.eye(x_bni.shape[-1])
    for seen in range(1, y_bn.shape[1]):
        before_bni, y_seen_bn1 = x_bni[:, :seen], y_bn[:, :seen, None]
        if penalty == 0:
            w_bi1 = np.linalg.pinv(before_bni) @ y_seen_bn1
        else:
            turned_bin = before_bni.swapaxes(1, 2)
            w_bi1 = np.linalg.solve(turned_bin @ before_bni + penalty * eye_ij, turned_bin @ y_seen_bn1)
        guesses_bn[:, seen] = np.einsum("bi,bi->b", x_bni[:, seen], w_bi1[..., 0])
    return guesses_bn
