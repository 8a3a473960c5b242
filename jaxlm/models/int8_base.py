"""A frozen base in int8 beside which adapters are trained: a quarter of its memory in f32 (QLoRA-style; Dettmers et al.
2023 keep 4 bits, here it is 8 with one scale for each output)."""

from jax.sharding import PartitionSpec

from jaxlm.core.types import Array, Params
from jaxlm.models.api import Rules
from jaxlm.models.lora import BESIDE
from jaxlm.nn.linear import KERNEL_SCALE, dequantize, quantize_kernel


def quantize_base(params: Params) -> Params:
    """The parameters with the kernels of attention and MLPs (`models.lora.BESIDE`) in int8, each with its scales beside
    it: those alone are `nn.linear.Linear`, which computes with them. All else stays as it is."""

    def walk(path: str, part: Params | Array) -> Params | Array:
        if not isinstance(part, dict):
            return part
        out = {name: walk(f"{path}/{name}", below) for name, below in part.items()}
        if "kernel" in out and BESIDE.search(f"{path}/kernel"):
            out |= quantize_kernel(part["kernel"])
        return out

    return {name: walk(name, part) for name, part in params.items()}


def dequantize_base(params: Params, like: Params) -> Params:
    """Plain parameters, in the dtypes of ``like``, that compute what `quantize_base` left."""

    def walk(part: Params | Array, like: Params | Array) -> Params | Array:
        if not isinstance(part, dict) or not isinstance(like, dict):
            return part
        out = {name: walk(part[name], like[name]) for name in like}
        if KERNEL_SCALE in part:
            out["kernel"] = dequantize(part["kernel"], part[KERNEL_SCALE], like["kernel"].dtype)
        return out

    return {name: walk(part, like[name]) for name, part in params.items()}


def int8_rules(rules: Rules) -> Rules:
    """The rule table of a model with that of the scales before it: they lie as their kernel's outputs do."""
    scales = [
        (pattern.removesuffix("kernel$") + f"{KERNEL_SCALE}$", PartitionSpec(*spec[:-2], spec[-1]))
        for pattern, spec in rules
        if pattern.endswith("kernel$") and len(spec) >= 2
    ]
    return (*scales, *rules)
