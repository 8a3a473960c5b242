"""``python -m tools.plan run CONFIG``: what a training run needs on a machine that is only described: memory, time and
chip-hours, and the mesh to run it on. Nothing is compiled, and no device is asked."""

import dataclasses
import functools
import json
import math
import sys
from typing import Any

import jax

from jaxlm.core.errors import UserError
from jaxlm.models.api import Model
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.families import for_platform, make_model
from jaxlm.optim.optimizers import make_optimizer
from jaxlm.plan.families import train_flops_per_token
from jaxlm.plan.hlo import summarise
from jaxlm.plan.memory import HEADROOM, sharded_bytes
from jaxlm.plan.search import Plan, Refusal, Workload, evaluate, search
from jaxlm.plan.topology import CHIPS, GIB, Topology, known_shapes, parse_topology
from jaxlm.run.compile_tpu import with_batch_tokens
from jaxlm.run.config import PretrainConfig
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.continued import on_base
from jaxlm.sharding.mesh import AXES, BATCH_AXES
from jaxlm.sharding.rules import param_specs, state_specs
from jaxlm.train.state import create_state

PROG = "python -m tools.plan run"
SHOWN = 12
"""Refused meshes in the table; the JSON has them all."""
DAY = 86400.0
STAGES_CHECKED = "its memory is counted, not fitted (docs/pipeline.md): ask tools.compile_tpu"
"""Of a plan with stages."""


@dataclasses.dataclass(frozen=True)
class PlanOptions(CommandOptions):
    """Options of the plan, beside the config of the run."""

    topology: str | None = None
    """The slice: v5p:8x8x16, v5e:16x16, v4:12x16x16... None = the smallest of ``chip`` that the other options allow."""
    slices: int = 1
    """How many such slices, joined by the data-centre network."""
    chip: str = "v5p"
    """The kind of chip, where no topology is given."""
    chips: int | None = None
    """Chips, where no topology is given."""
    flops: float | None = None
    """Training compute, 6ND and attention, as in 3.1e23; None = what num_steps of the config come to."""
    tokens: float | None = None
    """Tokens to train on, in place of ``flops``."""
    days: float | None = None
    """The time there is: the smallest slice that is fast enough, or with a topology and no other budget, the tokens
    that fit into it."""
    batch_tokens: int | None = None
    """Tokens in a step, in place of global_batch_size * data.seq_len."""
    mfu: float | None = None
    """Share of the chips' peak that is reached, where it is known; None = the bound, and nothing hidden."""


def main(argv: list[str]) -> int:
    """``CONFIG [--topology NAME | --chips N] [--flops C | --tokens D] [--days D] [--field.sub value ...]``.

    A table goes to stderr, one JSON object to stdout. The exit code: 0 = there is a plan, 1 = nothing fits, 2 = bad
    input.
    """
    about = "What a run needs on a machine, and the mesh to run it on."
    config, options = load_config(PretrainConfig, argv, PlanOptions, prog=PROG, about=about)
    config = on_base(config)
    _check(config, options)
    config = with_batch_tokens(config, options.batch_tokens)
    work = workload(config)
    if options.topology is not None or options.chips is not None:
        topology = _named(options)
        best, refused = search(work, topology, fixed=_fixed(config))
    else:
        topology, best, refused = _smallest(work, config, options)
    figures = plan_figures(config, work, topology, options, best, refused)
    print(plan_table(figures), file=sys.stderr)
    print(json.dumps(figures))
    return 0 if best is not None else 1


def _check(config: PretrainConfig, options: PlanOptions) -> None:
    if not isinstance(config.model, DecoderConfig):
        raise UserError(f"plans are made for decoders, and model.family is {config.model.family}: see --dry-run")
    if config.batch_ramp:
        raise UserError(
            "plans are for batches of one size: leave out batch_ramp, and give the --batch-tokens of most steps"
        )
    if config.model.vocab_size is None:
        raise UserError("model.vocab_size=None is the tokenizer's, and there is none here: give --model.vocab-size")
    if options.flops is not None and options.tokens is not None:
        raise UserError("--flops and --tokens say the same twice: give one")
    if options.topology is not None and options.chips is not None:
        raise UserError("--topology and --chips say the same twice: give one")
    for name in ("chips", "flops", "tokens", "days", "mfu", "batch_tokens"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {value} must be above 0, and a number")
    if options.mfu is not None and options.mfu > 1:
        raise UserError(f"--mfu {options.mfu} is a share of the peak: at most 1")
    if options.slices < 1:
        raise UserError(f"--slices {options.slices} must be at least 1")
    if options.days is not None and _is_machine_given(options) and (options.flops or options.tokens):
        raise UserError(
            "--days, a machine and --flops or --tokens together say one thing too many: leave out --days to see how "
            "long it takes, or the machine for the smallest that ends in time"
        )
    if options.topology is None and options.chips is None and options.days is None:
        raise UserError(f"no machine given: {PROG} CONFIG --topology v5p:8x8x16, or --chips N, or --days D")


def _named(options: PlanOptions) -> Topology:
    """The slice that --topology names, or the most even one of --chips."""
    if options.topology is not None:
        return parse_topology(options.topology, options.slices)
    assert options.chips is not None
    chips, shapes = options.chips, _shapes(options.chip)
    wanted, rest = divmod(chips, options.slices)
    fitting = [shape for shape in shapes if math.prod(shape) == wanted and not rest]
    if not fitting:
        sizes = sorted({math.prod(shape) * options.slices for shape in shapes}, key=lambda n: abs(n - chips))
        near = ", ".join(str(n) for n in sorted(sizes[:3]))
        each = f" in {options.slices} slices" if options.slices > 1 else ""
        raise UserError(f"no {options.chip} has --chips {chips}{each}: near it are {near}")
    even = min(fitting, key=lambda shape: max(shape) - min(shape))
    return parse_topology(f"{options.chip}:{'x'.join(map(str, even))}", options.slices)


def _shapes(chip: str) -> list[tuple[int, ...]]:
    if chip not in CHIPS:
        parse_topology(chip)  # its refusal offers near names
    return known_shapes(CHIPS[chip])


def _smallest(
    work: Workload, config: PretrainConfig, options: PlanOptions
) -> tuple[Topology, Plan | None, list[Refusal]]:
    """The smallest slice on which the run fits and ends in ``options.days``; the largest where it fits on none. Raises
    UserError where it fits and takes longer."""
    sizes: dict[int, PlanOptions] = {}
    for shape in _shapes(options.chip):
        chips = math.prod(shape) * options.slices
        sizes.setdefault(chips, dataclasses.replace(options, chips=chips))
    assert options.days is not None
    found: tuple[Topology, Plan | None, list[Refusal]] | None = None
    fastest: tuple[float, Topology] | None = None
    for _, asked in sorted(sizes.items()):
        topology = _named(asked)
        if _least_seconds(work, topology) * _steps(config, work, options) > options.days * DAY:
            continue
        best, refused = search(work, topology, fixed=_fixed(config))
        found = topology, best, refused
        if best is None:
            continue
        days = _days(best, _steps(config, work, options), options, topology, work)[1]
        if days <= options.days:
            return found
        if fastest is None or days < fastest[0]:
            fastest = days, topology
    if fastest is not None:
        raise UserError(
            f"--days {options.days:g}: the fastest {options.chip} slice that the batch divides over, "
            f"{fastest[1].name}, takes {fastest[0]:.3g}: give more days, more --slices, another --chip, or "
            "more --batch-tokens"
        )
    if found is None:
        raise UserError(
            f"--days {options.days:g} is less than the largest {options.chip} slice needs at its peak: give more days, "
            "more --slices, or another --chip"
        )
    return found


def _fixed(config: PretrainConfig) -> dict[str, int]:
    """Axes that the search leaves as they are."""
    return {"stage": config.mesh.stage, "context": config.mesh.context}


def _least_seconds(work: Workload, topology: Topology) -> float:
    flops = work.batch_tokens * train_flops_per_token(work.model, work.seq_len)
    return flops / topology.num_chips / topology.chip.peak_flops


def workload(config: PretrainConfig) -> Workload:
    """What the config asks for, its state as shapes. Each device's rows of the vocabulary fill whole tiles, so that
    ``mesh.model`` can be any size."""
    assert isinstance(config.model, DecoderConfig)
    decoder = for_platform(config.model, "tpu")
    assert isinstance(decoder, DecoderConfig)

    @functools.cache
    def shapes(multiple: int) -> tuple[Model, Any]:
        model = make_model(dataclasses.replace(decoder, vocab_multiple=multiple))
        tx = make_optimizer(config.optimizer, config.num_steps)
        ema = config.ema_decay is not None
        return model, jax.eval_shape(lambda key: create_state(model.init(key), tx, carry=None, ema=ema), _key())

    def state_bytes(sizes: dict[str, int]) -> tuple[int, int]:
        multiple = decoder.vocab_multiple
        if multiple % sizes["model"]:
            multiple = 128 * sizes["model"]
        model, state = shapes(multiple)
        params = param_specs(model.rules, state.params, sizes)
        specs = state_specs(state, state.params, params)
        return sharded_bytes(state.params, params, sizes), sharded_bytes(state, specs, sizes)

    return Workload(decoder, config.data.seq_len, config.global_batch_size, state_bytes, config.mesh.activations)


def _key() -> Any:
    return jax.ShapeDtypeStruct((), jax.random.key(0).dtype)


def _steps(config: PretrainConfig, work: Workload, options: PlanOptions) -> int:
    """Steps of the whole run."""
    if options.tokens is not None:
        return math.ceil(options.tokens / work.batch_tokens)
    if options.flops is not None:
        return math.ceil(options.flops / (work.batch_tokens * train_flops_per_token(work.model, work.seq_len)))
    return config.num_steps


def _days(plan: Plan, steps: float, options: PlanOptions, topology: Topology, work: Workload) -> tuple[float, float]:
    """(at least, where nothing hides behind anything) of the run; the same twice where --mfu says what is reached."""
    if options.mfu is not None:
        seconds = _least_seconds(work, topology) / options.mfu
        return steps * seconds / DAY, steps * seconds / DAY
    return steps * plan.time["step_seconds"] / DAY, steps * plan.time["sum_seconds"] / DAY


def plan_figures(
    config: PretrainConfig,
    work: Workload,
    topology: Topology,
    options: PlanOptions,
    best: Plan | None,
    refused: list[Refusal],
) -> dict[str, Any]:
    """The plan as a JSON object."""
    flops = train_flops_per_token(work.model, work.seq_len)
    steps = _steps(config, work, options)
    budgeted = options.flops is not None or options.tokens is not None
    if best is not None and options.days is not None and not budgeted and _is_machine_given(options):
        one = _days(best, 1, options, topology, work)[1]
        steps = math.floor(options.days / one)
        if not steps:
            raise UserError(f"--days {options.days} ends before the first step, which takes {one * DAY:.3g} s")
    figures: dict[str, Any] = {
        "name": config.name,
        "topology": topology.name,
        "slices": topology.slices,
        "chips": topology.num_chips,
        "hbm_bytes": topology.chip.hbm_bytes,
        "filled_to": HEADROOM,
        "batch_tokens": work.batch_tokens,
        "seq_len": work.seq_len,
        "steps": steps,
        "tokens": steps * work.batch_tokens,
        "flops": steps * work.batch_tokens * flops,
        "recommended": None,
        "as_configured": as_configured(config, work, topology),
        "refused": [_refusal_row(refusal) for refusal in refused],
    }
    if best is None:
        return figures
    least, most = _days(best, steps, options, topology, work)
    return figures | {
        "recommended": _plan_row(best),
        "days": [least, most],
        "chip_hours": [24 * least * topology.num_chips, 24 * most * topology.num_chips],
        "overrides": overrides(best, work, steps),
        "assumptions": best.time["assumptions"],
    }


def _is_machine_given(options: PlanOptions) -> bool:
    return options.topology is not None or options.chips is not None


def as_configured(config: PretrainConfig, work: Workload, topology: Topology) -> dict[str, Any] | str:
    """The config's own mesh, judged alike; or why it does not go there."""
    try:
        sizes = config.mesh.axis_sizes(topology.num_chips)
        if sizes["data"] % topology.slices:
            return f"mesh.data={sizes['data']} does not divide over {topology.slices} slices"
        ways = math.prod(sizes[axis] for axis in BATCH_AXES)
        if config.microbatch_size % ways:
            return f"microbatches of {config.microbatch_size} rows do not divide over {ways} devices"
        asked = config.mesh.pipeline.num_microbatches or 1
        if sizes["stage"] > 1 and config.microbatch_size * sizes["stage"] % (asked * ways):
            return f"{config.microbatch_size} rows do not divide into mesh.pipeline.num_microbatches={asked}"
        if (rows := work.model.padded_vocab_size or 0) % sizes["model"]:
            multiple = 128 * sizes["model"]
            return (
                f"a vocabulary of {rows} rows does not divide over mesh.model={sizes['model']}: set "
                f"model.vocab_multiple={multiple}"
            )
        plan = evaluate(
            work,
            topology,
            sizes,
            grad_accum_steps=config.grad_accum_steps,
            remat_policy=work.model.remat_policy,
            loss_chunk=config.loss_chunk,
            state=work.state_bytes(sizes),
        )
    except UserError as error:
        return str(error)
    return _plan_row(plan)


def _plan_row(plan: Plan) -> dict[str, Any]:
    return {
        "mesh": {axis: plan.axis_sizes[axis] for axis in AXES},
        "grad_accum_steps": plan.grad_accum_steps,
        "remat_policy": plan.remat_policy,
        "loss_chunk": plan.loss_chunk,
        "pipeline": None if plan.schedule is None else plan.schedule._asdict() | {"bubble": plan.schedule.bubble},
        "memory_bytes": plan.memory.total,
        "memory_terms": {term.name: term.num_bytes for term in plan.memory.terms},
        "collectives": summarise(plan.collectives),
        **{key: value for key, value in plan.time.items() if key != "assumptions"},
    }


def _refusal_row(refusal: Refusal) -> dict[str, Any]:
    return {"mesh": {axis: refusal.axis_sizes[axis] for axis in AXES}, "reason": refusal.reason}


def overrides(plan: Plan, work: Workload, steps: int) -> str:
    """The plan as options of ``experiments.pretrain`` and ``tools.compile_tpu``."""
    parts = [f"--mesh.{axis} {plan.axis_sizes[axis]}" for axis in AXES]
    parts.append(f"--global-batch-size {work.global_batch_size} --grad-accum-steps {plan.grad_accum_steps}")
    parts.append(f"--num-steps {steps}")
    parts += [f"--model.remat-policy {plan.remat_policy}", f"--loss-chunk {plan.loss_chunk}"]
    if plan.schedule is not None:
        parts.append(f"--mesh.pipeline.rounds {plan.schedule.rounds}")
        parts.append(f"--mesh.pipeline.num-microbatches {plan.schedule.microbatches}")
    if work.layout.sequence_parallel:
        parts.append("--mesh.sequence-parallel")
    if plan.axis_sizes["model"] > 1:
        parts.append(f"--model.vocab-multiple {128 * plan.axis_sizes['model']}")
    return " ".join(parts)


def plan_table(figures: dict[str, Any]) -> str:
    """The figures as lines for a person."""
    chips = f"{figures['chips']:,} chips" + (f" in {figures['slices']} slices" if figures["slices"] > 1 else "")
    rows = [
        ("machine", f"{figures['topology']}, {chips}"),
        ("run", f"{figures['tokens']:.4g} tokens, {figures['steps']:,} steps of {figures['batch_tokens']:,}"),
        ("training FLOPs", f"{figures['flops']:.4g}"),
    ]
    for title, plan in (("recommended", figures["recommended"]), ("as configured", figures["as_configured"])):
        rows += _plan_lines(title, plan, figures)
    if figures["recommended"] is not None:
        (least, most), (hours, hours_most) = figures["days"], figures["chip_hours"]
        range_ = f"{least:.2f} (all hidden) to {most:.2f} (nothing hidden)"
        rows.append(("days", range_ if least < most else f"{least:.2f} (by --mfu)"))
        rows.append(("chip-hours", f"{hours:,.0f} to {hours_most:,.0f}"))
        rows.append(("options", figures["overrides"]))
    for refusal in figures["refused"][:SHOWN]:
        mesh = " x ".join(f"{axis} {size}" for axis, size in refusal["mesh"].items() if size > 1) or "one device"
        rows.append(("refused", f"{mesh}: {refusal['reason']}"))
    if len(figures["refused"]) > SHOWN:
        rows.append(("refused", f"and {len(figures['refused']) - SHOWN} more, in the JSON"))
    width = max(len(label) for label, _ in rows)
    return "\n".join([figures["name"], *(f"  {label:<{width}}  {value}" for label, value in rows)])


def _plan_lines(title: str, plan: Any, figures: dict[str, Any]) -> list[tuple[str, str]]:
    if plan is None:
        room = f"{figures['filled_to']:.0%} of {figures['hbm_bytes'] / GIB:.2f} GiB"
        counted = any(not refusal["reason"].startswith("does not divide") for refusal in figures["refused"])
        return [(title, f"nothing fits into {room}" if counted else "no mesh divides: change the batch or the machine")]
    if isinstance(plan, str):
        return [(title, plan)]
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1) or "one device"
    chunk = f", loss_chunk {plan['loss_chunk']}"
    lines = [(title, f"{mesh}, {plan['grad_accum_steps']} microbatches, remat {plan['remat_policy']}{chunk}")]
    if (pipeline := plan["pipeline"]) is not None:
        rounds = f" in {pipeline['rounds']} rounds" if pipeline["rounds"] > 1 else ""
        cut = f"each cut into {pipeline['microbatches']}{rounds}, bubble {pipeline['bubble']:.1%}"
        lines.append(("  pipeline", f"{cut}; {STAGES_CHECKED}"))
    lines.append(("  memory", f"{plan['memory_bytes'] / GIB:.2f} of {figures['hbm_bytes'] / GIB:.2f} GiB at the most"))
    lines += [(f"    {name}", f"{size / GIB:.2f} GiB") for name, size in plan["memory_terms"].items()]
    lines.append(
        (
            "  a step",
            f"{plan['step_seconds']:.2f} s at least (bound by {plan['bound_by']}), {plan['sum_seconds']:.2f} s with "
            "nothing hidden",
        )
    )
    return lines
