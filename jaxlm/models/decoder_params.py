"""The decoder's parameters: how they start, and how each lies on a mesh."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.tree import map_with_paths
from jaxlm.core.types import STATE_AXES, Array, Params
from jaxlm.models.api import Rules
from jaxlm.models.decoder_block import DecoderBlock, block_norm
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.stack import BLOCK_RULES, layer_keys
from jaxlm.nn.linear import normal_init
from jaxlm.nn.rope import rope_tables
from jaxlm.optim.width import start_multiplier

RULES: Rules = (
    (r"^embed/table$", P("model", STATE_AXES)),
    (r"^embed/positions$", P(None, STATE_AXES)),
    *BLOCK_RULES,
    (r"/attn/(q_up|kv_up)/kernel$", P(STATE_AXES, "model")),
    (r"/attn/(q_down|kv_down)/kernel$", P(STATE_AXES, None)),
    (r"/attn/(q_down|kv_down)/bias$", P()),
    (r"/attn/kv_norm/scale$", P()),
    (r"/moe/router/kernel$", P(STATE_AXES, None)),
    (r"/moe/(gate|up)/kernel$", P("expert", STATE_AXES, "model")),
    (r"/moe/down/kernel$", P("expert", "model", STATE_AXES)),
    (r"/moe/shared/(gate|up)/kernel$", P(STATE_AXES, "model")),
    (r"/moe/shared/down/kernel$", P("model", STATE_AXES)),
    (r"/(attn_norm|mlp_norm|attn_out_norm|mlp_out_norm)/(scale|bias)$", P()),
    (r"^final_norm/(scale|bias)$", P()),
    (r"^head/kernel$", P(STATE_AXES, "model")),
)
"""How each parameter lies on the mesh (its trailing dimensions; a leading axis of layers lies along ``stage``)."""


def init_params(config: DecoderConfig, key: Array) -> Params:
    """Fresh parameters; a layer's depend on the key and its number alone."""
    params = _init_standard(config, key)
    width, fixed_std = config.width, config.init_std is not None
    if width is None:
        return params
    return map_with_paths(
        lambda path, leaf: leaf * jnp.asarray(start_multiplier(path, width, fixed_std=fixed_std), leaf.dtype), params
    )


def _init_standard(config: DecoderConfig, key: Array) -> Params:
    """Parameters as they start in the standard parametrisation."""
    compute_dtype, param_dtype = as_dtype(config.compute_dtype), as_dtype(config.param_dtype)
    group, groups = len(config.window_pattern), config.num_groups
    embed_key, position_key, head_key, layers_key = jax.random.split(key, 4)
    std = 1.0 / math.sqrt(config.model_dim) if config.init_std is None else config.init_std

    def init_block(key: Array) -> Params:
        x = jnp.zeros((1, 1, config.model_dim), compute_dtype)
        rope = rope_tables(1, config.rope, config.rope_width) if config.position == "rope" else None
        return dict(DecoderBlock(config).init(key, x, attend, None, rope)["params"])

    def attend(q: Array, k: Array, v: Array) -> Array:
        """Stands in for attention, of which only the shape matters here."""
        del k
        return jnp.zeros((*q.shape[:-1], v.shape[-1]), q.dtype)

    table = normal_init(std)(embed_key, (config.padded_vocab_size, config.model_dim), param_dtype)
    params: Params = {"embed": {"table": table}}
    if config.position == "learned":
        shape = (config.max_seq_len, config.model_dim)
        params["embed"]["positions"] = normal_init(std)(position_key, shape, param_dtype)
    keys = layer_keys(layers_key, config.num_layers)
    if groups:
        params["layers"] = {f"layer_{j}": jax.vmap(init_block)(keys[j : group * groups : group]) for j in range(group)}
    for i in range(config.num_tail_layers):
        params[f"tail_{i}"] = init_block(keys[group * groups + i])
    norm_params = block_norm(config).init(key, jnp.zeros((1, config.model_dim), compute_dtype)).get("params", {})
    if norm_params:
        params["final_norm"] = norm_params
    if not config.tie_embeddings:
        head_std = 0.0 if config.zero_init_head else std
        shape = (config.model_dim, config.padded_vocab_size)
        params["head"] = {"kernel": normal_init(head_std)(head_key, shape, param_dtype)}
    return params
