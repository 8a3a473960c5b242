"""FLOPs of a decoder, by the convention of the design: 6ND plus attention, causal attention counted as half."""

import re
from collections.abc import Sequence

from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.params import count_decoder_params


def attention_flops_per_token(config: DecoderConfig, seq_len: int) -> float:
    """Forward FLOPs of scores and weighted values for one token at full rows, summed over layers.

    A query sees on average (seq_len + 1) / 2 keys (a window caps it); each costs one multiply-add for every element of
    its n key heads and one for every element of its values: 4 n h FLOPs a key where both are h wide.
    """
    total = 0.0
    for layer in range(config.num_layers):
        window = config.pattern_window(layer)
        if window is None or window >= seq_len:
            keys = (seq_len + 1) / 2
        else:
            keys = window - window * (window - 1) / (2 * seq_len)
        total += 2.0 * config.num_heads * (config.qk_width + config.v_width) * keys
    return total


def forward_flops_per_token(config: DecoderConfig, seq_len: int) -> float:
    """FLOPs of reading one token: 2 N + attention, N as in ``train_flops_per_token``."""
    return 2.0 * count_decoder_params(config).matmul + attention_flops_per_token(config, seq_len)


def train_flops_per_token(config: DecoderConfig, seq_len: int) -> float:
    """Forward and backward FLOPs for one token: 6 N + 3 x attention.

    N counts the parameters that a token is multiplied with: all but the embedding tables that are only looked up (a
    tied table counts once, for the head), and of experts those that serve it. Rematerialisation is not counted (MFU,
    not hardware utilisation).
    """
    return 3.0 * forward_flops_per_token(config, seq_len)


PEAK_BF16_FLOPS: tuple[tuple[str, float], ...] = (
    ("GH200", 989e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("TPU v6 lite", 918e12),
    ("TPU v6e", 918e12),
    ("TPU v5p", 459e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    ("TPU v3", 61.5e12),
    ("TPU v2", 22.5e12),
)
"""Dense bf16 peak of one jax device, by words of ``device_kind``, from the makers' data sheets."""


def by_device_kind(table: Sequence[tuple[str, float]], device_kind: str) -> float | None:
    """The first row whose words stand in ``device_kind``: an L40S is no L4. None where there is none."""
    for name, value in table:
        if re.search(rf"(?<![a-z0-9]){re.escape(name.lower())}(?![a-z0-9])", device_kind.lower()):
            return value
    return None


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 peak in FLOP/s, or None where it is not known (CPUs)."""
    return by_device_kind(PEAK_BF16_FLOPS, device_kind)
