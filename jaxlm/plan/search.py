"""Which mesh, microbatches, recomputation and loss chunk a run should have on a machine, and why not another.

Every mesh of the axes that are searched is judged by one memory model (`plan.memory`) and one bound on the time of a
step (`plan.compiled.roofline` over `plan.traffic`).
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.core.types import BATCH_AXES
from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.activations import Share, decoder_step_bytes
from jaxlm.plan.compiled import recompute_flops, roofline
from jaxlm.plan.families import train_flops_per_token
from jaxlm.plan.hlo import Collective
from jaxlm.plan.memory import HEADROOM, MemoryEstimate, estimate_memory
from jaxlm.plan.topology import GIB, Topology
from jaxlm.plan.traffic import estimate_collectives
from jaxlm.sharding.activations import ActivationLayout
from jaxlm.sharding.pipeline import PipelineConfig, Schedule

SEARCHED = ("data", "fsdp", "expert", "model")
"""Axes whose sizes are tried; ``stage`` and ``context`` are counted, and stay as they are given."""
CHUNKS = (None, 2048, 1024, 512, 256)


class Workload(NamedTuple):
    """What is to be run, whatever the mesh."""

    model: DecoderConfig
    """As on the machine: its attention chosen."""
    seq_len: int
    global_batch_size: int
    state_bytes: Callable[[dict[str, int]], tuple[int, int]]
    """Sizes of the axes -> bytes on a device (parameters, whole state). Raises UserError where a dimension does not
    divide."""
    layout: ActivationLayout = ActivationLayout(pipeline=PipelineConfig())
    """How its activations lie, and how stages share the work where a mesh has them."""

    @property
    def batch_tokens(self) -> int:
        return self.global_batch_size * self.seq_len


class Plan(NamedTuple):
    """One way to run it."""

    axis_sizes: dict[str, int]
    grad_accum_steps: int
    remat_policy: str
    loss_chunk: int | None
    memory: MemoryEstimate
    time: dict[str, Any]
    """See `plan.compiled.roofline`."""
    collectives: list[Collective]
    schedule: Schedule | None = None
    """Of a mesh with stages."""

    @property
    def mesh(self) -> str:
        return " x ".join(f"{axis} {size}" for axis, size in self.axis_sizes.items() if size > 1) or "one device"


class Refusal(NamedTuple):
    """A mesh that is not recommended, and why."""

    axis_sizes: dict[str, int]
    reason: str
    plan: Plan | None = None
    """Where it would run, only worse."""


def meshes(num_chips: int, axes: tuple[str, ...], fixed: dict[str, int]) -> Iterator[dict[str, int]]:
    """Sizes of ``axes`` that multiply to what ``fixed`` leaves of the chips, in every way."""

    def split(rest: int, left: tuple[str, ...]) -> Iterator[dict[str, int]]:
        if len(left) == 1:
            yield {left[0]: rest}
            return
        for size in (n for n in range(1, rest + 1) if rest % n == 0):
            for more in split(rest // size, left[1:]):
                yield {left[0]: size} | more

    rest, over = divmod(num_chips, math.prod(fixed.values()))
    if not over:
        for sizes in split(rest, axes):
            yield fixed | sizes


def _unsuited(work: Workload, sizes: dict[str, int], topology: Topology) -> str | None:
    """Why the model or the machine rules a mesh out before anything is counted."""
    experts = work.model.moe.num_experts if work.model.moe is not None else 1
    if experts % sizes["expert"]:
        return f"does not divide: {experts} experts over expert {sizes['expert']}"
    if work.model.num_heads % sizes["model"]:
        return f"does not divide: {work.model.num_heads} heads over model {sizes['model']}"
    if sizes["data"] % topology.slices:
        return f"does not divide: data {sizes['data']} over {topology.slices} slices"
    if work.layout.sequence_parallel and work.seq_len % (sizes["context"] * sizes["model"]):
        return f"does not divide: {work.seq_len} positions over context * model = {sizes['context'] * sizes['model']}"
    ways = math.prod(sizes[axis] for axis in BATCH_AXES)
    if work.global_batch_size % ways:
        names = ("stage * " if sizes["stage"] > 1 else "") + "data * fsdp * expert"
        return f"does not divide: {work.global_batch_size} rows over {names} = {ways}"
    return None


def evaluate(
    work: Workload,
    topology: Topology,
    sizes: dict[str, int],
    *,
    grad_accum_steps: int,
    remat_policy: Any,
    loss_chunk: int | None,
    state: tuple[int, int],
) -> Plan:
    """Memory and time of one way to run it."""
    model = dataclasses.replace(work.model, remat_policy=remat_policy)
    rows = work.global_batch_size // grad_accum_steps // math.prod(sizes[axis] for axis in BATCH_AXES)
    share = Share.on(sizes, work.layout, rows=rows, seq_len=work.seq_len, loss_chunk=loss_chunk)
    step = decoder_step_bytes(model, share)
    memory = estimate_memory(param_bytes=state[0], state_bytes=state[1], step=step, accumulates=grad_accum_steps > 1)
    collectives = estimate_collectives(
        model,
        rows=rows,
        seq_len=work.seq_len,
        axis_sizes=sizes,
        grad_accum_steps=grad_accum_steps,
        loss_chunk=loss_chunk,
        slices=topology.slices,
        scatters=topology.chip.dims == 3,
        layout=work.layout,
        schedule=share.schedule,
    )
    flops = work.batch_tokens * train_flops_per_token(model, work.seq_len) / topology.num_chips
    time = roofline(
        topology,
        collectives,
        flops_per_chip=flops,
        recompute_flops_per_chip=recompute_flops(model, flops, share.schedule),
        state_bytes=state[1],
        schedule=share.schedule,
    )
    return Plan(sizes, grad_accum_steps, remat_policy, loss_chunk, memory, time, collectives, share.schedule)


def _ways_to_run(work: Workload, topology: Topology, sizes: dict[str, int]) -> Iterator[Plan]:
    """Every number of microbatches, policy and chunk on one mesh."""
    state = work.state_bytes(sizes)
    rows = work.global_batch_size // math.prod(sizes[axis] for axis in BATCH_AXES)
    pipeline = work.layout.pipeline
    asked = pipeline.num_microbatches if pipeline is not None and sizes["stage"] > 1 else None
    cut = 1 if asked is None else asked // sizes["stage"]  # a device's rows divide into so many
    for steps in (n for n in range(1, rows + 1) if rows % (n * cut) == 0):
        for policy in ("none", "dots", "full"):
            for chunk in (c for c in CHUNKS if c is None or c < work.seq_len):
                yield evaluate(
                    work,
                    topology,
                    sizes,
                    grad_accum_steps=steps,
                    remat_policy=policy,
                    loss_chunk=chunk,
                    state=state,
                )


def search(
    work: Workload, topology: Topology, *, fixed: dict[str, int] | None = None
) -> tuple[Plan | None, list[Refusal]]:
    """(the plan that is recommended, or None where nothing fits; every other mesh, the nearest to it first).

    Of what fits, that with the shortest step where nothing hides behind anything: what is sent counts even where it
    might be hidden. ``fixed``: sizes of axes that are not searched, or need not be.
    """
    fixed = {"stage": 1, "context": 1} | (fixed or {})
    axes = tuple(axis for axis in SEARCHED if axis not in fixed)
    room = HEADROOM * topology.chip.hbm_bytes
    plans: list[Plan] = []
    refused: list[Refusal] = []
    tried = list(meshes(topology.num_chips, axes, fixed)) if axes else [fixed]
    for sizes in tried:
        reason = _unsuited(work, sizes, topology)
        try:
            ways = [] if reason else list(_ways_to_run(work, topology, sizes))
        except UserError as error:
            reason, ways = f"does not divide: {error}", []
        fitting = [plan for plan in ways if plan.memory.total <= room]
        if fitting:
            plans.append(min(fitting, key=_order))
        elif ways:
            least = min(ways, key=lambda plan: plan.memory.total)
            term = least.memory.terms[0]
            reason = (
                f"does not fit: {least.memory.total / GIB:.1f} GiB at least, {room / GIB:.1f} to fill; most of it "
                f"{term.name}, {term.num_bytes / GIB:.1f}"
            )
            refused.append(Refusal(sizes, reason, least))
        else:
            refused.append(Refusal(sizes, reason or "nothing to try"))
    plans.sort(key=_order)
    if not plans:
        return None, sorted(refused, key=lambda r: math.inf if r.plan is None else r.plan.memory.total)
    best = plans[0]
    slower = [Refusal(plan.axis_sizes, _why_slower(plan, best), plan) for plan in plans[1:]]
    return best, slower + refused


def _order(plan: Plan) -> tuple[float, float]:
    return plan.time["sum_seconds"], plan.memory.total


def _why_slower(plan: Plan, best: Plan) -> str:
    parts = {"compute": "compute_seconds", "network": "ici_seconds", "slow network": "dcn_seconds"}
    lost = {name: plan.time[key] - best.time[key] for name, key in parts.items()}
    most = max(lost, key=lambda name: lost[name])
    times = f"{plan.time['sum_seconds']:.2f} s a step against {best.time['sum_seconds']:.2f}"
    if plan.time["sum_seconds"] <= best.time["sum_seconds"]:
        return f"as fast, with more memory: {times}"
    bound = f"bound by {plan.time['bound_by']}: " if plan.time["bound_by"] != "compute" else "slower: "
    return f"{bound}{times}, {lost[most]:.2f} s more {most}"
