"""Batches as global jax.Arrays, built ahead of the step by Grain's reader threads.

Each host reads the rows that its own devices hold and no others. Where to read is a function of the batch id, so a
reader opens at any batch at once, and what a checkpoint must hold of it is a ``DataState``.
"""

import bisect
import math
import sys
from collections.abc import Iterator
from typing import Self

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from jaxlm.core.errors import UserError
from jaxlm.core.types import Batch
from jaxlm.data.batches import BatchPlan, DataState, make_batch, next_batch_id
from jaxlm.data.examples import ExamplePlan
from jaxlm.data.rows import TokenSource


class BatchReader:
    """An iterator of (batch id, batch), from a ``DataState`` on. Close it, or use it as a context manager.

    An exception in a reader thread comes out of ``next`` as itself. Threads end at ``close`` or with the interpreter.
    """

    def __init__(
        self,
        split: TokenSource,
        plan: BatchPlan,
        state: DataState,
        sharding: Sharding,
        *,
        pad_id: int,
        read_threads: int = 2,
        prefetch: int = 4,
    ):
        self._state = state
        source = _BatchSource(split, plan, state.skipped, sharding, pad_id)
        first = source.index_of(next_batch_id(state.cursor, source.skipped))
        self._num_left = None if plan.num_batches is None else len(source) - first
        options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=prefetch if read_threads else 0)
        self._iterator = iter(grain.MapDataset.source(source).to_iter_dataset(options))
        self._iterator.set_state({"next_index": min(first, len(source))})
        self._closed = False

    @property
    def state(self) -> DataState:
        """Where training stands once the last batch handed out has been trained on."""
        return self._state

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, Batch]:
        """Raises StopIteration where the plan's epochs end or the reader is closed."""
        if self._closed or (self._num_left is not None and self._num_left <= 0):
            raise StopIteration
        batch_id, batch = next(self._iterator)
        if self._num_left is not None:
            self._num_left -= 1
        self._state = self._state.after(batch_id)
        return batch_id, batch

    def close(self) -> None:
        """Stop reading ahead and drop what was read. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._iterator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def train_batches(
    split: TokenSource,
    plan: BatchPlan,
    state: DataState,
    sharding: Sharding,
    *,
    pad_id: int,
    read_threads: int = 2,
    prefetch: int = 4,
) -> BatchReader:
    """The batches of ``plan`` from ``state.cursor`` on, without the skipped ones: (batch id, global arrays [B, t]).

    Raises:
      UserError: the batch does not divide over the devices.
    """
    check_batch_size(plan.global_batch_size, sharding)
    for _, rows in plan.changes:
        check_batch_size(rows, sharding, name="rows of batch_ramp")
    return BatchReader(split, plan, state, sharding, pad_id=pad_id, read_threads=read_threads, prefetch=prefetch)


def eval_batches(
    split: TokenSource, plan: BatchPlan, sharding: Sharding, *, pad_id: int, read_threads: int = 1, prefetch: int = 2
) -> Iterator[Batch]:
    """All batches of a plan that ends (``data.batches.eval_plan``), in its order, as global arrays [B, t].

    Raises:
      ValueError: the plan does not end.
      UserError: the batch does not divide over the devices.
    """
    if plan.num_batches is None:
        raise ValueError("a plan without num_epochs does not end: evaluate on an eval_plan")
    check_batch_size(plan.global_batch_size, sharding, name="eval_batch_size")
    reader = BatchReader(
        split, plan, DataState(), sharding, pad_id=pad_id, read_threads=read_threads, prefetch=prefetch
    )
    return _close_after(reader)


def example_batches(plan: ExamplePlan, state: DataState, sharding: Sharding) -> Iterator[tuple[int, Batch]]:
    """The batches of labelled examples from ``state.cursor`` on, without the skipped ones: (batch id, global arrays).

    They lie in memory, so none is read ahead. Raises UserError where the batch does not divide over the devices.
    """
    check_batch_size(plan.global_batch_size, sharding)
    batch_id = next_batch_id(state.cursor, state.skipped)
    while plan.num_batches is None or batch_id < plan.num_batches:
        arrays = plan.batch(batch_id)
        batch = {name: spread(array, sharding) for name, array in arrays.items()}
        yield batch_id, batch
        batch_id = next_batch_id(batch_id + 1, state.skipped)


def spread(array: np.ndarray, sharding: Sharding) -> jax.Array:
    """The array on the devices; one without positions lies as the rows do."""
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[: array.ndim]))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _close_after(reader: BatchReader) -> Iterator[Batch]:
    with reader:
        for _, batch in reader:
            yield batch


def check_batch_size(global_batch_size: int, sharding: Sharding, *, name: str = "global_batch_size") -> None:
    """Raise UserError unless the rows of a batch divide evenly over the devices that share them out."""
    if not isinstance(sharding, NamedSharding) or not sharding.spec or sharding.spec[0] is None:
        return
    axes = sharding.spec[0] if isinstance(sharding.spec[0], tuple) else (sharding.spec[0],)
    sizes = {str(axis): sharding.mesh.shape[axis] for axis in axes}
    parts = math.prod(sizes.values())
    if global_batch_size % parts:
        below = global_batch_size // parts * parts
        sides = f"{below} or {below + parts}" if below else f"{parts}"
        mesh = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1)
        raise UserError(
            f"{name}={global_batch_size} does not divide over {parts} groups of devices (mesh {mesh}): "
            f"take {sides}, or a smaller mesh"
        )


def local_rows(sharding: Sharding, shape: tuple[int, int]) -> np.ndarray:
    """The rows of a global [B, t] array that this host's devices hold, sorted: int64."""
    spans = {index[0].indices(shape[0]) for index in sharding.addressable_devices_indices_map(shape).values() if index}
    return np.unique(np.concatenate([np.arange(*span) for span in spans]))


class _BatchSource:
    """Random access to the batches that are not skipped: item i is (batch id, global arrays). Called from threads."""

    def __init__(self, split: TokenSource, plan: BatchPlan, skipped: tuple[int, ...], sharding: Sharding, pad_id: int):
        self._split, self._plan, self._sharding, self._pad_id = split, plan, sharding, pad_id
        self.skipped = tuple(sorted(set(skipped)))
        # Skipped batch number i has id - i ids before it that are kept.
        self._kept_before = [batch_id - i for i, batch_id in enumerate(self.skipped)]
        self._local_rows = {rows: local_rows(sharding, (rows, plan.rows.seq_len)) for rows in set(plan.ramp.sizes)}

    def __len__(self) -> int:
        if self._plan.num_batches is None:
            return sys.maxsize
        return self._plan.num_batches - bisect.bisect_left(self.skipped, self._plan.num_batches)

    def index_of(self, batch_id: int) -> int:
        """The place of a batch that is not skipped among those that are not."""
        return batch_id - bisect.bisect_left(self.skipped, batch_id)

    def __getitem__(self, index: int) -> tuple[int, Batch]:
        batch_id = index + bisect.bisect_right(self._kept_before, index)
        row_ids = self._plan.row_ids(batch_id)
        held = self._local_rows[len(row_ids)]
        local = make_batch(self._split, self._plan, row_ids[held], pad_id=self._pad_id)
        return batch_id, {name: self._to_global(array, held, len(row_ids)) for name, array in local.items()}

    def _to_global(self, local: np.ndarray, held: np.ndarray, num_rows: int) -> jax.Array:
        """The array of all rows, of which this host holds those numbered ``held``."""

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            start, stop, _ = index[0].indices(num_rows)
            first = int(np.searchsorted(held, start))
            return local[first : first + stop - start, index[1]]

        return jax.make_array_from_callback((num_rows, self._plan.rows.seq_len), self._sharding, part)
