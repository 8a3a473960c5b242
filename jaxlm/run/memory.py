"""The memory estimate that a person sees before the silence of a compilation, and the refusal of what cannot fit."""

import dataclasses
import math

from jax.sharding import Mesh

from jaxlm.core.errors import UserError
from jaxlm.plan.activations import Share
from jaxlm.plan.families import step_bytes
from jaxlm.plan.memory import HEADROOM, MemoryEstimate, estimate_memory, sharded_bytes
from jaxlm.run.config import PretrainConfig
from jaxlm.run.devices import device_memory_bytes
from jaxlm.run.setup import StateLayout
from jaxlm.sharding.mesh import batch_ways


def estimate_run_memory(config: PretrainConfig, layout: StateLayout, mesh: Mesh) -> MemoryEstimate:
    """Bytes on one device for a run of ``config`` (its model resolved) on ``mesh``."""
    sizes = dict(mesh.shape)
    rows = math.ceil(config.microbatch_size / batch_ways(mesh))
    share = Share.on(
        sizes,
        config.mesh.activations,
        rows=rows,
        seq_len=config.data.seq_len,
        loss_chunk=config.loss_chunk,
    )
    return estimate_memory(
        param_bytes=sharded_bytes(layout.abstract.params, layout.specs.params, sizes),
        state_bytes=sharded_bytes(layout.abstract, layout.specs, sizes),
        step=step_bytes(config.model, share),
        accumulates=config.at_largest_batch().grad_accum_steps > 1,
    )


def choose_remat(config: PretrainConfig, layout: StateLayout, mesh: Mesh, limit: int | None) -> PretrainConfig:
    """The config with ``model.remat_policy=auto`` decided: the least recomputation with which the estimate leaves a
    tenth of ``limit`` bytes free (the estimate errs by up to that), full where none does. None = no limit is known."""
    if getattr(config.model, "remat_policy", None) != "auto":
        return config
    ways = [
        dataclasses.replace(config, model=dataclasses.replace(config.model, remat_policy=policy))
        for policy in ("none", "dots", "full")
    ]
    if limit is None:
        return ways[0]
    return next((way for way in ways if estimate_run_memory(way, layout, mesh).total <= HEADROOM * limit), ways[-1])


def check_memory(estimate: MemoryEstimate) -> str:
    """The estimate as a line, with what to lower where it is more than the device has.

    Raises UserError where the state alone, which is known exactly, is more than the device has.
    """
    limit = device_memory_bytes()
    parts = ", ".join(f"{term.name} {format_bytes(term.num_bytes)}" for term in estimate.terms)
    line = f"memory a device: about {format_bytes(estimate.total)} ({parts})"
    if limit is None:
        return line
    line += f" of {format_bytes(limit)}"
    if estimate.total <= limit:
        return line
    state = [term for term in estimate.terms if term.name in ("parameters", "optimiser and EMA", "gradients")]
    if sum(term.num_bytes for term in state) > limit:
        raise UserError(f"{line}: the state alone does not fit; {state[0].lower}")
    largest = estimate.terms[0]
    return f"{line}: it may not fit. Largest: {largest.name}; {largest.lower}"


def format_bytes(num_bytes: float) -> str:
    """``1.50 GiB``."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if num_bytes >= size:
            return f"{num_bytes / size:.2f} {unit}"
    return f"{num_bytes:.0f} B"
