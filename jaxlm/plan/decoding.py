"""What a token costs to generate: bytes that must be read from memory, and how fast a device can read them."""

import math
from typing import Any

import numpy as np

from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import PyTree
from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.flops import by_device_kind
from jaxlm.plan.memory import kv_cache_bytes_per_token

MEMORY_BANDWIDTH: tuple[tuple[str, float], ...] = (
    ("GH200 144G", 4.9e12),
    ("GH200", 4.0e12),
    ("H200", 4.8e12),
    ("H100 PCIe", 2.0e12),
    ("H100 NVL", 3.9e12),
    ("H100", 3.35e12),
    ("A100-SXM4-80GB", 2.04e12),
    ("A100", 1.56e12),
    ("L40S", 0.86e12),
    ("L40", 0.86e12),
    ("L4", 0.3e12),
    ("TPU v6 lite", 1.64e12),
    ("TPU v6e", 1.64e12),
    ("TPU v5p", 2.77e12),
    ("TPU v5 lite", 0.82e12),
    ("TPU v5e", 0.82e12),
    ("TPU v5", 2.77e12),
    ("TPU v4", 1.23e12),
)
"""Bytes a second of one jax device's memory, by words of ``device_kind``, from the makers' data sheets."""


def memory_bandwidth(device_kind: str) -> float | None:
    """Peak bytes a second, or None where it is not known (CPUs)."""
    return by_device_kind(MEMORY_BANDWIDTH, device_kind)


def read_param_bytes(config: DecoderConfig, params: PyTree) -> int:
    """Bytes of parameters that each step of decoding reads: all, but for tables of which it looks up a few rows.

    ``params``: arrays or shapes, in whatever form they are kept. Experts count in full, as many rows need them all.
    """
    looked_up = {"embed/positions"} | (set() if config.tie_embeddings else {"embed/table"})
    leaves: dict[str, Any] = flatten_with_paths(params)
    sizes = {path: math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for path, leaf in leaves.items()}
    return sum(size for path, size in sizes.items() if path not in looked_up)


def decode_step_bytes(
    config: DecoderConfig, params: PyTree, *, rows: int, cached_tokens: float, itemsize: int
) -> float:
    """Bytes that a step for ``rows`` rows must read: the parameters once, and the keys and values of ``cached_tokens``
    tokens a row (``itemsize`` bytes an element). Over the memory's bandwidth: the floor of its time."""
    cache = rows * cached_tokens * kv_cache_bytes_per_token(config, itemsize)
    return read_param_bytes(config, params) + cache
