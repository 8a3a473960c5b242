"""batch = f(seed, batch id): which rows a batch holds, with nothing carried from one batch to the next.

A plan knows nothing of hosts, devices or accumulation. Whoever needs a part of a batch takes that part of its row ids,
so any number of hosts sees the same batches in the same order, and going to batch 1,000,000 is one calculation.
"""

import bisect
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose
from jaxlm.data.lanes import LaneRows, lay_in_lanes
from jaxlm.data.packing import EMPTY_ROW, PackedRows, Rows, WindowRows, concatenate, one_a_row, pack_best_fit
from jaxlm.data.permutation import mix_key, permute
from jaxlm.data.ramp import BatchRamp
from jaxlm.data.rows import TokenSource, make_rows

Packing = Literal["best_fit", "concat", "none", "stream"]

Transform = Callable[[dict[str, np.ndarray], np.ndarray], dict[str, np.ndarray]]
"""``f(batch, row_ids) -> batch``: a pure change of built rows (`data.masking`). A row id occurs once in the endless
stream, so whatever is drawn from it is new in every epoch and the same on any number of hosts."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """How documents become rows and rows become batches."""

    seq_len: int = 256
    """Predictions a row."""
    packing: Packing = "best_fit"
    """best_fit: whole documents side by side, attention kept inside each. concat: windows over the plain stream.
    none: one document (or piece of a long one) to a row, the rest padding. stream: each row goes on where the same row
    of the batch before ended, for models that carry a state; never shuffled."""
    shuffle: bool = True
    """A new order (and, with concat, new cuts) in every epoch. False: the order of the corpus, every epoch."""
    add_bos: bool = True
    """Start each document with the tokenizer's bos, where it has one."""
    add_eos: bool = True
    """End each document with the tokenizer's eos, where it has one."""
    num_epochs: int | None = None
    """Stop after this many passes over the training split; None = repeat as long as training asks."""
    read_threads: int = 2
    """Threads that build batches ahead of the step; 0 builds each when it is asked for."""
    prefetch: int = 4
    """Batches kept ready."""

    def __post_init__(self) -> None:
        if self.seq_len < 1:
            raise ValueError(f"seq_len={self.seq_len} must be at least 1")
        if self.packing not in get_args(Packing):
            raise ValueError(f"packing={self.packing!r} is not one of {', '.join(map(repr, get_args(Packing)))}")
        if self.num_epochs is not None and self.num_epochs < 1:
            raise ValueError(f"num_epochs={self.num_epochs} must be at least 1, or None to repeat without end")
        if self.read_threads < 0:
            raise ValueError(f"read_threads={self.read_threads} must be at least 0")
        if self.prefetch < max(self.read_threads, 1):
            raise ValueError(
                f"prefetch={self.prefetch} is less than read_threads={self.read_threads}: raise it or lower those"
            )


class DataState(NamedTuple):
    """Where training stands in the data: all that a checkpoint holds of it."""

    cursor: int = 0
    """The next batch id."""
    skipped: tuple[int, ...] = ()
    """Batch ids never to be fed, sorted; those that were passed over stay listed."""

    def after(self, batch_id: int) -> "DataState":
        """The state once this batch has been trained on."""
        return self._replace(cursor=batch_id + 1)

    def skip(self, batch_ids: list[int] | tuple[int, ...] | range) -> "DataState":
        """The state with these batches listed as well."""
        return self._replace(skipped=tuple(sorted({*self.skipped, *batch_ids})))

    def to_json(self) -> dict[str, Any]:
        return {"cursor": self.cursor, "skipped": list(self.skipped)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "DataState":
        """Raises ValueError where the fields are not those that ``to_json`` writes."""
        numbers = [fields.get("cursor"), *fields.get("skipped", ["missing"])]
        if set(fields) != {"cursor", "skipped"} or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"data state {fields!r} is not {{'cursor': int, 'skipped': [int, ...]}}")
        return cls(fields["cursor"], tuple(sorted(set(fields["skipped"]))))


def next_batch_id(batch_id: int, skipped: tuple[int, ...]) -> int:
    """The first id from ``batch_id`` on that is not skipped. ``skipped`` is sorted."""
    at = bisect.bisect_left(skipped, batch_id)
    while at < len(skipped) and skipped[at] == batch_id:
        at, batch_id = at + 1, batch_id + 1
    return batch_id


def rows_at(places: np.ndarray, num_rows: int, *, seed: int, shuffle: bool, num_epochs: int | None) -> np.ndarray:
    """The row ids at consecutive places of the endless stream of epochs (`BatchPlan`), int64."""
    epoch, row = np.divmod(places, num_rows)
    ids = epoch * num_rows
    for e in range(int(epoch[0]), int(epoch[-1]) + 1):
        here = slice(*np.searchsorted(epoch, [e, e + 1]).tolist())
        if num_epochs is not None and e >= num_epochs:
            ids[here] = EMPTY_ROW
        elif shuffle:
            ids[here] += permute(row[here], num_rows, mix_key(seed, int(Purpose.SHUFFLE), e))
        else:
            ids[here] += row[here]
    return ids


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """The endless stream of rows, epoch after epoch, cut into batches of ``global_batch_size``.

    With R rows an epoch, place s of the stream is row ``permute(s mod R, R, key(seed, SHUFFLE, s div R))`` of epoch
    s div R, and batch i takes the places [i B, (i+1) B), or the next B(i) where batches grow. A batch may lie across
    epochs, and may hold a row more than once if it is larger than an epoch. After ``num_epochs`` the last batch is
    filled with EMPTY_ROW.
    """

    rows: Rows
    global_batch_size: int
    seed: int = 0
    shuffle: bool = True
    num_epochs: int | None = None
    transform: Transform | None = None
    """What `make_batch` does to rows at last."""
    changes: tuple[tuple[int, int], ...] = ()
    """(batch id, rows): from this batch on batches have so many rows (`data.ramp`)."""

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise ValueError(f"global_batch_size={self.global_batch_size} must be at least 1")
        if self.changes and self.rows.streamed:
            raise ValueError("batches of a stream are its lanes, and cannot grow: use batch_ramp=()")

    @property
    def ramp(self) -> BatchRamp:
        """How many rows each batch has."""
        return BatchRamp(self.global_batch_size, self.changes)

    @property
    def num_batches(self) -> int | None:
        """Batches until the data ends, the last one filled up; None = they do not end."""
        if self.num_epochs is None:
            return None
        return self.ramp.num_batches(self.num_epochs * self.rows.num_rows)

    @property
    def batches_per_epoch(self) -> float:
        """Of the first size."""
        return self.rows.num_rows / self.global_batch_size

    def span(self, batch_id: int) -> tuple[int, int]:
        """The places [first, end) of a batch in the stream of rows."""
        return self.ramp.first_place(batch_id), self.ramp.first_place(batch_id + 1)

    def row_ids(self, batch_id: int) -> np.ndarray:
        """The rows of a batch, int64 [B]: epoch * R + row, or EMPTY_ROW. O(B) in time and memory.

        Raises:
          IndexError: the batch lies before the first or after the last.
        """
        if batch_id < 0 or (self.num_batches is not None and batch_id >= self.num_batches):
            raise IndexError(f"batch_id={batch_id} is not one of {self.num_batches} batches")
        places = np.arange(*self.span(batch_id), dtype=np.int64)
        return rows_at(places, self.rows.num_rows, seed=self.seed, shuffle=self.shuffle, num_epochs=self.num_epochs)


def pack_rows(
    split: TokenSource, config: DataConfig, *, batch_size: int, offset_seed: int | None = None, shift: int = 1
) -> PackedRows | WindowRows | LaneRows:
    """The index map that ``config.packing`` names, over one split. ``shift``: how far targets lie after inputs."""
    if config.packing == "stream":
        return lay_in_lanes(split.num_tokens, config.seq_len, batch_size)
    if config.packing == "best_fit":
        return pack_best_fit(split.doc_offsets, config.seq_len, shift=shift)
    if config.packing == "none":
        return one_a_row(split.doc_offsets, config.seq_len, shift=shift)
    return concatenate(split.num_tokens, config.seq_len, offset_seed=offset_seed, shift=shift)


def train_plan(
    split: TokenSource,
    config: DataConfig,
    *,
    global_batch_size: int,
    seed: int,
    name: str = "train",
    transform: Transform | None = None,
    shift: int = 1,
    ramp: tuple[tuple[int, int], ...] = (),
) -> BatchPlan:
    """The batches of a training run over one split. ``name`` names the corpus in errors; ``transform`` and ``shift`` 0
    are for masked models.

    Raises:
      UserError: the split has fewer tokens than one sequence, or nothing to predict.
    """
    if split.num_tokens < config.seq_len:
        raise UserError(
            f"num_tokens={split.num_tokens} in corpus '{name}' is less than one sequence of {config.seq_len}: "
            "lower data.seq_len or add text"
        )
    _check_predictable(split, config, name)
    offset_seed = seed if config.shuffle else None
    rows = pack_rows(split, config, batch_size=global_batch_size, offset_seed=offset_seed, shift=shift)
    shuffle = config.shuffle and not rows.streamed
    return BatchPlan(rows, global_batch_size, seed, shuffle, config.num_epochs, transform, ramp)


def eval_plan(
    split: TokenSource,
    config: DataConfig,
    *,
    batch_size: int,
    name: str = "validation",
    transform: Transform | None = None,
    shift: int = 1,
) -> BatchPlan:
    """One pass over a whole split in a fixed order, each target once; the last batch is filled with empty rows.

    A split shorter than a sequence is no error here: it is one row.

    Raises:
      UserError: the split has nothing to predict.
    """
    _check_predictable(split, config, name)
    rows = pack_rows(split, config, batch_size=batch_size, shift=shift)
    return BatchPlan(rows, batch_size, seed=0, shuffle=False, num_epochs=1, transform=transform)


def batch_keys(rows: Rows) -> tuple[str, ...]:
    """The names of the arrays in a batch of these rows."""
    keys = ("tokens", "targets", "loss_mask")
    if rows.segmented:
        return (*keys, "segment_ids", "positions")
    return (*keys, "positions") if rows.streamed else keys


def planned_batch_keys(packing: Packing, *, masked: bool = False) -> tuple[str, ...]:
    """`batch_keys` of the rows that a packing gives, before there is any text. ``masked``: an encoder's."""
    keys = ("tokens", "targets", "loss_mask")
    if packing == "stream":
        return (*keys, "positions")
    return keys if packing == "concat" and not masked else (*keys, "segment_ids", "positions")


def make_batch(split: TokenSource, plan: BatchPlan, row_ids: np.ndarray, *, pad_id: int) -> dict[str, np.ndarray]:
    """The arrays of some rows of a plan (`batch_keys`): [n, t], t the plan's own sequence length. See ``make_rows``."""
    rows = plan.rows
    batch = make_rows(split, rows, row_ids, seq_len=rows.seq_len, packed=rows.segmented, pad_id=pad_id)
    if isinstance(rows, LaneRows):
        first_n1 = rows.first_positions(row_ids)[:, None].astype(np.int32)
        batch["positions"] = first_n1 + np.arange(rows.seq_len, dtype=np.int32)
    return batch if plan.transform is None else plan.transform(batch, row_ids)


def eval_batches(
    split: TokenSource, config: DataConfig, *, batch_size: int, pad_id: int, name: str = "validation"
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of ``eval_plan`` as NumPy arrays, [batch_size, t] each: every target of the split once."""
    plan = eval_plan(split, config, batch_size=batch_size, name=name)
    for batch_id in range(plan.num_batches or 0):
        yield make_batch(split, plan, plan.row_ids(batch_id), pad_id=pad_id)


def _check_predictable(split: TokenSource, config: DataConfig, name: str) -> None:
    """A document's first token is never a target where documents stay apart; the stream's never is."""
    longest = split.num_tokens
    if config.packing not in ("concat", "stream"):
        longest = int(np.diff(split.doc_offsets).max(initial=0))
    if longest < 2:
        why = "no document has two tokens, add text"
        if name == "validation" and len(split.doc_offsets) < 2:
            why = "none is held out (corpus.validation_fraction=0): raise it, or name corpus.validation_paths"
        raise UserError(f"num_tokens={split.num_tokens} in corpus '{name}' leave nothing to predict: {why}")
