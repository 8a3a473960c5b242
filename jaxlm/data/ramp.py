"""Batches that grow while a run goes: how many rows batch i has, and where they begin in the stream of rows.

Small batches early cost fewer tokens for the same progress, large ones later keep the noise down and the devices busy
(McCandlish et al. 2018; GPT-3 grew its batch from 32 k to 3.2 M tokens: Brown et al. 2020, table 2.1 and appendix B).
"""

import bisect
from collections.abc import Sequence
from typing import NamedTuple


class BatchRamp(NamedTuple):
    """Batches of ``base`` rows at first, and of more (or fewer) rows from given batches on."""

    base: int
    changes: tuple[tuple[int, int], ...] = ()
    """(batch id, rows): from this batch on batches have so many rows. Ascending by batch id."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """All sizes, in their order."""
        return (self.base, *(rows for _, rows in self.changes))

    def rows(self, batch_id: int) -> int:
        """Rows of a batch."""
        return self.sizes[bisect.bisect_right(self.changes, batch_id, key=lambda change: change[0])]

    def first_place(self, batch_id: int) -> int:
        """Rows of all batches before this one."""
        place = batch_id * self.base
        rows = self.base
        for first, then in self.changes:
            place += max(0, batch_id - first) * (then - rows)
            rows = then
        return place

    def num_batches(self, places: int) -> int:
        """Batches, from the first, that hold so many rows; the last may hold more."""
        starts = [0, *(first for first, _ in self.changes)]
        at = bisect.bisect_right([self.first_place(start) for start in starts], places) - 1
        return starts[at] + -(-(places - self.first_place(starts[at])) // self.sizes[at])


def check_ramp(changes: Sequence[tuple[int, int]], *, microbatch_size: int) -> None:
    """Raises ValueError where the batches do not ascend, or a size is no multiple of the microbatch's."""
    last = 0
    for first, rows in changes:
        if first <= last:
            raise ValueError(
                f"batch_ramp names batch {first} after batch {last}: (batch, rows) pairs ascend from batch 1 on"
            )
        if rows < 1 or rows % microbatch_size:
            raise ValueError(
                f"batch_ramp gives {rows} rows from batch {first} on, no multiple of the microbatch of "
                f"{microbatch_size} rows (global_batch_size / grad_accum_steps), which stays: take a multiple of it"
            )
        last = first
