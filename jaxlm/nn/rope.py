"""Rotary position embeddings (Su et al. 2021), with the linear, Llama 3.1 and YaRN rescalings for longer
contexts."""

import dataclasses
import math
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np

from jaxlm.core.types import Array

RopeScaling = Literal["none", "linear", "llama3", "yarn"]

RopeTables = tuple[Array, Array]
"""Cosine (twice over) and sine (negated, then as it is), f32 [..., h]: ``x cos + roll(x, h/2) sin`` is the rotation."""

MAX_CONSTANT = 1 << 18
"""Elements up to which a table is put into the program as a constant (2,048 positions of 128)."""


@dataclasses.dataclass(frozen=True)
class RopeConfig:
    """Angles of the rotation: pair i of a head of width h turns by ``position * theta^(-2i/h)``, rescaled."""

    theta: float = 10000.0
    local_theta: float | None = None
    """theta of layers with a window, whose angles are never rescaled (Gemma 3); None = they turn as all others."""
    scaling: RopeScaling = "none"
    factor: float = 1.0
    """How much longer the context is than the original."""
    original_max_seq_len: int = 8192
    """Context that the unscaled angles were trained with."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original / this are divided by ``factor``."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original / this are kept."""
    beta_fast: float = 32.0
    """yarn: pairs that turn more often than this over the original context are kept."""
    beta_slow: float = 1.0
    """yarn: pairs that turn less often than this are divided by ``factor``."""
    attention_factor: float | None = None
    """yarn: what queries and keys are both multiplied with; None = 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        if self.scaling not in get_args(RopeScaling):
            raise ValueError(f"rope.scaling={self.scaling!r} is unknown: choose {', '.join(get_args(RopeScaling))}")
        for name in ("theta", "local_theta"):
            value = getattr(self, name)
            if value is not None and value <= 1:
                raise ValueError(f"rope.{name}={value} must be above 1: 10000 is usual")
        if self.factor < 1:
            raise ValueError(f"rope.factor={self.factor} is less than 1: give new context / original context")
        if self.scaling == "none" and self.factor != 1:
            raise ValueError(f"rope.factor={self.factor} does nothing with rope.scaling='none': choose a scaling")
        if self.original_max_seq_len < 1:
            raise ValueError(f"rope.original_max_seq_len={self.original_max_seq_len} must be at least 1")
        if self.scaling == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"rope.low_freq_factor={self.low_freq_factor} must be above 0 and below "
                f"rope.high_freq_factor={self.high_freq_factor}: 1 and 4 are usual"
            )
        if self.scaling == "yarn" and not 0 < self.beta_slow < self.beta_fast:
            raise ValueError(
                f"rope.beta_slow={self.beta_slow} must be above 0 and below rope.beta_fast={self.beta_fast}: "
                "1 and 32 are usual"
            )
        if self.attention_factor is not None and self.attention_factor <= 0:
            raise ValueError(f"rope.attention_factor={self.attention_factor} must be above 0: use None for YaRN's own")

    def of_window(self, window: int | None) -> "RopeConfig":
        """The rotation of a layer with this window."""
        return self if window is None or self.local_theta is None else RopeConfig(theta=self.local_theta)


def _llama3(inv_freq: np.ndarray, config: RopeConfig) -> np.ndarray:
    """Llama 3.1: long waves divided by ``factor``, short ones kept, a linear blend in turns between them."""
    turns = config.original_max_seq_len * inv_freq / (2 * math.pi)
    kept = np.clip((turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor), 0, 1)
    return (1 - kept) * inv_freq / config.factor + kept * inv_freq


def _yarn(inv_freq: np.ndarray, config: RopeConfig, head_dim: int) -> np.ndarray:
    """YaRN's NTK-by-parts (Peng et al. 2023, section 3.2), its ramp linear in the pair's index as in the released
    code."""

    def index_of(turns: float) -> float:
        """The (fractional) pair that turns so often over the original context."""
        wavelength = config.original_max_seq_len / turns
        return head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.theta))

    low = max(math.floor(index_of(config.beta_fast)), 0)
    high = min(math.ceil(index_of(config.beta_slow)), head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / max(high - low, 1e-3), 0, 1)
    return ramp * inv_freq / config.factor + (1 - ramp) * inv_freq


def rope_frequencies(config: RopeConfig, head_dim: int) -> tuple[np.ndarray, float]:
    """Radians a position for each pair, float64 [h / 2], and the factor on cosine and sine (YaRN's temperature,
    else 1).

    Queries and keys both carry the factor, so scores are multiplied by its square: 1/sqrt(t) = 0.1 ln(s) + 1
    (Peng et al. 2023, eq. 22).
    """
    inv_freq = config.theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if config.scaling == "linear":  # position interpolation (Chen et al. 2023)
        return inv_freq / config.factor, 1.0
    if config.scaling == "llama3":
        return _llama3(inv_freq, config), 1.0
    if config.scaling == "yarn":
        factor = config.attention_factor
        return _yarn(inv_freq, config, head_dim), (0.1 * math.log(config.factor) + 1.0 if factor is None else factor)
    return inv_freq, 1.0


def rope_tables(positions: Array | int, config: RopeConfig, head_dim: int) -> RopeTables:
    """The rotation for integer positions [...], or for 0..t-1 where an int t is given; made once a forward pass.

    For a t known at compile time the tables are constants: XLA:CPU would else work out cosines again in every layer,
    for every head. Angles are f32 products either way, so that both forms agree to rounding.
    """
    inv_freq, factor = rope_frequencies(config, head_dim)
    if isinstance(positions, int) and positions * head_dim <= MAX_CONSTANT:
        angles = np.arange(positions, dtype=np.float32)[:, None] * inv_freq.astype(np.float32)
        cos, sin = np.cos(angles.astype(np.float64)) * factor, np.sin(angles.astype(np.float64)) * factor
        cos = jnp.asarray(np.concatenate([cos, cos], axis=-1), jnp.float32)
        return cos, jnp.asarray(np.concatenate([-sin, sin], axis=-1), jnp.float32)
    if isinstance(positions, int):
        positions = jnp.arange(positions, dtype=jnp.int32)
    angles = positions.astype(jnp.float32)[..., None] * jnp.asarray(inv_freq, jnp.float32)
    cos, sin = jnp.cos(angles) * factor, jnp.sin(angles) * factor
    return jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)


def apply_rope(x_btnh: Array, tables: RopeTables) -> Array:
    """Rotate each head's pairs (i, i + h/2), in f32, keeping the dtype: the half-split layout of Hugging Face's Llama.

    ``tables`` are [b, t, h], or [t, h] where all rows share their positions.
    """
    cos, sin = (table[..., None, :] for table in tables)
    x = x_btnh.astype(jnp.float32)
    return (x * cos + jnp.roll(x, x.shape[-1] // 2, axis=-1) * sin).astype(x_btnh.dtype)
