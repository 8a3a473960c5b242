"""The real train step compiled for NVIDIA GPUs that are only described: XLA's plugin for CUDA is the compiler."""

import dataclasses
import importlib.util
from typing import Any

import jax
from jax.experimental import topologies

from jaxlm.core.errors import UserError
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.families import ModelConfig
from jaxlm.nn.attention import choose_implementation
from jaxlm.plan.gpus import Gpu, parse_gpus
from jaxlm.plan.topology import Topology
from jaxlm.run.compile_tpu import CompileOptions, compile_for, conclude, with_batch_tokens
from jaxlm.run.config import PretrainConfig
from jaxlm.run.config_files import load_config
from jaxlm.run.continued import on_base

PROG = "python -m tools.compile_gpu"
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")


@dataclasses.dataclass(frozen=True)
class GpuOptions(CompileOptions):
    """Which GPUs."""

    gpu: str | None = None
    """h100, h200 or a100."""
    gpus: int = 8
    """GPUs of a host, joined by NVLink."""
    hosts: int = 1
    """How many such hosts, joined by their network."""


def main(argv: list[str]) -> int:
    """``CONFIG --gpu h100 [--gpus 8] [--hosts N] [--batch-tokens N] [--field.sub value ...]``.

    A table goes to stderr, one JSON object to stdout. The exit code: 0 = fits, 1 = does not fit, 2 = bad input.
    """
    about = (
        "Compiles the train step for GPUs that are not there: does it fit, what it moves, how long it takes at least."
    )
    config, options = load_config(PretrainConfig, argv, GpuOptions, prog=PROG, about=about)
    config = on_base(config)
    if options.gpu is None:
        raise UserError(f"no --gpu given: {PROG} CONFIG --gpu h100")
    gpu, topology = parse_gpus(options.gpu, per_host=options.gpus, hosts=options.hosts)
    config = with_batch_tokens(config, options.batch_tokens)
    model, note = with_attention(config.model)
    config = dataclasses.replace(config, model=model)
    figures = compile_for(
        config, topology, hlo_path=options.hlo, platform="cuda", describe=lambda topology: described(gpu, topology)
    )
    figures["notes"] += note
    return conclude(figures)


def described(gpu: Gpu, topology: Topology) -> list[Any]:
    """Devices that can be compiled for and nothing else. Raises UserError without the plugin."""
    if not any(importlib.util.find_spec(name) for name in PLUGINS):
        raise UserError(
            "XLA's compiler for GPUs is not installed: pip install jax-cuda13-plugin (132 MB, no GPU and no CUDA are "
            "needed), or 'jaxlm[cuda]' with all of CUDA; tools.plan counts memory without it"
        )
    shape = f"1x{topology.slices}x{topology.shape[0]}"
    try:
        found = topologies.get_topology_desc(
            platform="cuda", topology_name=topology.name, topology=shape, target_config=gpu.describe()
        )
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        raise UserError(f"the plugin for CUDA does not take {topology.name}: {error}") from error
    assert len(found.devices) == topology.num_chips
    return list(found.devices)


def with_attention(model: ModelConfig) -> tuple[ModelConfig, list[str]]:
    """The model with an attention that can be compiled here, and a note where the GPU's own would be another: cuDNN's
    needs its library while it is traced. Our own kernels need no GPU to be compiled."""
    if not isinstance(model, DecoderConfig) or model.attention != "auto" or has_cudnn():
        return model, []
    chosen = choose_implementation(
        "auto",
        "cuda",
        dtype=jax.numpy.dtype(model.compute_dtype),
        head_dim=model.qk_width,
        softcap=model.attn_softcap,
    )
    if chosen != "cudnn":
        return model, []
    note = "attention is xla here, which holds [t, t] weights: on the GPU it is cuDNN's. pip install nvidia-cudnn-cu13"
    return dataclasses.replace(model, attention="xla"), [note]


def has_cudnn() -> bool:
    """Whether the package with cuDNN is installed, where jax looks for it."""
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.cudnn") is not None
