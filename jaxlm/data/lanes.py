"""The stream of documents in lanes, so that a recurrent state is carried from each batch to the next."""

import dataclasses

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.packing import Pieces


@dataclasses.dataclass(frozen=True)
class LaneRows:
    """The stream cut into ``lanes`` parts of equal length, read side by side: row r of batch i goes on where row r of
    batch i - 1 ended.

    The N = num_tokens - 1 predictions give lane r those from r L on, L = ceil(N / lanes). Batch i of an epoch covers
    [i T, (i+1) T) of each lane; the last is filled up with padding, and so is the last lane. Only batches of ``lanes``
    rows in their order mean anything: no shuffling.
    """

    num_tokens: int
    seq_len: int
    lanes: int
    segmented: bool = False
    streamed: bool = True
    shift: int = 1

    @property
    def num_predictions(self) -> int:
        return self.num_tokens - 1

    @property
    def lane_length(self) -> int:
        """Predictions a lane."""
        return -(-self.num_predictions // self.lanes)

    @property
    def num_rows(self) -> int:
        return self.lanes * -(-self.lane_length // self.seq_len)

    @property
    def utilisation(self) -> float:
        return self.num_predictions / (self.num_rows * self.seq_len)

    def first_positions(self, row_ids: np.ndarray) -> np.ndarray:
        """How far into its lane each row begins, int64; 0 where a lane begins, and the state with it."""
        return np.where(row_ids < 0, 0, row_ids % self.num_rows // self.lanes * self.seq_len)

    def pieces(self, row_ids: np.ndarray) -> Pieces:
        within = self.first_positions(row_ids)
        start = row_ids % self.lanes * self.lane_length + within
        length = np.minimum(np.minimum(self.seq_len, self.lane_length - within), self.num_predictions - start)
        place = np.flatnonzero((row_ids >= 0) & (length > 0))
        return Pieces(place, start[place], length[place])


def lay_in_lanes(num_tokens: int, seq_len: int, lanes: int) -> LaneRows:
    """The stream of a split in lanes, one for each row of a batch.

    Raises:
      UserError: fewer predictions than lanes, so that some would be empty.
    """
    if num_tokens - 1 < lanes:
        raise UserError(
            f"num_tokens={num_tokens} do not fill {lanes} lanes, one for each row of a batch: "
            "lower global_batch_size or eval_batch_size, or add text"
        )
    return LaneRows(num_tokens, seq_len, lanes)
