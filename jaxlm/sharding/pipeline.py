"""Pipeline parallelism: layers in stages along the mesh axis ``stage``, which pass microbatches on.

GPipe (Huang et al. 2019) with one round; with more the circular, or interleaved, schedule (Narayanan et al. 2021):
stage i of s has layer groups i, s + i, 2s + i... and each microbatch goes round. In a tick a stage runs one group on
one microbatch and passes it on; a tick in which it has none yet, or none any more, is a bubble.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxlm.core.axes import free_axes
from jaxlm.core.types import BATCH_AXES, STAGE_AXIS, STATE_AXES, Array, Params, PyTree
from jaxlm.sharding.constrain import constrain

ROW_AXES = ("data", "fsdp")
"""Axes that are taken by hand beside ``stage``. Each device runs its own rows of a microbatch, and sums its gradients
over all of them before any other device hears of them: one exchange in a step, not one in a tick."""


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """How ``mesh.stage`` stages share the work. Without stages it says nothing."""

    num_microbatches: int | None = None
    """Parts that the rows of a forward pass are cut into, a multiple of ``mesh.stage``; None = the most that divide
    them, up to four a stage. An evaluation may take fewer."""
    rounds: int = 1
    """Times that a microbatch goes through all stages: 1 = GPipe; more = circular, whose bubble is as many times
    smaller."""

    def __post_init__(self) -> None:
        for name in ("num_microbatches", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"mesh.pipeline.{name}={value} must be at least 1")


class Schedule(NamedTuple):
    """Who does what when: at tick x stage i is at its piece of work x - i, rounds in turn, microbatches within them."""

    stages: int
    rounds: int
    microbatches: int

    @property
    def slots(self) -> int:
        """Microbatches that wait on each stage."""
        return self.microbatches // self.stages

    @property
    def ticks(self) -> int:
        """Ticks of a forward pass, and as many of the backward pass."""
        return self.rounds * self.microbatches + self.stages - 1

    @property
    def bubble(self) -> float:
        """Share of the ticks in which a stage has nothing to do: (s - 1) / (v m + s - 1)."""
        return (self.stages - 1) / self.ticks


def choose_schedule(config: PipelineConfig | None, rows: int, axis_sizes: dict[str, int]) -> Schedule | None:
    """The schedule for ``rows`` on a mesh of these sizes; None without stages or config, or where rows do not divide
    over all axes that share them. Of the numbers of microbatches that divide the rows the largest allowed is taken."""
    stages = axis_sizes.get(STAGE_AXIS, 1)
    own_rows, rest = divmod(rows, math.prod(axis_sizes.get(axis, 1) for axis in BATCH_AXES))
    if config is None or stages == 1 or rest:
        return None
    most = 4 if config.num_microbatches is None else config.num_microbatches // stages
    slots = max((k for k in range(1, most + 1) if own_rows % k == 0), default=0)
    return Schedule(stages, config.rounds, slots * stages) if slots else None


Stage = Callable[[Params, Array, PyTree, Array, Array], tuple[Array, PyTree]]
"""``stage(params, x, rows, first, draw) -> (x, sums)`` for one microbatch. ``params``: [n, ...] leaves of n groups of
layers, ``first``: the number of the first, ``rows``: what is known of the rows of x beside it; ``draw``: a number that
no other rows have, for random keys; ``sums``: scalars that are added up over all rows and layers."""


def run_pipeline(
    stage: Stage, stacked: Params, specs: PyTree, x: Array, rows: PyTree, schedule: Schedule
) -> tuple[Array, PyTree]:
    """``stage`` over all groups of ``stacked`` [l, ...] in turn, for all rows of x [b, ...]; x after it, and the sums.

    ``specs``: how ``stacked`` lies (its first dimension along ``stage``); ``rows``: arrays [b, ...], no gradient.
    Layers are gathered over ``fsdp`` once, in the dtype they are kept in, and lie whole till the backward pass has
    summed their gradient. Of the work of a tick only its input is kept, and it is done again in the backward pass
    (Huang et al.).
    """
    sizes = free_axes()
    row_axes = tuple(axis for axis in ROW_AXES if axis in sizes)
    manual = (STAGE_AXIS, *row_axes)
    shards = math.prod(sizes[axis] for axis in row_axes)
    if schedule.rounds > 1:
        stacked = _interleaved(stacked, schedule)
    # A copy for each device of the row axes: the sum of their gradients is the gradient of the broadcast, done once.
    copies = jax.tree.map(lambda leaf, spec: _copies(leaf, spec, row_axes, shards), stacked, specs)

    def on_device(stacked: Params, x: Array, rows: PyTree) -> tuple[Array, PyTree]:
        stacked = jax.tree.map(lambda copy: copy[0], stacked)
        index = jax.lax.axis_index(STAGE_AXIS)
        draw = jax.lax.axis_index(row_axes) if row_axes else jnp.zeros((), jnp.int32)

        def work(stacked: Params, x: Array, number: Array) -> tuple[Array, PyTree]:
            """The piece of work of that number, on this stage."""
            turn, microbatch = number // schedule.microbatches, number % schedule.microbatches
            params = stacked
            if schedule.rounds > 1:
                params = jax.tree.map(lambda leaf: _entry(_by_rounds(leaf, schedule.rounds), turn), stacked)
            groups = jax.tree.leaves(params)[0].shape[0]
            own = jax.tree.map(lambda leaf: _entry(leaf, microbatch), rows)
            first = (turn * schedule.stages + index) * groups
            return stage(params, x, own, first, microbatch * shards + draw)

        out, sums = _run_ticks(jax.checkpoint(work, prevent_cse=False), stacked, x[0], schedule, index)
        return out[None], jax.tree.map(lambda total: total[None], sums)

    dealt_x = _dealt(x, schedule)
    dealt_rows = jax.tree.map(
        lambda leaf: _dealt(leaf, schedule).reshape(schedule.microbatches, -1, *leaf.shape[1:]), rows
    )
    x_spec = PartitionSpec(STAGE_AXIS, None, row_axes)
    run: Callable[..., Any] = jax.shard_map(
        on_device,
        in_specs=(PartitionSpec(row_axes, STAGE_AXIS), x_spec, PartitionSpec(None, row_axes)),
        out_specs=(x_spec, PartitionSpec(manual)),
        axis_names=set(manual),
        check_vma=False,  # what maps inside this one replicate cannot be told from what they split (jax 0.10)
    )
    out, sums = run(copies, dealt_x, dealt_rows)
    return out.swapaxes(1, 2).reshape(x.shape), jax.tree.map(lambda parts: jnp.sum(parts, axis=0), sums)


def _run_ticks(
    work: Callable[[Params, Array, Array], tuple[Array, PyTree]],
    stacked: Params,
    waiting: Array,
    schedule: Schedule,
    index: Array,
) -> tuple[Array, PyTree]:
    """The loop, on one device. ``waiting`` [k, r, ...]: of stage i microbatches i k to (i + 1) k - 1; so at the end.

    What waits for stage 0 stands on a ring of k s places, k of them on each stage. In tick x, place x mod k of every
    stage moves on to the stage before it, so stage 0 finds all microbatches there in turn; one that has been through
    all stages goes into the place that stage 0 took it from, wherever that has got to by then.
    """
    stages, slots, last = schedule.stages, schedule.slots, schedule.stages - 1
    back = [(i, (i - 1) % stages) for i in range(stages)]
    on = [(i, i + 1) for i in range(last)]
    home = last - last // slots  # the stage where the place of a microbatch that is done has got to

    def tick(carry: tuple[Array, Array], number: Array) -> tuple[Any, PyTree]:
        waiting, passed_on = carry
        place = number % slots
        taken = _entry(waiting, place)
        own = number - index
        out, sums = work(
            stacked,
            jnp.where(index == 0, taken, passed_on),
            jnp.clip(own, 0, schedule.rounds * schedule.microbatches - 1),
        )
        busy = (own >= 0) & (own < schedule.rounds * schedule.microbatches)
        sums = jax.tree.map(lambda x: jnp.where(busy, x, jnp.zeros((), x.dtype)), sums)
        waiting = _with_entry(waiting, jax.lax.ppermute(taken, STAGE_AXIS, back), place)
        done = out if home == last else jax.lax.ppermute(out, STAGE_AXIS, [(last, home)])
        place = (number - last) % slots
        done = jnp.where((index == home) & (number >= last), done, _entry(waiting, place))
        waiting = _with_entry(waiting, done, place)
        return (waiting, jax.lax.ppermute(out, STAGE_AXIS, on)), sums

    numbers = jnp.arange(schedule.ticks, dtype=jnp.int32)
    (waiting, _), sums = jax.lax.scan(tick, (waiting, jnp.zeros_like(waiting[0])), numbers)
    # Each place has moved on by v m / k = v s, or by up to s more in the ticks that emptied the pipeline: turned back.
    turns, ahead = divmod(stages - 2, slots)
    parts = [(waiting[: ahead + 1], turns + 1), (waiting[ahead + 1 :], turns)]
    turned = [
        jax.lax.ppermute(part, STAGE_AXIS, [(i, (i + by) % stages) for i in range(stages)]) if by % stages else part
        for part, by in parts
        if part.shape[0]
    ]
    return jnp.concatenate(turned), jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def _interleaved(stacked: Params, schedule: Schedule) -> Params:
    """[l, ...] leaves along ``stage``: groups i l/s to (i + 1) l/s - 1 on stage i -> those that stage i runs, round by
    round.

    Layers are kept in their own order, in which a mesh changes nothing, so that they must be exchanged: once in a step,
    each stage sends all it has. A part goes from stage i, its a-th of v, to stage (i v + a) mod s; in exchange c every
    stage sends one part and receives one.
    """
    stages, rounds = schedule.stages, schedule.rounds
    common = math.gcd(rounds, stages)

    def exchange(leaf: Array) -> Array:
        index = jax.lax.axis_index(STAGE_AXIS)
        parts = _by_rounds(leaf, rounds)
        received = jnp.zeros_like(parts)
        for c in range(rounds):
            sent, pairs, slot = [0] * stages, [], [0] * stages
            for i in range(stages):
                sent[i] = c - c % common + (c + i // (stages // common)) % common
                turn, target = divmod(i * rounds + sent[i], stages)
                pairs.append((i, target))
                slot[target] = turn
            part = jax.lax.ppermute(_entry(parts, jnp.asarray(sent, jnp.int32)[index]), STAGE_AXIS, pairs)
            received = _with_entry(received, part, jnp.asarray(slot, jnp.int32)[index])
        return received.reshape(leaf.shape)

    spec = PartitionSpec(STAGE_AXIS)
    exchanged: Callable[[Params], Params] = jax.shard_map(
        lambda stacked: jax.tree.map(exchange, stacked),
        in_specs=spec,
        out_specs=spec,
        axis_names={STAGE_AXIS},
        check_vma=False,
    )
    return exchanged(stacked)


def _by_rounds(leaf: Array, rounds: int) -> Array:
    return leaf.reshape(rounds, -1, *leaf.shape[1:])


def _copies(leaf: Array, spec: PartitionSpec, row_axes: tuple[str, ...], shards: int) -> Array:
    """[shards, l, ...]: a stage's layers whole on each device that runs them, but for axes that split experts and
    widths."""
    entries = [tuple(axis for axis in _axes(entry) if axis not in STATE_AXES) or None for entry in spec]
    entries += [None] * (leaf.ndim - len(entries))
    return constrain(jnp.broadcast_to(leaf, (shards, *leaf.shape)), PartitionSpec(row_axes, *entries))


def _axes(entry: Any) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _dealt(x: Array, schedule: Schedule) -> Array:
    """[b, ...] -> [s, k, b / m, ...]: each device deals its own rows to its stage's microbatches, and nothing moves."""
    return x.reshape(schedule.stages, -1, schedule.slots, *x.shape[1:]).swapaxes(1, 2)


def _entry(x: Array, index: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x, index, 0, keepdims=False)


def _with_entry(x: Array, value: Array, index: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(x, value, index, 0)
