"""What a compiled step costs: memory by kind, buffers that do not fit and what to change, a bound on its time."""

import re
from typing import Any, NamedTuple

from jaxlm.models.families import ModelConfig
from jaxlm.plan.hlo import Collective
from jaxlm.plan.topology import GIB, Topology
from jaxlm.sharding.pipeline import Schedule

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


_USED = re.compile(r"[Uu]sed ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?)(?:i?B)? hbm")
_EARLY = re.compile(r"temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")


class Buffer(NamedTuple):
    """One allocation that the compiler names when a program does not fit."""

    num_bytes: int
    shape: str
    operator: str
    """The line of the model that made it, as XLA remembers it; may be empty."""
    category: str


class OutOfMemory(NamedTuple):
    """What the compiler said when the program did not fit."""

    used: int | None
    capacity: int | None
    buffers: tuple[Buffer, ...]
    """Largest first; empty where the compiler stopped before it laid them out."""
    what: str
    """What ``used`` counts."""


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def parse_out_of_memory(message: str) -> OutOfMemory | None:
    """The ranked buffers of a RESOURCE_EXHAUSTED error of the TPU compiler; None for any other error."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    used = _USED.search(message) or _EARLY.search(message)
    buffers = []
    for part in re.split(r"\n\s*\d+\. Size: ", message)[1:]:
        size = re.match(r"([\d.]+)([KMGT]?)", part)
        shape, operator, category = (
            re.search(pattern, part)
            for pattern in (r"Shape: (.*)", r'Operator: op_name="([^"]*)', r"Allocation type: (.*)")
        )
        if size:
            found = (m[1].strip() if m else "" for m in (shape, operator, category))
            buffers.append(Buffer(_bytes(size[1], size[2]), *found))
    buffers.sort(key=lambda buffer: -buffer.num_bytes)
    if used is None:
        return OutOfMemory(None, None, tuple(buffers), "unknown")
    # It says temporaries and counts arguments and results too: an array of 20 GiB plus one "requires" 48.
    what = "early sum" if "temporaries" in used[0] else "all"
    return OutOfMemory(_bytes(used[1], used[2]), _bytes(used[3], used[4]), tuple(buffers), what)


def advise(buffers: tuple[Buffer, ...], model: ModelConfig, *, seq_len: int, loss_chunk: int | None) -> list[str]:
    """What to change, for the buffers that take most, largest first; nothing where none is recognised."""
    advice: list[str] = []

    def say(line: str) -> None:
        if line not in advice:
            advice.append(line)

    vocab = getattr(model, "padded_vocab_size", None) or 0
    layers = getattr(model, "num_layers", 0)
    for buffer in buffers:
        dims = [int(size) for size in re.findall(r"\d+", buffer.shape.partition("[")[2].partition("]")[0])]
        has_vocab = any(vocab and size >= 1024 and vocab % size == 0 for size in dims) or "logits" in buffer.operator
        if has_vocab and len(dims) >= 3 and (loss_chunk is None or loss_chunk > 256):
            lower = "512" if loss_chunk is None else str(loss_chunk // 2)
            say(f"{buffer.shape} are logits: set --loss-chunk {lower}, or raise mesh.model")
        elif has_vocab:
            say(f"{buffer.shape} is a vocabulary table: raise mesh.model or mesh.fsdp")
        elif seq_len in dims and dims.count(seq_len) > 1:
            say(f"{buffer.shape} are attention weights: set model.attention=auto (splash on TPU)")
        elif len(dims) >= 4 and dims[0] in (layers, getattr(model, "num_groups", layers)):
            policy = getattr(model, "remat_policy", "full")
            if policy != "full":
                say(f"{buffer.shape} is kept for the backward pass: set model.remat_policy=full")
            say(f"{buffer.shape} is kept of every layer: raise grad_accum_steps, or lower the batch a device")
    return advice


def mesh_notes(model: ModelConfig, axis_sizes: dict[str, int]) -> list[str]:
    """What runs on a mesh of these sizes, but not as one would wish."""
    ways, notes = axis_sizes["model"], []
    heads, kv_heads = getattr(model, "num_heads", ways), getattr(model, "kv_heads", ways)
    if heads % ways:
        notes.append(f"model.num_heads={heads} does not divide over mesh.model={ways}: each device works out all heads")
    elif kv_heads % ways:
        notes.append(
            f"model.num_kv_heads={kv_heads} does not divide over mesh.model={ways}: each query head has its own copy"
        )
    return notes


def roofline(
    topology: Topology,
    collectives: list[Collective],
    *,
    flops_per_chip: float,
    recompute_flops_per_chip: float,
    state_bytes: int,
    schedule: Schedule | None = None,
) -> dict[str, Any]:
    """A lower bound on the time of one step, in seconds, and what it assumes. ``schedule``: of a pipeline's stages.

    The bound is the largest of the three rates alone: they overlap at best. ``sum_seconds``: none overlaps.
    """
    chip = topology.chip
    bubble = 0.0 if schedule is None else schedule.bubble
    compute = (flops_per_chip + recompute_flops_per_chip) / chip.peak_flops / (1 - bubble)
    hbm = 2 * state_bytes / chip.hbm_bandwidth
    ici = sum(c.wire_bytes for c in collectives if not c.crosses_slices) / chip.ici_bandwidth
    dcn = sum(c.wire_bytes for c in collectives if c.crosses_slices) / chip.dcn_bandwidth
    bound = max(compute, hbm, ici, dcn)
    return {
        "step_seconds": bound,
        "sum_seconds": compute + hbm + ici + dcn,
        "compute_seconds": compute,
        "state_hbm_seconds": hbm,
        "ici_seconds": ici,
        "dcn_seconds": dcn,
        "bound_by": max(("compute", compute), ("hbm", hbm), ("ici", ici), ("dcn", dcn), key=lambda x: x[1])[0],
        "mfu_at_bound": flops_per_chip / chip.peak_flops / bound if bound else None,
        "assumptions": [
            f"matrix products at the dense bf16 peak, {chip.peak_flops / 1e12:.0f} TFLOP/s a chip, recomputed ones "
            "included",
            f"the state read and written once at {chip.hbm_bandwidth / 1e12:.2f} TB/s; no other memory traffic",
            f"collectives one after another, each on a ring over one dimension of the torus, both ways, "
            f"{chip.ici_bandwidth / 1e9:.0f} GB/s a chip; no latency",
            f"between slices {chip.dcn_bandwidth / 1e9:.1f} GB/s a chip",
            *_assumed_of_stages(schedule),
            "step_seconds: the longest of these alone, all others hidden behind it; sum_seconds: nothing hidden",
        ],
    }


def _assumed_of_stages(schedule: Schedule | None) -> list[str]:
    if schedule is None:
        return []
    return [
        f"{schedule.stages} stages: each microbatch's forward pass through a stage is done again in the backward pass, "
        "a third of a step's products, whatever the remat policy (full: once more)",
        f"{schedule.microbatches} microbatches in {schedule.ticks} ticks: compute / (1 - {schedule.bubble:.4f}), the "
        "bubble; embeddings and head, outside of the stages, counted like layers",
    ]


def figures_table(figures: dict[str, Any]) -> str:
    """The figures as lines for a person."""
    memory = figures["bytes_per_device"]
    rows = [("compiled in", f"{figures['compile_seconds']:.1f} s, peak {figures['peak_host_bytes'] / GIB:.2f} GiB")]
    rows += [(name.replace("_", " "), f"{size / GIB:.3f} GiB") for name, size in memory.items() if size is not None]
    capacity = figures["hbm_bytes"]
    rows.append(("HBM of a chip", f"{capacity / GIB:.2f} GiB: " + ("fits" if figures["fits"] else "does not fit")))
    for kind, row in figures["collectives"].items():
        dcn = f", of them {row['dcn_bytes'] / GIB:.2f} between slices" if row["dcn_bytes"] else ""
        rows.append((kind, f"{row['runs']:,} runs, {row['bytes'] / GIB:.2f} GiB leave a device{dcn}"))
    rows.append(("FLOPs a step", f"{figures['flops_per_step']:.4e}, a chip {figures['flops_per_chip']:.4e}"))
    if bound := figures.get("roofline"):
        rows.append(("a step takes at least", f"{bound['step_seconds']:.2f} s, bound by {bound['bound_by']}"))
    if figures.get("used_bytes"):
        rows.append((f"needed ({figures['used']})", f"{figures['used_bytes'] / GIB:.2f} GiB"))
    for buffer in figures.get("buffers", [])[:12]:
        made_by = buffer.get("operator", "")
        rows.append(("buffer", f"{buffer['num_bytes'] / GIB:.2f} GiB {buffer['shape']} {made_by}".strip()))
    rows += [("note", line) for line in figures.get("notes", [])]
    rows += [("advice", line) for line in figures.get("advice", [])]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)


def recompute_flops(model: ModelConfig, train_flops: float, schedule: Schedule | None = None) -> float:
    """FLOPs of a step that rematerialisation adds: a forward pass, a third of the step, with full remat, and one more
    in a pipeline, which does each stage's work again; with ``dots`` attention alone, not counted; else none."""
    passes = (getattr(model, "remat_policy", "none") == "full") + (schedule is not None)
    return passes * train_flops / 3
