"""What the train step of a decoder sends on a mesh, estimated: the collectives that XLA makes of the rule table.

Counted from what compiled programs hold (docs/compile.md); what they send beside, mostly small, is not here.
"""

import math

from jaxlm.core.dtypes import as_dtype
from jaxlm.models.decoder import DecoderConfig
from jaxlm.nn.context_attention import exchanges
from jaxlm.plan.activations import layer_params
from jaxlm.plan.hlo import Collective
from jaxlm.plan.params import attention_params
from jaxlm.sharding.activations import DEFAULT_LAYOUT, ActivationLayout
from jaxlm.sharding.pipeline import Schedule


def estimate_collectives(
    config: DecoderConfig,
    *,
    rows: int,
    seq_len: int,
    axis_sizes: dict[str, int],
    grad_accum_steps: int,
    loss_chunk: int | None,
    slices: int = 1,
    scatters: bool = True,
    layout: ActivationLayout = DEFAULT_LAYOUT,
    schedule: Schedule | None = None,
) -> list[Collective]:
    """The collectives of one step. ``rows``: of one microbatch on one device. ``scatters``: gradients are summed by
    reduce-scatter (a torus of three dimensions); else by all-reduce, at twice the bytes, as XLA does on v5e.
    ``schedule``: of a pipeline's stages, each of which has its layers whole from the first tick to the last."""
    data, expert, context, model = (axis_sizes[axis] for axis in ("data", "expert", "context", "model"))
    fsdp = axis_sizes["fsdp"] * context  # both split the state
    item, tokens = as_dtype(config.compute_dtype).itemsize, rows * seq_len / context
    recomputes = config.remat_policy == "full"
    forwards, layers, micro = 1 + recomputes, config.num_layers, grad_accum_steps
    passes, ways = layers * micro, fsdp  # forward passes of a layer over the device's tokens
    found: list[Collective] = []

    def add(kind: str, num_bytes: float, times: int, group: int, where: str, *, crosses: bool = False) -> None:
        if group > 1 and num_bytes and times:
            found.append(Collective(kind, int(num_bytes), times, group, crosses, where, where))

    def add_copies(num_bytes: float, times: int, where: str) -> None:
        """Summed over ``data``: within each slice first, of which each device then sends its part to the others."""
        inside = data // slices
        add("all-reduce", num_bytes, times, inside, where)
        add("all-reduce", num_bytes / inside, times, slices, f"{where}, between slices", crosses=True)

    summed = "reduce-scatter" if scatters else "all-reduce"
    params = layer_params(config, model_ways=model, expert_ways=expert)
    shared = params if config.moe is None else attention_params(config) / model
    if schedule is None:
        weights = item * params
        add("all-gather", weights, 2 * layers * micro, fsdp, "fsdp: weights of a layer, forward and backward")
        add(summed, weights, layers * micro, fsdp, "fsdp: gradients of a layer")
        add("all-reduce", item * shared / fsdp, layers * micro, expert, "expert: gradients of what all experts share")
    else:
        stages, forwards, layers = schedule.stages, forwards + 1, layers // schedule.stages
        passes, ways = layers // schedule.rounds * schedule.ticks * micro, fsdp * stages
        tokens /= schedule.slots
        weights = as_dtype(config.param_dtype).itemsize * params
        add("all-gather", weights, layers * micro, fsdp, "fsdp: weights of a stage, once")
        if schedule.rounds == 1:
            add(summed, weights, layers * micro, fsdp, "fsdp: gradients of a stage, once")
        else:  # XLA sums them whole before the exchange
            add("all-reduce", weights, layers * micro, fsdp, "fsdp: gradients of a stage, once")
            add("collective-permute", weights / fsdp, 2 * layers * micro, stages, "stage: layers exchanged")
        stream = item * tokens * config.model_dim / model
        # Passed on: the stream, the rows that wait to enter and those that have come out; each forward and back.
        add("collective-permute", stream, 6 * schedule.ticks * micro, stages, "stage: hidden states passed on")
        add("all-reduce", item * shared, passes, expert, "expert: gradients of what all experts share, in each tick")
    add_copies(weights / fsdp, layers * micro, "data: gradients of a layer")

    table = item * config.padded_vocab_size / model * config.model_dim
    chunks = 1 if loss_chunk is None or loss_chunk >= seq_len else -(-seq_len // loss_chunk)
    add("all-gather", table, micro * (1 + 2 * chunks), ways, "fsdp: the embedding's table, and the head's a chunk")
    add("all-reduce", table, micro * chunks, ways, "fsdp: gradient of the head, a chunk")
    add(summed, table, micro, ways, "fsdp: gradient of the embedding")
    add_copies(table / fsdp, micro * (chunks + 1), "data: gradients of the tables")

    stream = item * tokens * config.model_dim
    parts = 1 if config.parallel_block else 2
    again = (parts - 1) * recomputes  # sums that are done again for what follows them in the layer
    if schedule is None and layout.sequence_parallel:
        add("all-gather", stream, parts * (forwards + 1) * passes, model, "model: the stream, before products")
        add("reduce-scatter", stream, (2 * parts + again) * passes, model, "model: sums of attention and MLP")
    elif schedule is None:
        add("all-reduce", stream, (4 + again) * passes, model, "model: sums of attention and MLP")
    else:  # the stream is split by width: before each product it is gathered, after each scattered
        add("all-gather", stream, (2 * forwards + 5) * passes, model, "model: the stream, before products")
        add("reduce-scatter", stream, (6 + recomputes) * passes, model, "model: sums of attention and MLP")
    own_rows = item * rows * seq_len / context * config.model_dim
    add("all-reduce", own_rows, 2 * micro, model, "model: embeddings, and the head's gradient")
    heads = config.num_heads // model if config.num_heads % model == 0 else config.num_heads
    width = item * tokens * (config.qk_width + config.v_width)
    if exchanges(layout.context_attention, heads, context):
        keys = math.lcm(config.kv_heads, model * context) / model  # repeated, so that each device has some
        times = (1 + forwards) * passes
        add("all-to-all", width * (heads + keys), times, context, "context: heads for positions, and back")
    else:
        keys, turns = width * config.kv_heads / model, (context - 1) * (1 + forwards) * passes
        add("collective-permute", keys, turns, context, "context: keys and values round the ring")
        gradients = keys * 4 / item  # summed in f32 on their way, and at last sent home
        add("collective-permute", gradients, context * passes, context, "context: their gradients")
    if config.moe is not None:
        group = expert * stream
        add("all-gather", group, (1 + forwards) * passes, expert, "expert: tokens of the group")
        add("reduce-scatter", group, (2 + (schedule is not None)) * passes, expert, "expert: what experts give")
    return found
