"""Layers of one kind, stacked: their parameters in one tree with a leading axis, run by a scan or written out."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.types import STATE_AXES, Array, Params, PyTree
from jaxlm.models.api import Rules
from jaxlm.models.int8_base import int8_rules
from jaxlm.models.lora import lora_rules
from jaxlm.sharding.rules import match_rules

RematPolicy = Literal["none", "full", "dots", "auto"]
"""``auto`` is for the run to choose, by the memory there is (`run.memory.choose_remat`); left alone it means none."""


BLOCK_RULES: Rules = (
    (r"/attn/(q|k|v)/kernel$", P(STATE_AXES, "model")),
    (r"/attn/(q|k|v)/bias$", P("model")),
    (r"/attn/(q_norm|k_norm)/scale$", P()),
    (r"/attn/o/kernel$", P("model", STATE_AXES)),
    (r"/attn/o/bias$", P()),
    (r"/mlp/(gate|up)/kernel$", P(STATE_AXES, "model")),
    (r"/mlp/(gate|up)/bias$", P("model")),
    (r"/mlp/down/kernel$", P("model", STATE_AXES)),
    (r"/mlp/down/bias$", P()),
)
"""How attention and MLP of a Transformer's layer lie on the mesh (trailing dimensions)."""


def init_stack(init_layer: Callable[[Array], Params], key: Array, num_layers: int) -> Params:
    """[l, ...] leaves; a layer's depend on the key and its number alone."""
    return jax.vmap(init_layer)(layer_keys(key, num_layers))


def layer_keys(key: Array, num_layers: int) -> Array:
    """A key for each layer, from its number."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_layers))


def stacked_specs(rules: Rules, stacked: Params) -> PyTree:
    """How the parameters under ``layers`` lie, and what may stand beside them: adapters, scales of an int8 base."""
    return match_rules(int8_rules(lora_rules(rules)), {"layers": stacked})["layers"]


def rematerialised(layer: Callable[..., Any], policy: RematPolicy, *, scan: bool) -> Callable[..., Any]:
    """``layer`` with what the policy says worked out again in the backward pass."""
    if policy in ("none", "auto"):
        return layer
    saved = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if policy == "dots" else None
    # Inside scan nothing can be merged with the forward pass, so the barrier against it is not needed.
    return jax.checkpoint(layer, policy=saved, prevent_cse=not scan)


def unstack(tree: PyTree, count: int) -> list[PyTree]:
    """[l, ...] leaves -> l trees. ``lax.split``, as its gradient is one concatenation and not l padded sums."""
    leaves, treedef = jax.tree.flatten(tree)
    parts = [[jnp.squeeze(part, 0) for part in jax.lax.split(leaf, [1] * count, axis=0)] for leaf in leaves]
    return [jax.tree.unflatten(treedef, [part[i] for part in parts]) for i in range(count)]


def run_stack(
    layer: Callable[[Params, Array, Any], Array],
    stacked: Params,
    x_btd: Array,
    num_layers: int,
    *,
    first: int | Array = 0,
    scan: bool,
    remat_policy: RematPolicy = "none",
) -> Array:
    """``x = layer(params of layer i, x, first + i)`` for each i in turn."""
    layer = rematerialised(layer, remat_policy, scan=scan)
    if scan:
        numbers = jnp.arange(num_layers, dtype=jnp.int32)
        numbers = numbers + first if isinstance(first, Array) else numbers
        return jax.lax.scan(lambda x, xs: (layer(xs[0], x, xs[1]), None), x_btd, (stacked, numbers))[0]
    for i, params in enumerate(unstack(stacked, num_layers)):
        x_btd = layer(params, x_btd, first + i)
    return x_btd
