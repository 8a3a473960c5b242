"""The real train step compiled for a TPU slice that is only described: libtpu is the compiler, no device is needed.

Nothing is ever made but shapes: what the compiler says of memory, collectives and fit is what it will say on the pod.
"""

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.core.tree import count_params
from jaxlm.data.batches import planned_batch_keys
from jaxlm.io.writing import check_new_file
from jaxlm.models.families import MASKED, for_platform, make_model, width_of
from jaxlm.optim.optimizers import make_optimizer
from jaxlm.plan.compiled import advise, figures_table, mesh_notes, parse_out_of_memory, recompute_flops, roofline
from jaxlm.plan.families import train_flops_per_token
from jaxlm.plan.hlo import find_collectives, summarise
from jaxlm.plan.memory import MemoryEstimate, sharded_bytes
from jaxlm.plan.topology import Topology, parse_topology
from jaxlm.run.assembly import step_of
from jaxlm.run.config import PretrainConfig
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.continued import on_base
from jaxlm.run.libtpu import describe_no_tpu, has_libtpu
from jaxlm.run.memory import choose_remat, estimate_run_memory
from jaxlm.run.setup import StateLayout, abstract_batch, check_rows, lay_out_state, lower_train_step
from jaxlm.sharding.mesh import make_mesh
from jaxlm.sharding.pipeline import choose_schedule

PROG = "python -m tools.compile_tpu"


@dataclasses.dataclass(frozen=True)
class CompileOptions(CommandOptions):
    """Options of a compilation for any devices, beside the config of the run."""

    batch_tokens: int | None = None
    """Tokens in a step, in place of global_batch_size * data.seq_len."""
    hlo: str | None = None
    """A file for the text of the compiled program."""


@dataclasses.dataclass(frozen=True)
class TpuOptions(CompileOptions):
    """Which TPUs."""

    topology: str | None = None
    """The slice: v5p:8x8x16, v5e:16x16, v4:12x16x16..."""
    slices: int = 1
    """How many such slices, joined by the data-centre network; mesh.data is a multiple of it."""


def main(argv: list[str]) -> int:
    """``CONFIG --topology NAME [--slices N] [--batch-tokens N] [--field.sub value ...]``.

    A table goes to stderr, one JSON object to stdout. The exit code: 0 = fits, 1 = does not fit, 2 = bad input.
    """
    about = (
        "Compiles the train step for TPUs that are not there: does it fit, what it moves, how long it takes at least."
    )
    config, options = load_config(PretrainConfig, argv, TpuOptions, prog=PROG, about=about)
    config = on_base(config)
    if options.topology is None:
        raise UserError(f"no --topology given: {PROG} CONFIG --topology v5p:8x8x16")
    topology = parse_topology(options.topology, options.slices)
    config = with_batch_tokens(config, options.batch_tokens)
    return conclude(compile_for(config, topology, hlo_path=options.hlo))


def conclude(figures: dict[str, Any]) -> int:
    """Prints what a compilation found; returns the exit code."""
    print(figures_table(figures), file=sys.stderr)
    print(json.dumps(figures))
    return 0 if figures["fits"] else 1


def with_batch_tokens(config: PretrainConfig, batch_tokens: int | None) -> PretrainConfig:
    """The config with a global batch of so many tokens. Raises UserError where they are no whole microbatches."""
    if batch_tokens is None:
        return config
    rows, rest = divmod(batch_tokens, config.data.seq_len)
    if rest or not rows or rows % config.grad_accum_steps:
        raise UserError(
            f"--batch-tokens {batch_tokens} is not a multiple of data.seq_len * grad_accum_steps = "
            f"{config.data.seq_len * config.grad_accum_steps}: round it"
        )
    return dataclasses.replace(config, global_batch_size=rows)


def described_devices(topology: Topology) -> list[Any]:
    """Devices that can be compiled for and nothing else. Raises UserError without libtpu."""
    if not has_libtpu():
        raise UserError("libtpu, the compiler for TPUs, is not installed: pip install 'jaxlm[tpu]'")
    describe_no_tpu()
    extra: dict[str, Any] = {"chip_config_name": "megacore"} if topology.chip.name == "v4" else {}
    if topology.slices > 1:
        extra["num_slices"] = topology.slices
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **extra)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"libtpu does not know {topology.name}: {error}") from error
    assert len(found.devices) == topology.num_chips
    return list(found.devices)


def compile_for(
    config: PretrainConfig,
    topology: Topology,
    *,
    hlo_path: str | None = None,
    platform: str = "tpu",
    describe: Callable[[Topology], list[Any]] = described_devices,
) -> dict[str, Any]:
    """Compiles the step of ``config`` for ``topology``; the figures as a JSON object. ``describe``: the topology as
    devices of ``platform`` that can be compiled for.

    Where batches grow, the step of the largest is compiled. Raises UserError, before anything is compiled, where mesh,
    batch or model do not divide.
    """
    if hlo_path is not None:
        check_new_file(hlo_path)
    config = config.at_largest_batch()
    config.mesh.axis_sizes(topology.num_chips)
    if config.model.vocab_size is None:
        raise UserError("model.vocab_size=None is the tokenizer's, and there is none here: give --model.vocab-size")
    jax.config.update("jax_platforms", "cpu")  # a TPU that is there is left alone
    config = dataclasses.replace(config, model=for_platform(config.model, platform))
    mesh = make_mesh(config.mesh, describe(topology))
    check_rows(
        mesh,
        global_batch_size=config.global_batch_size,
        microbatch_size=config.microbatch_size,
        pipeline=config.mesh.pipeline,
    )
    model = make_model(config.model, config.mesh.activations)
    tx = make_optimizer(config.optimizer, config.num_steps, width=width_of(config.model))
    streamed = config.data.packing == "stream"
    layout = lay_out_state(
        model,
        tx,
        mesh,
        seed=config.seed,
        ema=config.ema_decay is not None,
        carry=(lambda: model.init_cache(config.global_batch_size, 0)) if streamed else (lambda: None),
    )
    config = choose_remat(config, layout, mesh, topology.chip.hbm_bytes)
    model = make_model(config.model, config.mesh.activations)
    keys = planned_batch_keys(config.data.packing, masked=config.model.family in MASKED)
    batch = abstract_batch(keys, config.global_batch_size, config.data.seq_len, mesh)
    key = jax.eval_shape(lambda: purpose_key(config.seed, Purpose.DROPOUT))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=NamedSharding(mesh, PartitionSpec()))
    estimate = estimate_run_memory(config, layout, mesh)
    figures = _asked(config, topology, mesh, layout, batch) | {
        "estimate": {t.name: t.num_bytes for t in estimate.terms}
    }
    step = step_of(config, model, tx, streamed=streamed)
    start = time.perf_counter()
    lowered = lower_train_step(step, layout, batch, mesh, key=key, sequence_parallel=config.mesh.sequence_parallel)
    traced = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        times = _times(traced - start, time.perf_counter() - traced)
        return figures | times | _refused(str(error), config, topology, estimate)
    figures |= _times(traced - start, time.perf_counter() - traced)
    text = compiled.as_text() or ""
    if hlo_path is not None:
        with open(hlo_path, "w", encoding="utf-8") as file:
            file.write(text)
    return figures | _found(compiled, text, config, topology, figures)


def _asked(
    config: PretrainConfig, topology: Topology, mesh: Mesh, layout: StateLayout, batch: dict[str, Any]
) -> dict[str, Any]:
    """What is known before compiling."""
    sizes = dict(mesh.shape)
    flops = config.tokens_per_step * train_flops_per_token(config.model, config.data.seq_len)
    params = sharded_bytes(layout.abstract.params, layout.specs.params, sizes)
    state = sharded_bytes(layout.abstract, layout.specs, sizes)
    rows = jax.tree.map(lambda s: s.sharding.spec, batch)
    return {
        "name": config.name,
        "topology": topology.name,
        "slices": topology.slices,
        "chips": topology.num_chips,
        "mesh": sizes,
        "num_params": count_params(layout.abstract.params),
        "batch_tokens": config.tokens_per_step,
        "seq_len": config.data.seq_len,
        "grad_accum_steps": config.grad_accum_steps,
        "remat_policy": getattr(config.model, "remat_policy", None),
        "attention": getattr(config.model, "attention", None),
        "loss_chunk": config.loss_chunk,
        "optimizer": config.optimizer.name,
        "notes": mesh_notes(config.model, sizes),
        "hbm_bytes": topology.chip.hbm_bytes,
        "flops_per_step": flops,
        "flops_per_chip": flops / topology.num_chips,
        "bytes_per_device": {
            "params": params,
            "optimizer_state": state - params,
            "batch": sharded_bytes(batch, rows, sizes),
        },
    }


def _times(trace_seconds: float, compile_seconds: float) -> dict[str, Any]:
    return {
        "trace_seconds": round(trace_seconds, 2),
        "compile_seconds": round(compile_seconds, 2),
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _found(
    compiled: Any, text: str, config: PretrainConfig, topology: Topology, figures: dict[str, Any]
) -> dict[str, Any]:
    """What the compiled program says of itself."""
    stats: Any = compiled.memory_analysis()
    total = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )
    known = figures["bytes_per_device"]
    memory = known | {
        "arguments": stats.argument_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "output": stats.output_size_in_bytes,
        "aliased": stats.alias_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
        "total": total,
        "peak": stats.peak_memory_in_bytes,
    }
    collectives = find_collectives(text, num_devices=topology.num_chips, slices=topology.slices)
    flops = figures["flops_per_chip"]
    schedule = choose_schedule(config.mesh.pipeline, config.microbatch_size, figures["mesh"])
    return {
        "bytes_per_device": memory,
        "fits": memory["peak"] <= topology.chip.hbm_bytes,  # libtpu refuses what does not; the compiler for GPUs says
        "collectives": summarise(collectives),
        "largest_collectives": [c._asdict() | {"wire_bytes": round(c.wire_bytes)} for c in collectives[:8]],
        "roofline": roofline(
            topology,
            collectives,
            flops_per_chip=flops,
            recompute_flops_per_chip=recompute_flops(config.model, flops, schedule),
            state_bytes=known["params"] + known["optimizer_state"],
            schedule=schedule,
        ),
    }


def _refused(message: str, config: PretrainConfig, topology: Topology, estimate: MemoryEstimate) -> dict[str, Any]:
    """What the compiler said of a step that does not fit. Any other error of the compiler is raised again.

    Where it names no buffers, the terms of the estimate stand for them.
    """
    found = parse_out_of_memory(message)
    if found is None:
        raise RuntimeError(message)
    advice = advise(found.buffers, config.model, seq_len=config.data.seq_len, loss_chunk=config.loss_chunk)
    done = "set model.remat_policy=full; " if getattr(config.model, "remat_policy", "") == "full" else "\n"
    advice = [*advice, *(f"{term.name}: {term.lower.replace(done, '')}" for term in estimate.terms[:3])]
    advice.append(f"python -m tools.plan run CONFIG --topology {topology.name} names meshes and microbatches that fit")
    terms = [{"num_bytes": term.num_bytes, "shape": f"{term.name} (estimate)"} for term in estimate.terms]
    return {
        "fits": False,
        "hbm_bytes": found.capacity or topology.chip.hbm_bytes,
        "used_bytes": found.used,
        "used": found.what,
        "buffers": [buffer._asdict() for buffer in found.buffers] or terms,
        "advice": advice,
        "collectives": {},
    }
