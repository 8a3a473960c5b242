"""The encoder: every token sees every other of its text. Learns from masked text (BERT, Devlin et al. 2019).

norms after (BERT):  x = norm(x + attn(x));  x = norm(x + mlp(x))
norms before:        x += attn(norm(x));     x += mlp(norm(x));    at the end x = norm(x)
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.axes import free_axes
from jaxlm.core.dtypes import as_dtype
from jaxlm.core.errors import UserError
from jaxlm.core.masks import attention_mask
from jaxlm.core.types import STATE_AXES, Array, Params, PyTree
from jaxlm.models.api import Cache, HiddenOutput, Model, Rules
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.stack import BLOCK_RULES, init_stack, run_stack, stacked_specs
from jaxlm.models.vocabulary import look_up, score_symbols
from jaxlm.nn.context_attention import attend_rows
from jaxlm.nn.dropout import dropout
from jaxlm.nn.linear import Linear, normal_init
from jaxlm.nn.mlp import MLP, gelu_exact
from jaxlm.nn.norms import Norm
from jaxlm.nn.rope import RopeTables, rope_tables
from jaxlm.nn.self_attention import AttendFn, SelfAttention
from jaxlm.sharding.activations import DEFAULT_LAYOUT, ActivationLayout
from jaxlm.sharding.pipeline import Schedule, choose_schedule, run_pipeline

RULES: Rules = (
    (r"^embed/table$", P("model", STATE_AXES)),
    (r"^embed/(positions|types)$", P(None, STATE_AXES)),
    *BLOCK_RULES,
    (r"(^|/)(attn_norm|mlp_norm|embed_norm|final_norm|head/norm)/(scale|bias)$", P()),
    (r"^(pooler|head/dense)/kernel$", P(STATE_AXES, "model")),
    (r"^(pooler|head/dense)/bias$", P("model")),
    (r"^head/bias$", P("model")),
)
"""How each parameter lies on the mesh (its trailing dimensions; a leading axis of layers lies along ``stage``)."""


def _norm(config: EncoderConfig, name: str | None = None) -> Norm:
    dtypes = as_dtype(config.compute_dtype), as_dtype(config.param_dtype)
    return Norm(config.norm, config.norm_eps, True, config.bias and config.norm == "layernorm", *dtypes, name=name)


class EncoderBlock(nn.Module):
    """One layer, with its norms before or after each part."""

    config: EncoderConfig
    layout: ActivationLayout = DEFAULT_LAYOUT

    @nn.compact
    def __call__(self, x_btd: Array, attend: AttendFn, rope: RopeTables | None, dropout_key: Array | None) -> Array:
        """The stream after the layer. ``dropout_key`` None = no dropout."""
        c = self.config
        dtypes: dict[str, Any] = {"dtype": as_dtype(c.compute_dtype), "param_dtype": as_dtype(c.param_dtype)}
        out_std = c.init_std if c.post_norm else c.init_std / math.sqrt(2 * c.num_layers)
        attn = SelfAttention(
            num_heads=c.num_heads,
            num_kv_heads=c.num_heads,
            head_dim=c.head_width,
            qk_norm=c.qk_norm,
            norm_scale=True,
            norm_offset=False,
            norm_eps=c.norm_eps,
            init_std=c.init_std,
            out_init_std=out_std,
            use_bias=c.bias,
            **dtypes,
            name="attn",
        )
        mlp = MLP(c.mlp, c.mlp_width, c.init_std, out_std, c.bias, **dtypes, name="mlp")
        attn_norm, mlp_norm = _norm(c, "attn_norm"), _norm(c, "mlp_norm")
        keys = (None, None) if dropout_key is None else tuple(jax.random.split(dropout_key))

        def attended(y_btd: Array) -> Array:
            out_btd = attn(self.layout.gathered(y_btd), attend, None, rope)[0]
            return dropout(self.layout.scattered(out_btd), c.dropout, keys[0])

        def fed_forward(y_btd: Array) -> Array:
            return dropout(self.layout.scattered(mlp(self.layout.gathered(y_btd))), c.dropout, keys[1])

        if c.post_norm:
            x_btd = attn_norm(x_btd + attended(x_btd))
            return mlp_norm(x_btd + fed_forward(x_btd))
        x_btd = x_btd + attended(attn_norm(x_btd))
        return x_btd + fed_forward(mlp_norm(x_btd))


def make_encoder(config: EncoderConfig, layout: ActivationLayout = DEFAULT_LAYOUT) -> Model:
    """An encoder as pure functions; ``layout`` is that of the mesh it will run on. Raises ValueError while
    ``vocab_size`` is None.

    ``logits`` are those of each token itself, for the masked objective: a dense layer, GELU and a norm, then the
    embedding table. ``hidden`` also takes ``token_types`` int32 [b, t] (None = all 0).
    """
    padded_vocab_size = config.padded_vocab_size
    compute_dtype, param_dtype = as_dtype(config.compute_dtype), as_dtype(config.param_dtype)
    block, norm = EncoderBlock(config, layout), _norm(config)
    dense = _dense(config)

    def init_block(key: Array) -> Params:
        x = jnp.zeros((1, 1, config.model_dim), compute_dtype)
        rope = rope_tables(1, config.rope, config.head_width) if config.position == "rope" else None
        return dict(block.init(key, x, lambda q, k, v: q, rope, None)["params"])

    def init(key: Array) -> Params:
        """Fresh parameters; a layer's depend on the key and its number alone."""
        table_key, position_key, type_key, layers_key, pooler_key, head_key = jax.random.split(key, 6)
        x_1d = jnp.zeros((1, config.model_dim), compute_dtype)

        def table(key: Array, rows: int) -> Array:
            return normal_init(config.init_std)(key, (rows, config.model_dim), param_dtype)

        embed = {"table": table(table_key, padded_vocab_size)}
        if config.position == "learned":
            embed["positions"] = table(position_key, config.max_seq_len)
        if config.num_token_types:
            embed["types"] = table(type_key, config.num_token_types)
        params: Params = {"embed": embed, "layers": init_stack(init_block, layers_key, config.num_layers)}
        norm_params = dict(norm.init(key, x_1d)["params"])
        if config.embed_norm:
            params["embed_norm"] = norm_params
        if not config.post_norm:
            params["final_norm"] = norm_params
        if config.pooler:
            params["pooler"] = dict(dense.init(pooler_key, x_1d)["params"])
        head: Params = {"dense": dict(dense.init(head_key, x_1d)["params"]), "norm": norm_params}
        if config.bias:
            head["bias"] = jnp.zeros(padded_vocab_size, param_dtype)
        # No two leaves share a buffer, so that a step can donate them.
        return jax.tree.map(jnp.array, params | {"head": head})

    def embed_tokens(
        params: Params, tokens_bt: Array, positions: Array, token_types: Array | None, key: Array | None
    ) -> Array:
        embed = params["embed"]
        x_btd = look_up(embed["table"], tokens_bt, compute_dtype)
        if config.position == "learned":
            x_btd = x_btd + jnp.take(embed["positions"].astype(compute_dtype), positions, axis=0, mode="clip")
        if config.num_token_types:
            types_bt = jnp.zeros((1, 1), jnp.int32) if token_types is None else token_types
            x_btd = x_btd + jnp.take(embed["types"].astype(compute_dtype), types_bt, axis=0, mode="clip")
        if config.embed_norm:
            x_btd = _apply(norm, params["embed_norm"], x_btd)
        if key is not None:
            x_btd = dropout(x_btd, config.dropout, jax.random.fold_in(key, config.num_layers))
        return layout.between(x_btd)

    def run_layers(
        stacked: Params,
        x_btd: Array,
        count: int,
        first: int | Array,
        positions: Array | None,
        segment_ids: Array | None,
        key: Array | None,
    ) -> Array:
        """``count`` layers in turn, of which ``first`` is the number of the first."""
        b, t, _ = x_btd.shape
        index = jnp.arange(t, dtype=jnp.int32)[None] if positions is None else positions
        rope = None
        if config.position == "rope":
            rope = rope_tables(t if positions is None else index, config.rope, config.head_width)
        mask_bts = None
        if segment_ids is not None:
            rows = jnp.broadcast_to(index, (b, t))
            mask_bts = attention_mask(rows, rows, segment_ids, segment_ids, causal=False)

        def attend_fn(q: Array, k: Array, v: Array) -> Array:
            return attend_rows(
                q,
                k,
                v,
                q_positions=None,  # everyone sees everyone: order does not matter
                q_segment_ids=segment_ids,
                mask_bts=mask_bts,
                causal=False,
                implementation=config.attention,
                context_attention=layout.context_attention,
            )

        def layer(layer_params: Params, x_btd: Array, number: Any) -> Array:
            layer_key = None if key is None else jax.random.fold_in(key, number)
            out: Any = block.apply({"params": layer_params}, x_btd, attend_fn, rope, layer_key)
            return layout.between(out)

        scan, remat_policy = config.scan_layers, config.remat_policy
        return run_stack(layer, stacked, x_btd, count, first=first, scan=scan, remat_policy=remat_policy)

    def run_in_stages(
        stacked: Params,
        x_btd: Array,
        positions: Array | None,
        segment_ids: Array | None,
        key: Array | None,
        schedule: Schedule,
    ) -> Array:
        """All layers, split over the stages of the mesh."""
        if positions is not None:
            positions = jnp.broadcast_to(positions, x_btd.shape[:2])

        def stage(params: Params, x_btd: Array, rows: PyTree, first: Array, draw: Array) -> tuple[Array, PyTree]:
            own_key = None if key is None else jax.random.fold_in(key, draw)
            count = jax.tree.leaves(params)[0].shape[0]
            positions, segment_ids = rows
            x_btd = layout.between(x_btd)
            return run_layers(params, x_btd, count, first, positions, segment_ids, own_key), ()

        specs = stacked_specs(RULES, stacked)
        return run_pipeline(stage, stacked, specs, x_btd, (positions, segment_ids), schedule)[0]

    def hidden(
        params: Params,
        tokens_bt: Array,
        *,
        positions: Array | None = None,
        segment_ids: Array | None = None,
        kv_cache: Cache | None = None,
        dropout_key: Array | None = None,
        token_types: Array | None = None,
    ) -> HiddenOutput:
        """What the model knows of each token, [b, t, d] in the compute dtype. Without ``segment_ids`` every token of a
        row sees every other; with them those of its segment, and none sees padding (segment 0)."""
        if kv_cache is not None:
            _refuse_cache()
        t = tokens_bt.shape[1]
        if t > config.max_seq_len and config.position == "learned":
            raise UserError(f"{t} tokens exceed model.max_seq_len={config.max_seq_len} learned positions: cut the text")
        key = dropout_key if config.dropout > 0 else None
        index = jnp.arange(t, dtype=jnp.int32)[None] if positions is None else positions
        x_btd = embed_tokens(params, tokens_bt, index, token_types, key)
        schedule = choose_schedule(layout.pipeline, tokens_bt.shape[0], free_axes())
        if schedule is None:
            x_btd = run_layers(params["layers"], x_btd, config.num_layers, 0, positions, segment_ids, key)
        else:
            x_btd = run_in_stages(params["layers"], x_btd, positions, segment_ids, key, schedule)
        return HiddenOutput(layout.gathered(x_btd if config.post_norm else _apply(norm, params["final_norm"], x_btd)))

    def logits(params: Params, hidden_btd: Array) -> Array:
        """Unnormalised log-probabilities of each token itself, f32 [..., v], for hidden states [..., d]."""
        head = params["head"]
        x = gelu_exact(_apply(dense, head["dense"], hidden_btd.astype(compute_dtype)))
        return score_symbols(
            _apply(norm, head["norm"], x),
            params["embed"]["table"],
            tied=True,
            vocab_size=config.vocab_size,
            dtype=compute_dtype,
            bias_v=head.get("bias"),
        )

    return Model(config, init, hidden, logits, lambda *_, **__: _refuse_cache(), RULES)


def pool(config: EncoderConfig, params: Params, first_bd: Array) -> Array:
    """``tanh(dense(first token))``, [b, d]: BERT's pooler. For configs with one."""
    return jnp.tanh(_apply(_dense(config), params["pooler"], first_bd))


def _dense(config: EncoderConfig) -> Linear:
    dtypes = as_dtype(config.compute_dtype), as_dtype(config.param_dtype)
    return Linear(config.model_dim, config.init_std, config.bias, *dtypes)


def _apply(module: nn.Module, params: Params, x: Array) -> Any:
    return module.apply({"params": params}, x)


def _refuse_cache() -> Any:
    raise UserError("an encoder has no cache: it reads a text whole and does not write on from it; use a decoder")
