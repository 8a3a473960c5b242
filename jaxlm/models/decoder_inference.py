"""A trained decoder's parameters laid out for generation, where each token reads all of them: what can be done once is
done before the first token.

Layers stand on their own (a loop over stacked layers would copy each out of the stack at each token), kernels of one
input side by side (queries, keys and values; up and gate), and all are kept as they are multiplied: in the compute
dtype or, half of that, in int8.
"""

import dataclasses
from typing import Any, Literal

import jax

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.types import Params
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.stack import unstack
from jaxlm.nn.linear import join_kernels, joined_name, quantize_kernel

Weights = Literal["trained", "int8", "row"]
"""How kernels are kept: as they were trained, in the compute dtype; in int8 with one scale for each output; or for the
kernel that decodes one row on an NVIDIA GPU (`models.decoder_kernel`)."""

JOINED = (("q", "k", "v"), ("up", "gate"), ("q_down", "kv_down"), ("q", "kv_down"))
"""Linear maps of one input, as the layers apply them together."""

EXACT = ("router",)
"""Linear maps computed in f32, which stay as they are."""


def inference_config(config: DecoderConfig) -> DecoderConfig:
    """The same model with each layer written out, its parameters and its cache its own (``tail_i``): a window pattern
    longer than the model has no whole repeat to stack. Products are exact, however it was trained; attention is chosen
    anew."""
    pattern = [config.pattern_window(layer) for layer in range(config.num_layers)]
    return dataclasses.replace(
        config, window_pattern=(*pattern, None), scan_layers=False, quantization="none", attention="auto"
    )


def inference_params(config: DecoderConfig, params: Params, *, weights: Weights = "trained") -> Params:
    """Parameters of ``config``, as trained, for the model of ``inference_config(config)``, on one device.

    Kernels of attention, MLPs and experts are joined and cast, or made int8; tables and the head are cast; norms and
    router stay. In the compute dtype the values are those that the trained layout would compute with, bit for bit.
    """
    dtype, group = as_dtype(config.compute_dtype), len(config.window_pattern)

    def of_map(part: Params) -> Params:
        """The parameters of one linear map, or of the experts' one."""
        kernel = quantize_kernel(part["kernel"]) if weights == "int8" else {"kernel": part["kernel"].astype(dtype)}
        rest = {name: value for name, value in part.items() if name != "kernel"}  # a bias; a low-rank adapter
        return kernel | jax.tree.map(lambda leaf: leaf.astype(dtype), rest)

    def of_module(module: Params) -> Params:
        module = dict(module)
        for names in JOINED:
            if all(_is_matrix(module.get(name)) for name in names):
                module[joined_name(names)] = join_kernels([module.pop(name) for name in names])
        return {name: of_part(name, part) for name, part in module.items()}

    def of_part(name: str, part: Any) -> Any:
        if name in EXACT or not isinstance(part, dict):
            return part
        return of_map(part) if "kernel" in part else of_module(part)

    out = {name: part for name, part in params.items() if name != "layers" and not name.startswith("tail_")}
    layers: list[Params] = []
    if config.num_groups:
        for group_params in unstack(params["layers"], config.num_groups):
            layers += [group_params.get(f"layer_{j}", {}) for j in range(group)]
    layers += [params.get(f"tail_{i}", {}) for i in range(config.num_tail_layers)]
    out |= {f"tail_{i}": of_module(layer) for i, layer in enumerate(layers)}
    for name in ("embed", "head"):  # looked up and multiplied in the compute dtype
        if name in out:
            out[name] = jax.tree.map(lambda leaf: leaf.astype(dtype), out[name])
    return out


def _is_matrix(part: Any) -> bool:
    """Whether this is a linear map that can be joined with others: one with an adapter stays apart."""
    return isinstance(part, dict) and part.keys() <= {"kernel", "bias"} and part["kernel"].ndim == 2
