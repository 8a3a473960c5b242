"""The families of trained models: a config says which it is, and everyone else asks here."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxlm.models.api import Model
from jaxlm.models.decoder import DecoderConfig, make_decoder, resolve_kernels
from jaxlm.models.encoder import make_encoder
from jaxlm.models.encoder_config import EncoderConfig, resolve_encoder_attention
from jaxlm.models.recurrent import RecurrentConfig, make_recurrent, resolve_unroll
from jaxlm.nn.kernels import KernelMissing, no_kernel
from jaxlm.nn.quantized import check_quantization
from jaxlm.sharding.activations import DEFAULT_LAYOUT, ActivationLayout
from jaxlm.sharding.mesh import MeshConfig

ModelConfig = DecoderConfig | RecurrentConfig | EncoderConfig

_MAKE: dict[str, Callable[[Any, ActivationLayout], Model]] = {
    "decoder": make_decoder,
    "recurrent": lambda config, layout: make_recurrent(config),
    "encoder": make_encoder,
}

CARRIES_STATE = ("recurrent",)
"""Families whose state can be carried from one batch to the next (``data.packing="stream"``)."""

NEEDS_WHOLE_ROWS = ("recurrent",)
"""Families that read a row from one end to the other, layer by layer of different widths: neither its positions nor
their layers can be split over devices."""

MASKED = ("encoder",)
"""Families that see the whole text and are trained to restore what is hidden in it. The others predict the next token:
they alone have likelihoods and can write."""


def make_model(config: ModelConfig, layout: ActivationLayout = DEFAULT_LAYOUT) -> Model:
    """The pure functions of a model of any family, for a mesh that wants its activations so. Raises ValueError while
    ``vocab_size`` is None."""
    return _MAKE[config.family](config, layout)


def check_context(mesh: MeshConfig, config: ModelConfig) -> None:
    """Raises ValueError where the mesh splits the positions of rows that the family must read whole."""
    if config.family in NEEDS_WHOLE_ROWS and mesh.context > 1:
        raise ValueError(
            f"mesh.context={mesh.context} splits the positions of a row, which a {config.family} model reads in turn: "
            "use mesh.context=1, and mesh.data or mesh.fsdp instead"
        )


def check_stages(mesh: MeshConfig, config: ModelConfig) -> None:
    """Raises ValueError where the layers do not divide over the stages of the mesh."""
    stages, rounds = mesh.stage, mesh.pipeline.rounds
    if stages == 1:
        return
    if config.family in NEEDS_WHOLE_ROWS:
        raise ValueError(
            f"mesh.stage={stages} splits layers that are alike, and those of a {config.family} model are not: use "
            "mesh.stage=1, and mesh.data or mesh.fsdp instead"
        )
    groups = config.num_groups if isinstance(config, DecoderConfig) else config.num_layers
    if groups % (stages * rounds) or not groups:
        size = len(config.window_pattern) if isinstance(config, DecoderConfig) else 1
        what = f" ({groups} whole repeats of model.window_pattern, of {size} layers each)" if size > 1 else ""
        asked = f"mesh.stage={stages}" + (f" * mesh.pipeline.rounds={rounds}" if rounds > 1 else "")
        raise ValueError(
            f"model.num_layers={config.num_layers}{what} does not divide over {asked}: make it a multiple of "
            f"{stages * rounds * size}, or change the mesh"
        )
    if (mesh.pipeline.num_microbatches or stages) % stages:
        raise ValueError(
            f"mesh.pipeline.num_microbatches={mesh.pipeline.num_microbatches} is not a multiple of mesh.stage="
            f"{stages}: change one of them, or leave it None"
        )


def width_of(config: ModelConfig) -> float | None:
    """Width over that of muP's base; None in the standard parametrisation, the only one of other families."""
    return config.width if isinstance(config, DecoderConfig) else None


def check_installed(config: ModelConfig) -> None:
    """Raises UserError where the model needs an extra's package that is not there."""
    if isinstance(config, DecoderConfig):
        check_quantization(config.quantization)


def for_platform(config: ModelConfig, platform: str, *, kernel_missing: KernelMissing = no_kernel) -> ModelConfig:
    """The config with what depends on the platform ("cpu", "gpu", "tpu") chosen: attention's implementation, and that
    of a recurrent layer's loop.

    Raises UserError where the config asks for what the platform cannot do.
    """
    if isinstance(config, EncoderConfig):
        return resolve_encoder_attention(config, platform, kernel_missing)
    if isinstance(config, RecurrentConfig):
        return resolve_unroll(config, platform, kernel_missing)
    return resolve_kernels(config, platform, kernel_missing)


def for_inference(config: ModelConfig, platform: str, *, kernel_missing: KernelMissing = no_kernel) -> ModelConfig:
    """The config as it runs best here on parameters as they were trained: a copy of each layer is cheaper to make in a
    scan than of all at once."""
    if isinstance(config, DecoderConfig):
        config = dataclasses.replace(config, attention="auto", scan_layers=True, quantization="none")
    if isinstance(config, EncoderConfig):
        config = dataclasses.replace(config, attention="auto")
    if isinstance(config, RecurrentConfig):
        config = dataclasses.replace(config, implementation="auto")
    return for_platform(config, platform, kernel_missing=kernel_missing)
