"""What the train step of a decoder sends on a mesh, estimated: the collectives that XLA makes of the rule table.

Counted from what compiled programs hold (docs/compile.md); what they send beside, mostly small, is not here.
"""

from jaxlm.core.dtypes import as_dtype
from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.activations import layer_params
from jaxlm.plan.hlo import Collective
from jaxlm.plan.params import attention_params


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
) -> list[Collective]:
    """The collectives of one step. ``rows``: of one microbatch on one device. ``scatters``: gradients are summed by
    reduce-scatter (a torus of three dimensions); else by all-reduce, at twice the bytes, as XLA does on v5e."""
    data, expert, context, model = (axis_sizes[axis] for axis in ("data", "expert", "context", "model"))
    fsdp = axis_sizes["fsdp"] * context  # both split the state
    item, tokens = as_dtype(config.compute_dtype).itemsize, rows * seq_len / context
    recomputes = config.remat_policy == "full"
    layers, micro = config.num_layers, grad_accum_steps
    found: list[Collective] = []

    def add(kind: str, num_bytes: float, times: int, group: int, where: str, *, crosses: bool = False) -> None:
        if group > 1 and num_bytes and times:
            found.append(Collective(kind, int(num_bytes), times, group, crosses, where, where))

    summed = "reduce-scatter" if scatters else "all-reduce"
    weights = item * layer_params(config, model_ways=model, expert_ways=expert)
    add("all-gather", weights, 2 * layers * micro, fsdp, "fsdp: weights of a layer, forward and backward")
    add(summed, weights, layers * micro, fsdp, "fsdp: gradients of a layer")
    shared = weights if config.moe is None else item * attention_params(config) / model
    add("all-reduce", weights / fsdp, layers * micro, data, "data: gradients of a layer", crosses=slices > 1)
    add("all-reduce", shared / fsdp, layers * micro, expert, "expert: gradients of what all experts share")

    table = item * config.padded_vocab_size / model * config.model_dim
    chunks = 1 if loss_chunk is None or loss_chunk >= seq_len else -(-seq_len // loss_chunk)
    add("all-gather", table, micro * (1 + 2 * chunks), fsdp, "fsdp: the embedding's table, and the head's a chunk")
    add("all-reduce", table, micro * chunks, fsdp, "fsdp: gradient of the head, a chunk")
    add(summed, table, micro, fsdp, "fsdp: gradient of the embedding")
    add("all-reduce", table / fsdp, micro * (chunks + 1), data, "data: gradients of the tables", crosses=slices > 1)

    stream = item * tokens * config.model_dim
    sums = 5 if recomputes and not config.parallel_block else 4
    add("all-reduce", stream, sums * layers * micro, model, "model: sums of attention and MLP")
    add("all-reduce", stream, 2 * micro, model, "model: embeddings, and the head's gradient")
    keys = 2 * item * tokens * config.kv_heads * config.head_width / model
    rounds = (context - 1) * (4 if recomputes else 3) * layers * micro
    add("collective-permute", keys, rounds, context, "context: keys and values, and their gradients, round the ring")
    if config.moe is not None:
        group = expert * stream
        add("all-gather", group, (3 if recomputes else 2) * layers * micro, expert, "expert: tokens of the group")
        add("reduce-scatter", group, 2 * layers * micro, expert, "expert: what experts give")
    return found
