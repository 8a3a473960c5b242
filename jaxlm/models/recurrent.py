"""Recurrent language models: embeddings, layers of Elman, LSTM or GRU cells, and a head tied to the embeddings or not.

Dropout is that of Gal & Ghahramani (2016) and Merity et al. (2018, AWD-LSTM): one mask for all steps of a row, whole
words of the embedding, and single weights of U.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.dtypes import DType, as_dtype
from jaxlm.core.types import STATE_AXES, Array, Params
from jaxlm.models import shapes
from jaxlm.models.api import HiddenOutput, Model, Rules
from jaxlm.models.vocabulary import look_up, score_symbols
from jaxlm.nn.dropout import dropout
from jaxlm.nn.kernels import KernelMissing
from jaxlm.nn.linear import matmul, normal_init
from jaxlm.nn.recurrent import (
    CELLS,
    IMPLEMENTATIONS,
    CellName,
    Implementation,
    State,
    choose_unroll,
    gate_width,
    init_state,
    unroll,
)
from jaxlm.nn.recurrent_kernel import input_product
from jaxlm.sharding.activations import HIDDEN_SPEC
from jaxlm.sharding.constrain import constrain

RULES: Rules = (
    (r"^embed/table$", P("model", STATE_AXES)),
    (r"/(input|recurrent)/kernel$", P(STATE_AXES, "model")),
    (r"/(input|recurrent)/bias$", P("model")),
    (r"^head/kernel$", P(STATE_AXES, "model")),
    (r"^head/bias$", P("model")),
)
"""How each parameter lies on the mesh."""


@dataclasses.dataclass(frozen=True)
class RecurrentConfig:
    """A recurrent language model. With ``data.packing="stream"`` its state is carried from batch to batch (truncated
    backpropagation through time, ``data.seq_len`` steps back); with the other packings every row starts from zeros."""

    family: Literal["recurrent"] = "recurrent"
    cell: CellName = "lstm"
    vocab_size: int | None = None
    """Symbols that are predicted; None = the tokenizer's, filled in before the model is made."""
    vocab_multiple: int = 1
    """Rows of the table are padded to a multiple of this, so that an odd vocabulary divides over a mesh."""
    num_layers: int = 1
    model_dim: int = 256
    """Width of the embeddings, and of the last layer where the head is tied."""
    hidden_dim: int | None = None
    """Width of the other layers; None = model_dim."""
    tie_embeddings: bool = True
    """The head is the embedding table (Press & Wolf 2017)."""
    head_bias: bool = True
    forget_bias: float = 1.0
    """lstm: the forget gate's bias at the start (Jozefowicz et al. 2015)."""
    embed_dropout: float = 0.0
    """Rate at which whole words lose their embedding, everywhere in a batch."""
    input_dropout: float = 0.0
    """Rate on embeddings; like the next two, one mask for all steps of a row."""
    hidden_dropout: float = 0.0
    """Rate between layers."""
    output_dropout: float = 0.0
    """Rate before the head."""
    weight_dropout: float = 0.0
    """Rate on single weights of U (DropConnect, Wan et al. 2013)."""
    init_std: float | None = None
    """Deviation of the embeddings at the start; None = 1/sqrt(model_dim). Kernels start uniform in +-1/sqrt(width)."""
    param_dtype: DType = "float32"
    compute_dtype: DType = "float32"
    """Of the products; states and gates are f32."""
    implementation: Implementation = "auto"
    """Of the loop over time: scan (XLA's), unrolled (the same, 8 steps a turn: for GPUs and TPUs), kernel (ours, for
    CPUs, products in f32; built by a C++ compiler), or auto: what suits the platform. They differ by rounding."""

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"model.cell={self.cell!r} is unknown: choose {', '.join(CELLS)}")
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"model.implementation={self.implementation!r} is unknown: choose {', '.join(IMPLEMENTATIONS)}"
            )
        shapes.check_positive(self, ("vocab_size", "vocab_multiple", "num_layers", "model_dim", "hidden_dim"))
        for name in ("embed_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} is outside [0, 1)")
        if self.init_std is not None and not self.init_std > 0:
            raise ValueError(f"model.init_std={self.init_std} must be above 0")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table and columns of the head."""
        return shapes.padded_vocab_size(self.vocab_size, self.vocab_multiple)

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Width of each layer: hidden_dim, the last one's model_dim."""
        hidden = self.model_dim if self.hidden_dim is None else self.hidden_dim
        return (hidden,) * (self.num_layers - 1) + (self.model_dim,)

    @property
    def max_seq_len(self) -> None:
        """A recurrent model reads texts of any length."""


def resolve_unroll(config: RecurrentConfig, platform: str, kernel_missing: KernelMissing) -> RecurrentConfig:
    """``implementation='auto'`` -> what suits ``platform``; called once, by ``run/``. Raises UserError where the config
    asks for what cannot be had there."""
    implementation = choose_unroll(
        config.implementation, platform, dtype=as_dtype(config.compute_dtype), kernel_missing=kernel_missing
    )
    return dataclasses.replace(config, implementation=implementation)


class RecurrentState(NamedTuple):
    """What the layers remember of the tokens so far. It takes the place of a decoder's KV cache, at a fixed size."""

    layers: tuple[State, ...]


def make_recurrent(config: RecurrentConfig) -> Model:
    """A recurrent model as pure functions. Raises ValueError while ``vocab_size`` is None."""
    padded_vocab_size = config.padded_vocab_size
    compute_dtype, param_dtype = as_dtype(config.compute_dtype), as_dtype(config.param_dtype)
    widths = config.layer_widths

    def init_layer(key: Array, fan_in: int, width: int) -> Params:
        input_key, recurrent_key = jax.random.split(key)
        columns = gate_width(config.cell) * width
        uniform = jax.nn.initializers.uniform(2 / math.sqrt(width))

        def kernel(key: Array, rows: int) -> Array:
            return uniform(key, (rows, columns), param_dtype) - jnp.asarray(1 / math.sqrt(width), param_dtype)

        bias = jnp.zeros(columns, param_dtype)
        if config.cell == "lstm":
            bias = bias.at[width : 2 * width].set(config.forget_bias)
        layer: Params = {"input": {"kernel": kernel(input_key, fan_in), "bias": bias}}
        layer["recurrent"] = {"kernel": kernel(recurrent_key, width)}
        if config.cell == "gru":
            layer["recurrent"]["bias"] = jnp.zeros(columns, param_dtype)
        return layer

    def init(key: Array) -> Params:
        """Fresh parameters; a layer's depend on the key and its number alone."""
        embed_key, head_key, layers_key = jax.random.split(key, 3)
        std = 1 / math.sqrt(config.model_dim) if config.init_std is None else config.init_std
        shape = (padded_vocab_size, config.model_dim)
        params: Params = {"embed": {"table": normal_init(std)(embed_key, shape, param_dtype)}}
        for i, (fan_in, width) in enumerate(zip((config.model_dim, *widths), widths, strict=False)):
            params[f"layer_{i}"] = init_layer(jax.random.fold_in(layers_key, i), fan_in, width)
        head: Params = {}
        if not config.tie_embeddings:
            head["kernel"] = normal_init(std)(head_key, shape[::-1], param_dtype)
        if config.head_bias:
            head["bias"] = jnp.zeros(padded_vocab_size, param_dtype)
        return params | ({"head": head} if head else {})

    def locked(x_tbd: Array, rate: float, key: Array | None, number: int) -> Array:
        """Dropout with one mask for all steps of a row."""
        if key is None or rate == 0:
            return x_tbd
        return x_tbd * dropout(jnp.ones(x_tbd.shape[1:], x_tbd.dtype), rate, jax.random.fold_in(key, number))

    def embed_tokens(params: Params, tokens_bt: Array, key: Array | None) -> Array:
        x_btd = look_up(params["embed"]["table"], tokens_bt, compute_dtype)
        if key is not None and config.embed_dropout:
            words = dropout(
                jnp.ones(padded_vocab_size, compute_dtype), config.embed_dropout, jax.random.fold_in(key, 0)
            )
            x_btd = x_btd * jnp.take(words, tokens_bt, axis=0, mode="clip")[..., None]
        return constrain(x_btd, HIDDEN_SPEC)

    def hidden(
        params: Params,
        tokens_bt: Array,
        *,
        positions: Array | None = None,
        segment_ids: Array | None = None,
        kv_cache: Any = None,
        dropout_key: Array | None = None,
    ) -> HiddenOutput:
        """The last layer's output [b, t, d] and, where a state was given, the state after the row.

        A position of 0 begins a text: the state before it is zeroed. ``segment_ids`` say nothing more: segments begin
        at position 0, and padding stands where its state is not read again.
        """
        del segment_ids
        b, t = tokens_bt.shape
        state = init_cache(b, t) if kv_cache is None else kv_cache
        reset_tb = None if positions is None else jnp.broadcast_to(positions == 0, (b, t)).T
        # Time first from here on: turned before the products, a row is d numbers and not its gates.
        x_tbd = locked(
            embed_tokens(params, tokens_bt, dropout_key).swapaxes(0, 1), config.input_dropout, dropout_key, 1
        )
        states = []
        for i, layer_state in enumerate(state.layers):
            layer = params[f"layer_{i}"]
            kernel_dg, bias_g = layer["recurrent"]["kernel"].astype(compute_dtype), layer["recurrent"].get("bias")
            if dropout_key is not None and config.weight_dropout:
                kernel_dg = dropout(kernel_dg, config.weight_dropout, jax.random.fold_in(dropout_key, 2 * i + 4))
            input_dg = layer["input"]["kernel"].astype(compute_dtype)
            if config.implementation == "kernel":
                x_tbg = input_product(x_tbd, input_dg)
            else:
                x_tbg = matmul(x_tbd, input_dg, out_dtype=jnp.float32)
            x_tbd, layer_state = unroll(
                config.cell,
                x_tbg,
                kernel_dg,
                bias_g,
                layer_state,
                reset_tb,
                x_bias_g=layer["input"]["bias"],
                implementation=config.implementation,
            )
            states.append(layer_state)
            rate = config.output_dropout if i == len(widths) - 1 else config.hidden_dropout
            x_tbd = locked(x_tbd.astype(compute_dtype), rate, dropout_key, 2 * i + 5)
        x_btd = constrain(x_tbd.swapaxes(0, 1), HIDDEN_SPEC)
        return HiddenOutput(x_btd, None if kv_cache is None else RecurrentState(tuple(states)))

    def logits(params: Params, hidden_btd: Array) -> Array:
        """Unnormalised log-probabilities of the next token, f32 [..., v], for hidden states [..., d]."""
        return score_symbols(
            hidden_btd,
            params["embed"]["table"] if config.tie_embeddings else params["head"]["kernel"],
            tied=config.tie_embeddings,
            vocab_size=config.vocab_size,
            dtype=compute_dtype,
            bias_v=params["head"]["bias"] if config.head_bias else None,
        )

    def init_cache(batch_size: int, capacity: int, dtype: Any = None) -> RecurrentState:
        """Zero states; ``capacity`` and ``dtype`` mean nothing here."""
        del capacity, dtype
        return RecurrentState(tuple(init_state(config.cell, batch_size, width) for width in widths))

    return Model(config, init, hidden, logits, init_cache, RULES)
