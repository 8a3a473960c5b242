"""The families of trained models: a config says which it is, and everyone else asks here."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxlm.models.api import Model
from jaxlm.models.decoder import DecoderConfig, make_decoder, resolve_attention
from jaxlm.models.recurrent import RecurrentConfig, make_recurrent

ModelConfig = DecoderConfig | RecurrentConfig

_MAKE: dict[str, Callable[[Any], Model]] = {"decoder": make_decoder, "recurrent": make_recurrent}

CARRIES_STATE = ("recurrent",)
"""Families whose state can be carried from one batch to the next (``data.packing="stream"``)."""


def make_model(config: ModelConfig) -> Model:
    """The pure functions of a model of any family. Raises ValueError while ``vocab_size`` is None."""
    return _MAKE[config.family](config)


def for_platform(config: ModelConfig, platform: str) -> ModelConfig:
    """The config with what depends on the platform ("cpu", "gpu", "tpu") chosen: attention's implementation.

    Raises UserError where the config asks for what the platform cannot do.
    """
    return resolve_attention(config, platform) if isinstance(config, DecoderConfig) else config


def for_inference(config: ModelConfig, platform: str) -> ModelConfig:
    """The config as it runs best here, however it was trained: scanned layers decode faster."""
    if isinstance(config, DecoderConfig):
        config = dataclasses.replace(config, attention="auto", scan_layers=True)
    return for_platform(config, platform)
