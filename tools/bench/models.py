"""The models that are measured."""

import dataclasses

import jax

from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.presets import gpt2, llama3

SMALL = DecoderConfig(
    vocab_size=65,
    max_seq_len=64,
    num_layers=4,
    model_dim=128,
    num_heads=4,
    mlp_dim=344,
    norm_scale=False,
    tie_embeddings=False,
    scan_layers=False,
)
"""The model of configs/shakespeare_char.py."""
MIDDLE = DecoderConfig(vocab_size=32000, max_seq_len=1024, num_layers=12, model_dim=768, num_heads=12)
"""110 M parameters in f32: decoding on a CPU."""
GPT2 = dataclasses.replace(
    gpt2(),
    vocab_size=50304,
    bias=False,
    mlp="gelu_exact",
    compute_dtype="bfloat16",
    logits_dtype="bfloat16",
    scan_layers=False,
)
"""GPT-2 124M as nanoGPT trains it: no biases, exact GELU, learned positions, a tied head, the vocabulary padded, logits
in bfloat16."""
LLAMA = dataclasses.replace(
    llama3(24, 2048, 16, 5504),
    vocab_size=32000,
    num_kv_heads=16,
    max_seq_len=2048,
    compute_dtype="bfloat16",
    logits_dtype="bfloat16",
    scan_layers=False,
)
"""A Llama of 1.3 B parameters."""


def on_cpu() -> bool:
    """Whether the device that JAX finds is a CPU, which gets the small cases."""
    return jax.default_backend() == "cpu"
