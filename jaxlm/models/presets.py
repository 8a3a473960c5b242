"""Published shapes by name. Values only: what a family has in common is one function, its sizes are a table.

Dtypes, remat and the weights of a router's losses are the defaults of their configs: a shape says what a model is, not
how it is run.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

from jaxlm.core.errors import UserError
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.encoder_config import BERT_BASE, BERT_LARGE, EncoderConfig
from jaxlm.nn.moe import MoeConfig
from jaxlm.nn.rope import RopeConfig

Shape = TypeVar("Shape", bound=DecoderConfig | EncoderConfig)


def gpt2(num_layers: int = 12, model_dim: int = 768, num_heads: int = 12) -> DecoderConfig:
    """GPT-2 (Radford et al. 2019, table 2): biases everywhere, LayerNorm, learned positions, tanh GELU, tied."""
    return DecoderConfig(
        vocab_size=50257,
        max_seq_len=1024,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=num_heads,
        mlp="gelu",
        norm="layernorm",
        norm_eps=1e-5,
        bias=True,
        qk_norm=False,
        position="learned",
    )


def gpt3(num_layers: int, model_dim: int, num_heads: int) -> DecoderConfig:
    """GPT-3 (Brown et al. 2020, table 2.1): GPT-2's form, 2,048 positions, dense and banded layers in turns.

    The width of the band is not published; 256 is GPT-Neo's.
    """
    shape = gpt2(num_layers, model_dim, num_heads)
    return dataclasses.replace(shape, max_seq_len=2048, window_pattern=(None, 256))


def palm(num_layers: int, model_dim: int, num_heads: int) -> DecoderConfig:
    """PaLM (Chowdhery et al. 2022, section 2): parallel blocks, multi-query attention of width 256, SwiGLU of 4 d, no
    biases anywhere (in LayerNorms neither), RoPE, a tied vocabulary of 256k.

    Its embeddings start at deviation 1 and its logits are divided by sqrt(d): here the table is smaller by sqrt(d) and
    embeddings are multiplied by it, which is the same function.
    """
    return DecoderConfig(
        vocab_size=256000,
        max_seq_len=2048,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=num_heads,
        num_kv_heads=1,
        head_dim=256,
        mlp_dim=4 * model_dim,
        norm="layernorm",
        qk_norm=False,
        parallel_block=True,
        embed_scale=True,
        init_std=None,
    )


_LLAMA31 = RopeConfig(theta=500000.0, scaling="llama3", factor=8.0, original_max_seq_len=8192)


def llama3(
    num_layers: int,
    model_dim: int,
    num_heads: int,
    mlp_dim: int,
    *,
    max_seq_len: int = 8192,
    rope: RopeConfig | None = None,
    tied: bool = False,
) -> DecoderConfig:
    """Llama 3, 3.1 and 3.2 (Grattafiori et al. 2024, table 3): 8 key heads, SwiGLU, RMSNorm, theta 500,000."""
    return DecoderConfig(
        vocab_size=128256,
        max_seq_len=max_seq_len,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=num_heads,
        num_kv_heads=8,
        mlp_dim=mlp_dim,
        norm_eps=1e-5,
        qk_norm=False,
        rope=RopeConfig(theta=500000.0) if rope is None else rope,
        tie_embeddings=tied,
    )


def qwen3(
    num_layers: int, model_dim: int, num_heads: int, mlp_dim: int, *, num_kv_heads: int = 8, tied: bool = False
) -> DecoderConfig:
    """Qwen3 (Yang et al. 2025, table 1): heads of 128 whatever the width, QK-norm, theta 1,000,000."""
    return DecoderConfig(
        vocab_size=151936,
        max_seq_len=40960,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=128,
        mlp_dim=mlp_dim,
        rope=RopeConfig(theta=1e6),
        tie_embeddings=tied,
    )


def qwen3_moe(num_layers: int, model_dim: int, num_heads: int, expert_dim: int) -> DecoderConfig:
    """Qwen3-MoE (Yang et al. 2025, table 2): 128 experts of which 8 serve a token, 4 key heads, no shared expert."""
    shape = qwen3(num_layers, model_dim, num_heads, expert_dim, num_kv_heads=4)
    return dataclasses.replace(shape, moe=MoeConfig(num_experts=128, top_k=8))


def gemma3(
    num_layers: int,
    model_dim: int,
    num_heads: int,
    num_kv_heads: int,
    mlp_dim: int,
    *,
    head_dim: int = 256,
    query_pre_attn_scalar: float = 256.0,
    long: bool = True,
) -> DecoderConfig:
    """Gemma 3, its text model (Gemma Team 2025, section 2): five local layers to one global, each with its own rope;
    four norms a layer with gains 1 + w; QK-norm. ``long``: 128k of context, windows of 1,024 and global angles / 8."""
    return DecoderConfig(
        vocab_size=262208 if long else 262144,
        max_seq_len=131072 if long else 32768,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        mlp="geglu",
        norm_offset=True,
        output_norms=True,
        query_pre_attn_scalar=query_pre_attn_scalar,
        embed_scale=True,
        window_pattern=(1024 if long else 512,) * 5 + (None,),
        rope=RopeConfig(theta=1e6, local_theta=1e4, scaling="linear" if long else "none", factor=8.0 if long else 1.0),
    )


def mixtral(
    num_layers: int, model_dim: int, num_heads: int, expert_dim: int, *, max_seq_len: int = 32768
) -> DecoderConfig:
    """Mixtral (Jiang et al. 2024, table 1): 8 experts of which 2 serve a token, 8 key heads, theta 1,000,000."""
    return DecoderConfig(
        vocab_size=32000,
        max_seq_len=max_seq_len,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=num_heads,
        num_kv_heads=8,
        mlp_dim=expert_dim,
        norm_eps=1e-5,
        qk_norm=False,
        rope=RopeConfig(theta=1e6),
        tie_embeddings=False,
        moe=MoeConfig(num_experts=8, top_k=2),
    )


def _llama31(num_layers: int, model_dim: int, num_heads: int, mlp_dim: int) -> DecoderConfig:
    return llama3(num_layers, model_dim, num_heads, mlp_dim, max_seq_len=131072, rope=_LLAMA31)


def _llama32(num_layers: int, model_dim: int, num_heads: int, mlp_dim: int) -> DecoderConfig:
    rope = dataclasses.replace(_LLAMA31, factor=32.0)
    return llama3(num_layers, model_dim, num_heads, mlp_dim, max_seq_len=131072, rope=rope, tied=True)


PRESETS: dict[str, Callable[[], DecoderConfig]] = {
    "gpt2": gpt2,
    "gpt2-medium": lambda: gpt2(24, 1024, 16),
    "gpt2-large": lambda: gpt2(36, 1280, 20),
    "gpt2-xl": lambda: gpt2(48, 1600, 25),
    "gpt3-125m": lambda: gpt3(12, 768, 12),
    "gpt3-6.7b": lambda: gpt3(32, 4096, 32),
    "gpt3-175b": lambda: gpt3(96, 12288, 96),
    "palm-8b": lambda: palm(32, 4096, 16),
    "palm-62b": lambda: palm(64, 8192, 32),
    "palm-540b": lambda: palm(118, 18432, 48),
    "llama3-8b": lambda: llama3(32, 4096, 32, 14336),
    "llama3-70b": lambda: llama3(80, 8192, 64, 28672),
    "llama3.1-8b": lambda: _llama31(32, 4096, 32, 14336),
    "llama3.1-70b": lambda: _llama31(80, 8192, 64, 28672),
    "llama3.1-405b": lambda: _llama31(126, 16384, 128, 53248),
    "llama3.2-1b": lambda: _llama32(16, 2048, 32, 8192),
    "llama3.2-3b": lambda: _llama32(28, 3072, 24, 8192),
    "qwen3-0.6b": lambda: qwen3(28, 1024, 16, 3072, tied=True),
    "qwen3-1.7b": lambda: qwen3(28, 2048, 16, 6144, tied=True),
    "qwen3-4b": lambda: qwen3(36, 2560, 32, 9728, tied=True),
    "qwen3-8b": lambda: qwen3(36, 4096, 32, 12288),
    "qwen3-14b": lambda: qwen3(40, 5120, 40, 17408),
    "qwen3-32b": lambda: qwen3(64, 5120, 64, 25600),
    "qwen3-30b-a3b": lambda: qwen3_moe(48, 2048, 32, 768),
    "qwen3-235b-a22b": lambda: qwen3_moe(94, 4096, 64, 1536),
    "gemma3-270m": lambda: gemma3(18, 640, 4, 1, 2048, long=False),
    "gemma3-1b": lambda: gemma3(26, 1152, 4, 1, 6912, long=False),
    "gemma3-4b": lambda: gemma3(34, 2560, 8, 4, 10240),
    "gemma3-12b": lambda: gemma3(48, 3840, 16, 8, 15360),
    "gemma3-27b": lambda: gemma3(62, 5376, 32, 16, 21504, head_dim=128, query_pre_attn_scalar=168.0),
    "mixtral-8x7b": lambda: mixtral(32, 4096, 32, 14336),
    "mixtral-8x22b": lambda: mixtral(56, 6144, 48, 16384, max_seq_len=65536),
}
"""Name -> its shape, ``vocab_size`` included. Decoders; see ``ENCODERS`` for the others."""

ENCODERS: dict[str, Callable[[], EncoderConfig]] = {"bert-base": lambda: BERT_BASE, "bert-large": lambda: BERT_LARGE}
"""The same of encoders."""


def preset(name: str) -> DecoderConfig:
    """The decoder of that name. Raises UserError, with the nearest names, where there is none."""
    return _found(name, PRESETS)


def any_preset(name: str) -> DecoderConfig | EncoderConfig:
    """The same, encoders included."""
    return _found(name, PRESETS | ENCODERS)


def _found(name: str, table: Mapping[str, Callable[[], Shape]]) -> Shape:
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3, cutoff=0.5)
        mend = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(table)}"
        raise UserError(f"unknown model {name!r}: {mend}")
    return table[name]()
