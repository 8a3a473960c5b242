"""One shape of decoder at many widths: heads and MLP in proportion to ``model_dim``."""

import dataclasses

from jaxlm.models.decoder_config import DecoderConfig


def at_width(config: DecoderConfig, model_dim: int, *, base_dim: int | None = None) -> DecoderConfig:
    """``config`` made ``model_dim`` wide; with ``base_dim`` under muP, its rates chosen at that width.

    Where ``head_dim`` is given heads grow in number and keep their width; else as many heads grow wider. ``mlp_dim``
    None follows by itself; a given one, rounded to a multiple of 8, grows in proportion.

    Raises ValueError where heads do not come out whole, and for latent attention, whose widths stand on their own.
    """
    if config.mla is not None:
        raise ValueError("model.mla has widths of its own: give each shape its own config")
    heads, kv_heads, base_head_dim = config.num_heads, config.num_kv_heads, None
    if config.head_dim is not None:
        heads = _in_proportion("num_heads", heads, config, model_dim)
        kv_heads = None if kv_heads is None else _in_proportion("num_kv_heads", kv_heads, config, model_dim)
    elif base_dim is not None:
        base_head_dim = base_dim // heads
    mlp_dim = None if config.mlp_dim is None else max(8, 8 * round(config.mlp_dim * model_dim / config.model_dim / 8))
    return dataclasses.replace(
        config,
        model_dim=model_dim,
        num_heads=heads,
        num_kv_heads=kv_heads,
        mlp_dim=mlp_dim,
        base_dim=base_dim,
        base_head_dim=base_head_dim,
    )


def at_size(config: DecoderConfig, model_dim: int, *, dim_per_layer: int, min_layers: int) -> DecoderConfig:
    """``config``, the base of muP, made ``model_dim`` wide and ``model_dim / dim_per_layer`` layers deep (rounded,
    ``min_layers`` at least)."""
    layers = max(min_layers, int(model_dim / dim_per_layer + 0.5))
    return dataclasses.replace(at_width(config, model_dim, base_dim=config.model_dim), num_layers=layers)


def _in_proportion(name: str, count: int, config: DecoderConfig, model_dim: int) -> int:
    if count * model_dim % config.model_dim:
        raise ValueError(
            f"model.{name}={count} at model_dim={config.model_dim} is no whole number at {model_dim}: choose a width "
            f"that makes it one, or leave head_dim None"
        )
    return count * model_dim // config.model_dim
