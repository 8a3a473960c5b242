"""What a named shape costs: one record of figures, and the table that a person reads."""

from typing import Any

from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.plan.families import count_encoder_params, encoder_attention_flops, encoder_head_params
from jaxlm.plan.flops import attention_flops_per_token
from jaxlm.plan.memory import kv_cache_bytes_per_token
from jaxlm.plan.params import count_decoder_params

GIB = 2**30


def plan_model(config: DecoderConfig | EncoderConfig, seq_len: int | None = None) -> dict[str, Any]:
    """Parameters, FLOPs a token in full rows of ``seq_len`` (None = ``max_seq_len``), and bytes of the whole model.

    ``adamw_bytes``: parameters and both moments in f32, no gradients. Decoders have ``kv_cache_bytes_per_token``, in
    bf16, one row; encoders ``head_params``, the head that predicts symbols: beside ``num_params``, in all else.
    """
    seq_len = config.max_seq_len if seq_len is None else seq_len
    if isinstance(config, EncoderConfig):
        counts, head = count_encoder_params(config), encoder_head_params(config)
        attention = encoder_attention_flops(config, seq_len)
        own = {"head_params": head}
    else:
        counts, head = count_decoder_params(config), 0
        attention = attention_flops_per_token(config, seq_len)
        cache = kv_cache_bytes_per_token(config)
        own = {"kv_cache_bytes_per_token": cache, "kv_cache_row_bytes": seq_len * cache}
    forward = 2.0 * counts.matmul + attention
    return {
        "num_params": counts.total - head,
        "embedding_params": counts.embedding,
        "active_params": counts.active - head,
        "matmul_params": counts.matmul,
        "seq_len": seq_len,
        "attention_flops_per_token": attention,
        "forward_flops_per_token": forward,
        "train_flops_per_token": 3.0 * forward,
        "weights_bf16_bytes": 2 * counts.total,
        "weights_f32_bytes": 4 * counts.total,
        "adamw_bytes": 12 * counts.total,
        **own,
    }


def plan_table(name: str, figures: dict[str, Any]) -> str:
    """The figures as lines for a person."""
    t = figures["seq_len"]
    total, active = figures["num_params"], figures["active_params"]
    rows = [
        ("parameters", f"{total:,}"),
        ("  looked up in tables", f"{figures['embedding_params']:,}"),
        ("  multiplied with a token (N)", f"{figures['matmul_params']:,}"),
        ("FLOPs a token, forward", f"{figures['forward_flops_per_token']:.4e}"),
        ("  of them attention", f"{figures['attention_flops_per_token']:.4e}"),
        ("FLOPs a token, training", f"{figures['train_flops_per_token']:.4e}"),
        ("weights, bf16", f"{figures['weights_bf16_bytes'] / GIB:,.2f} GiB"),
        ("weights, f32", f"{figures['weights_f32_bytes'] / GIB:,.2f} GiB"),
        ("weights and AdamW's moments, f32", f"{figures['adamw_bytes'] / GIB:,.2f} GiB"),
    ]
    if "head_params" in figures:
        rows.insert(1, ("  beside them the head of masked text", f"{figures['head_params']:,}"))
    else:
        rows.append(("KV cache a token, bf16", f"{figures['kv_cache_bytes_per_token']:,} bytes"))
        rows.append(("KV cache of a row, bf16", f"{figures['kv_cache_row_bytes'] / GIB:,.2f} GiB"))
    if active != total:
        rows.insert(1, ("  that one token meets", f"{active:,}"))
    width = max(len(label) for label, _ in rows)
    return "\n".join([f"{name}, rows of {t:,} tokens", *(f"  {label:<{width}}  {value:>22}" for label, value in rows)])
