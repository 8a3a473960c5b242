"""What one microbatch of a decoder holds on one device beside the state: what waits for the backward pass, a layer at
work, its weights gathered, the logits.

Widths follow from what autodiff saves of each operation; how many such arrays the compiler holds at once does not, and
is fitted (`Constants`).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.types import BATCH_AXES
from jaxlm.models.decoder import DecoderConfig
from jaxlm.nn.mlp import GATED
from jaxlm.plan.params import attention_params, feed_forward_params, layer_norms
from jaxlm.sharding.activations import DEFAULT_LAYOUT, ActivationLayout
from jaxlm.sharding.pipeline import Schedule, choose_schedule

LANES = 128
"""A TPU keeps arrays in tiles of 8 x 128 elements (narrow types more rows): the last dimension is padded to it."""


class Constants(NamedTuple):
    """How many arrays of a kind the TPU's compiler holds at once: what the formulas cannot say."""

    inner: float
    """Arrays of the MLP's width, of those of one layer's backward pass (recomputed forward, and gradients)."""
    experts: float
    """The same of experts, each token's copies counted: nothing is fused into the kernels of their products."""
    routed: float
    """Arrays of the model's width with an entry for each token and expert."""
    stream: float
    """Arrays of the model's width, and of attention's."""
    weights: float
    """A layer's weights in the compute dtype, gathered over fsdp, or their gradients before they are split."""
    logits: float
    """Arrays [rows, positions, vocabulary] in f32: the logits. Their gradient is made inside of products."""
    chunk: float
    """The same where the loss is worked out by chunks."""
    table: float
    """The head's kernel in f32, gathered over fsdp, or its gradient."""
    beside: float
    """Of each further layer of a group of windows, the share that is at work beside the first."""


CALIBRATED = Constants(
    inner=3.44,
    experts=3.12,
    routed=2.92,
    stream=2.45,
    weights=1.15,
    logits=1.16,
    chunk=1.43,
    table=0.83,
    beside=0.75,
)
"""Fitted by ``python -m tools.plan calibrate`` on half of ``experiments/plan_grid.csv`` (libtpu 0.0.42.1); see
docs/plan.md for how well it foretells the other half."""


class StepBytes(NamedTuple):
    """Bytes on one device, by what they are for."""

    kept: int
    """Between the forward and the backward pass of all layers."""
    layer: int
    """While one layer's backward pass works, or those of one group of windows."""
    weights: int
    """Their weights and gradients, whole over fsdp."""
    logits: int
    """Logits and the head's table, while the loss is worked out."""
    stage: int = 0
    """A stage's layers, whole over fsdp, from the first tick of the forward pass to the last of the backward pass."""
    stage_kept: int = 0
    """While a stage's work on one microbatch is done again: what its layers keep."""


class Share(NamedTuple):
    """One device's part of a microbatch, and into how many parts the mesh cuts what it works on."""

    rows: int
    seq_len: int
    model_ways: int = 1
    expert_ways: int = 1
    context_ways: int = 1
    """Devices that split the positions of a row."""
    stream_ways: int = 1
    """Devices that split the stream between products (``model``, with sequence-parallel norms)."""
    loss_chunk: int | None = None
    """Positions of a row whose logits exist at once; None = all."""
    schedule: Schedule | None = None
    """Of a pipeline's stages; None = all layers run on every device."""

    @classmethod
    def on(
        cls,
        axis_sizes: Mapping[str, int],
        layout: ActivationLayout = DEFAULT_LAYOUT,
        *,
        rows: int,
        **fields: Any,
    ) -> "Share":
        """With the ways of a mesh, and its stages where ``layout`` says how they share; ``fields`` are the others."""
        ways = math.prod(axis_sizes[axis] for axis in BATCH_AXES)
        return cls(
            rows=rows,
            schedule=choose_schedule(layout.pipeline, rows * ways, dict(axis_sizes)),
            model_ways=axis_sizes["model"],
            expert_ways=axis_sizes["expert"],
            context_ways=axis_sizes["context"],
            stream_ways=axis_sizes["model"] if layout.sequence_parallel else 1,
            **fields,
        )

    @property
    def tokens(self) -> float:
        """Of the microbatch on this device."""
        return self.rows * self.seq_len / self.context_ways

    @property
    def chunk(self) -> int:
        """Positions of a row whose logits exist at once."""
        return self.seq_len if self.loss_chunk is None else min(self.loss_chunk, self.seq_len)


class _Widths(NamedTuple):
    """Elements a token in one layer on one device."""

    queries: float
    keys: float
    """Keys; as many again for values where `values` says so."""
    values: float
    out: float
    inner: float
    """One array of the MLP's width. A token's experts each have one, and a device has room for all tokens of its
    expert group, since all may choose its experts."""
    routed: float
    """One array of the model's width, an entry for each token and expert."""


def _widths(config: DecoderConfig, model_ways: int, expert_ways: int) -> _Widths:
    """Heads that do not divide over ``model_ways`` are whole on each device; key heads alone are copied to queries."""
    heads = config.num_heads / (model_ways if config.num_heads % model_ways == 0 else 1)
    kv_heads = config.kv_heads / model_ways
    if config.kv_heads % model_ways:
        kv_heads = heads
    keys, values = kv_heads * config.qk_width, kv_heads * config.v_width
    if config.mla is not None:
        c = config.mla
        keys += c.kv_lora_rank + c.qk_rope_head_dim + (c.q_lora_rank or 0)
    inner, routed = config.mlp_width / model_ways, 0.0
    if config.moe is not None:
        copies = expert_ways * config.moe.top_k
        inner = (copies * config.mlp_width + (config.moe.shared_dim or 0)) / model_ways
        routed = float(copies * config.model_dim)
    return _Widths(heads * config.qk_width, keys, values, heads * config.v_width, inner, routed)


def _padding(config: DecoderConfig) -> float:
    """How much larger the kernel's arrays [.., position, head width] are in memory."""
    if config.attention != "splash":
        return 1.0
    return math.ceil(config.qk_width / LANES) * LANES / config.qk_width


def kept_per_token(config: DecoderConfig, *, model_ways: int = 1, expert_ways: int = 1, stream_ways: int = 1) -> float:
    """Bytes a token that one layer keeps for its backward pass, attention weights aside. ``stream_ways``: devices that
    split the stream between products (``model``, with sequence-parallel norms).

    full: the layer's input. dots: also the outputs of its products but the last (ragged products of experts are not
    kept). none: what autodiff saves of every operation, in the dtype it is made in: norms work in f32.
    """
    item, d = as_dtype(config.compute_dtype).itemsize, config.model_dim / stream_ways
    w = _widths(config, model_ways, expert_ways)
    ups = 2 if config.mlp in GATED else 1
    if config.remat_policy == "full":
        return item * d
    if config.remat_policy == "dots":
        inner = w.inner if config.moe is None else (config.moe.shared_dim or 0) / model_ways
        stream = (1 if config.parallel_block or config.mlp == "none" else 2) * d
        return item * (stream + w.queries + w.keys + w.values + ups * inner)
    kept = layer_norms(config) * (3 * 4 + item) * d + item * d
    if config.qk_norm:
        kept += 3 * 4 * (w.queries + w.keys)
    kept += item * (_padding(config) * (w.queries + w.keys + w.values + w.out) + w.out)
    if config.moe is None:
        return kept + item * 6 * w.inner
    return kept + item * (2 * w.routed + (ups + 1) * w.inner)


def layer_params(config: DecoderConfig, *, model_ways: int = 1, expert_ways: int = 1) -> float:
    """Parameters of one layer that a device multiplies with: its share over model and expert, whole over fsdp."""
    feed_forward, _ = feed_forward_params(config)
    return (attention_params(config) + feed_forward / (1 if config.moe is None else expert_ways)) / model_ways


def decoder_step_bytes(config: DecoderConfig, share: Share, constants: Constants = CALIBRATED) -> StepBytes:
    """What one device's share of a microbatch holds beside the state."""
    item, model_ways, expert_ways = as_dtype(config.compute_dtype).itemsize, share.model_ways, share.expert_ways
    w, schedule = _widths(config, model_ways, expert_ways), share.schedule
    slots, split = (1, share.stream_ways) if schedule is None else (schedule.slots, model_ways)
    tokens = share.tokens / slots  # that a layer works on at once
    scores = 0.0
    if config.attention in ("auto", "xla"):  # the kernels of cuDNN and splash hold no [t, t] weights
        scores = tokens * w.queries / config.qk_width * share.seq_len * (item + 1)
    kept = tokens * kept_per_token(config, model_ways=model_ways, expert_ways=expert_ways, stream_ways=split)
    kept += scores if config.remat_policy in ("none", "auto") else 0.0  # of one layer
    stream = config.model_dim + _padding(config) * (w.queries + w.keys + w.values + w.out)
    # The arrays of a gated MLP are those of its two ways up and of their product; else of one way and what follows it.
    ways_up = (2 if config.mlp in GATED else 1) + 1
    inner = (constants.inner if config.moe is None else constants.experts) * ways_up / 3
    layer = item * tokens * (inner * w.inner + constants.routed * w.routed + constants.stream * stream) + scores
    params = layer_params(config, model_ways=model_ways, expert_ways=expert_ways)
    # The layers of a group are recomputed from inputs of their own, and XLA does so side by side.
    layers = 1 + constants.beside * (min(len(config.window_pattern), config.num_layers) - 1)
    arrays = constants.logits if share.chunk == share.seq_len else constants.chunk
    if config.padded_vocab_size != config.vocab_size:  # the gradient is written out once more, to be padded
        arrays += item / 4
    vocab = config.padded_vocab_size / model_ways
    logits = 4 * vocab * (arrays * share.rows * share.chunk / share.context_ways + constants.table * config.model_dim)
    if schedule is None:
        weights = constants.weights * item * params
        return _rounded(config.num_layers * kept, layers * layer, layers * weights, logits)
    # Of each tick its input, split by width over ``model`` (as libtpu has it); of what is left over, what layers keep.
    ticks = schedule.ticks * tokens * item * config.model_dim / split
    ticks += config.num_tail_layers * slots * kept
    turn = config.num_groups // (schedule.stages * schedule.rounds) * len(config.window_pattern)
    stage = as_dtype(config.param_dtype).itemsize * schedule.rounds * turn * params
    weights = stage  # its gradients
    if turn > len(config.window_pattern):  # a scan over groups stacks their gradients, and what autodiff saves
        saved = turn if config.remat_policy in ("none", "auto") else constants.weights * layers
        weights += stage / schedule.rounds + item * saved * params
    return _rounded(ticks, layers * layer, weights, logits, stage, turn * kept)


def _rounded(*sizes: float) -> StepBytes:
    return StepBytes(*(math.ceil(size) for size in sizes))
