"""Rows that repeat themselves: what comes next can be known only by looking at what came before.

A row is a ring of symbols in an order drawn for it: it goes round once, and then on, but leaps now and then to another
place of the ring. To know what comes next one has to find the symbol at hand where it stood before, and say what stood
behind it (induction, Olsson et al. 2022). How long the ring is (the period) is drawn for each row, so that no fixed
distance back tells it; and without the leaps it would be whatever was not seen for longest, which one layer can learn.
"""

import dataclasses

import numpy as np

from jaxlm.data.puzzles.draws import generator


@dataclasses.dataclass(frozen=True)
class RepeatsConfig:
    """The rows."""

    num_symbols: int = 64
    seq_len: int = 64
    shortest: int = 12
    """Symbols of a ring: from so many ..."""
    longest: int = 32
    """... to so many, evenly drawn. None is there twice."""
    leap: float = 0.15
    """How likely each step after the first round is one to anywhere."""

    def __post_init__(self) -> None:
        if not 2 <= self.shortest <= self.longest:
            raise ValueError(f"shortest={self.shortest} and longest={self.longest}: give 2 or more, the longest last")
        if self.longest > self.num_symbols:
            raise ValueError(f"longest={self.longest} is more than num_symbols={self.num_symbols}: none comes twice")
        if self.seq_len < self.longest + 2:
            raise ValueError(
                f"seq_len={self.seq_len} is too short to repeat a ring of longest={self.longest}: raise it"
            )
        if not 0 <= self.leap < 1:
            raise ValueError(f"leap={self.leap} is outside [0, 1)")


def repeat_rows(
    config: RepeatsConfig, seed: int, cursor: int, num_rows: int, *, for_test: bool = False
) -> dict[str, np.ndarray]:
    """``tokens``, ``targets`` and ``loss_mask`` (all of them) [b, t], and ``known`` bool [b, t]: whether the target can
    be known: it stood behind this token before."""
    rng = generator(seed, cursor, for_test=for_test)
    shape = num_rows, config.seq_len + 1
    period_b1 = rng.integers(config.shortest, config.longest + 1, (num_rows, 1))
    order_bv = rng.permuted(np.tile(np.arange(config.num_symbols, dtype=np.int32), (num_rows, 1)), axis=1)
    time_bt = np.broadcast_to(np.arange(shape[1]), shape)
    leaps_bt = (rng.random(shape) < config.leap) & (time_bt > period_b1)  # the ring is closed first
    since_bt = np.maximum.accumulate(np.where(leaps_bt, time_bt, 0), axis=1)
    anywhere_bt = rng.integers(0, period_b1, shape) * leaps_bt
    place_bt = (np.take_along_axis(anywhere_bt, since_bt, axis=1) + time_bt - since_bt) % period_b1
    follows_bt = place_bt[:, 1:] == (place_bt[:, :-1] + 1) % period_b1
    row_bt = np.take_along_axis(order_bv, place_bt, axis=1)
    return {
        "tokens": row_bt[:, :-1],
        "targets": row_bt[:, 1:],
        "loss_mask": np.ones((num_rows, config.seq_len), np.float32),
        "known": follows_bt & (time_bt[:, 1:] > period_b1),
    }
