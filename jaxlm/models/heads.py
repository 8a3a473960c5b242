"""Heads for tasks with labels, on any family: a class or a number for each text (or pair), a class for each token.

The head of the vocabulary is left out: task models hold the parameters below it, and a linear map of their own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.types import STATE_AXES, Array, Batch, Params, Terms
from jaxlm.models.api import Model, Rules
from jaxlm.models.encoder import pool
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.nn.dropout import dropout
from jaxlm.nn.linear import matmul, normal_init

TaskKind = Literal["classify", "regress", "tag"]
"""classify: a class for each text or pair of texts. regress: a number for it. tag: a class for each word."""

Pooling = Literal["first", "mean", "last"]

RULES: Rules = ((r"^classifier/kernel$", P(STATE_AXES, None)), (r"^classifier/bias$", P()))
"""How the head lies on the mesh; the rest as the model's own table says."""

OWN = ("head", "classifier")
"""Parts of a parameter tree that belong to what it was trained for, and are not carried over to another task."""


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """What a task model gives out."""

    kind: TaskKind
    num_outputs: int = 1
    """Classes; 1 for a number."""
    pooling: Pooling = "first"
    """Which token speaks for the text: the first (through the pooler, where the model has one), the mean of all, or the
    last, which alone has read the whole text in a causal model."""
    dropout: float = 0.0
    """Rate on what the head reads."""

    def __post_init__(self) -> None:
        for name, choices in (("kind", get_args(TaskKind)), ("pooling", get_args(Pooling))):
            if getattr(self, name) not in choices:
                raise ValueError(f"task.{name}={getattr(self, name)!r} is unknown: choose {', '.join(choices)}")


class TaskModel(NamedTuple):
    """A model with a task's head, as pure functions."""

    config: Any
    """The model's own."""
    head: HeadConfig
    init: Callable[[Array], Params]
    read_batch: Callable[..., tuple[Array, Terms]]
    """As ``outputs``, and the terms that the model adds to the loss itself (``term_names``)."""
    outputs: Callable[..., Array]
    """``outputs(params, batch, dropout_key=None)``, f32: logits [b, c] to classify, [b, t, c] to tag, numbers [b] to
    regress. ``batch``: ``tokens``, ``segment_ids`` (1, 0 = padding, on the right), ``token_types`` where there are."""
    read: Callable[..., Array]
    """``read(params, hidden_btd, segment_ids_bt, dropout_key=None)``: what the head gives out of hidden states, as
    ``outputs`` of tokens."""
    rules: Rules
    term_names: tuple[str, ...] = ()


def make_task_model(model: Model, head: HeadConfig) -> TaskModel:
    """``classifier(dropout(pooled hidden))`` on the model's layers."""
    config = model.config
    compute_dtype, param_dtype = as_dtype(config.compute_dtype), as_dtype(config.param_dtype)

    def init(key: Array) -> Params:
        """Fresh parameters: those of the model, with the task's head in place of its own."""
        model_key, head_key = jax.random.split(key)
        params = {name: part for name, part in model.init(model_key).items() if name not in OWN}
        shape = (config.model_dim, head.num_outputs)
        kernel = normal_init(0.02)(head_key, shape, param_dtype)
        return params | {"classifier": {"kernel": kernel, "bias": jnp.zeros(head.num_outputs, param_dtype)}}

    def pooled(params: Params, hidden_btd: Array, segment_ids_bt: Array) -> Array:
        if head.pooling == "mean":
            weights_bt = (segment_ids_bt > 0).astype(jnp.float32)
            total_bd = jnp.einsum("btd,bt->bd", hidden_btd.astype(jnp.float32), weights_bt)
            count_b = jnp.maximum(jnp.sum(weights_bt, axis=1), 1)
            return (total_bd / count_b[:, None]).astype(compute_dtype)
        place_b = jnp.zeros(hidden_btd.shape[0], jnp.int32)
        if head.pooling == "last":
            place_b = jnp.maximum(jnp.sum((segment_ids_bt > 0).astype(jnp.int32), axis=1) - 1, 0)
        chosen_bd = jnp.take_along_axis(hidden_btd, place_b[:, None, None], axis=1)[:, 0]
        if head.pooling == "first" and isinstance(config, EncoderConfig) and config.pooler:
            return pool(config, params, chosen_bd)
        return chosen_bd

    def read(params: Params, hidden_btd: Array, segment_ids_bt: Array, dropout_key: Array | None = None) -> Array:
        x = hidden_btd if head.kind == "tag" else pooled(params, hidden_btd, segment_ids_bt)
        x = dropout(x.astype(compute_dtype), head.dropout, dropout_key)
        out = matmul(x, params["classifier"]["kernel"].astype(compute_dtype), out_dtype=jnp.dtype("float32"))
        out = out + params["classifier"]["bias"].astype(jnp.float32)
        return out[..., 0] if head.kind == "regress" else out

    def read_batch(params: Params, batch: Batch, dropout_key: Array | None = None) -> tuple[Array, Terms]:
        body_key, head_key = (None, None) if dropout_key is None else tuple(jax.random.split(dropout_key))
        types = {"token_types": batch["token_types"]} if "token_types" in batch else {}
        options: dict[str, Any] = {"segment_ids": batch["segment_ids"], "dropout_key": body_key, **types}
        hidden = model.hidden(params, batch["tokens"], **options)
        return read(params, hidden.hidden_btd, batch["segment_ids"], head_key), hidden.terms or {}

    def outputs(params: Params, batch: Batch, dropout_key: Array | None = None) -> Array:
        return read_batch(params, batch, dropout_key)[0]

    return TaskModel(config, head, init, read_batch, outputs, read, RULES + model.rules, model.term_names)
