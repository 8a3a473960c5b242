"""LoRA: a frozen model, and for chosen kernels a low-rank change that is trained instead (Hu et al. 2021).

``kernel' = kernel + scale A B`` with A [in, r], B [r, out] and scale = alpha / r. The adapters are a tree of parameters
of their own: ``attn/q/kernel`` [.., in, out] has ``attn/q/lora_a/kernel`` [.., in, r] and ``attn/q/lora_b/kernel``
[.., r, out], stacked layers and experts having leading axes alike. B starts at 0: training starts from the base.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Array, Params
from jaxlm.models.api import Rules

A, B = "lora_a", "lora_b"

BESIDE = re.compile(r"(^|/)(attn/(q|k|v|o|q_down|q_up|kv_down)|(mlp|shared)/(gate|up|down))/kernel$")
"""Kernels of `nn.linear.Linear`, which takes an adapter beside it: ``x W + (x A) B``, so that no gradient of W's size
is ever made. To all other kernels the product A B is added."""


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which parameters are trained, and how."""

    rank: int = 8
    alpha: float = 16.0
    """The change is multiplied by alpha / rank: with another rank the rate need not be found again."""
    targets: tuple[str, ...] = (r"/attn/(q|v)/kernel$",)
    """Patterns over paths of kernels. Queries and values alone are what Hu et al. settled on; r"/(attn|mlp)/.*kernel$"
    adapts every layer's linear maps."""
    rslora: bool = False
    """alpha / sqrt(rank) instead, which keeps the change's size as the rank grows (Kalajdzievski 2023)."""
    trained: tuple[str, ...] = ()
    """Patterns over paths of parameters that are trained whole beside the adapters (a new head, say)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank={self.rank} must be at least 1")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha={self.alpha} must be above 0")
        for name in ("targets", "trained"):
            patterns = getattr(self, name)
            if isinstance(patterns, str):
                raise ValueError(f"lora.{name}={patterns!r} is one string: write a tuple")
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"lora.{name}: {pattern!r} is no regular expression: {error}") from None
        if not self.targets:
            raise ValueError("lora.targets is empty: name at least one kernel, or train the model whole")

    @property
    def scale(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def target_paths(base: Params, config: LoraConfig) -> tuple[list[str], list[str]]:
    """Paths of the kernels that get adapters, and of the parameters that are trained whole, in the tree's order.

    ``base``: parameters or their shapes. Raises UserError where a pattern matches nothing, a target is no kernel, or
    the rank is not below both of its sides.
    """
    leaves = flatten_with_paths(base)
    found: dict[str, list[str]] = {}
    for name in ("targets", "trained"):
        patterns = getattr(config, name)
        for pattern in patterns:
            if not any(re.search(pattern, path) for path in leaves):
                kernels = ", ".join(sorted({re.sub(r"\d+", "0", path) for path in leaves if path.endswith("/kernel")}))
                raise UserError(f"lora.{name}: {pattern!r} matches no parameter; kernels: {kernels}")
        found[name] = [path for path in leaves if any(re.search(pattern, path) for pattern in patterns)]
    for path in found["targets"]:
        shape = leaves[path].shape
        if not path.endswith("/kernel") or len(shape) < 2:
            raise UserError(f"lora.targets match {path} of shape {shape}, which is no kernel: narrow the pattern")
        if config.rank >= min(shape[-2:]):
            raise UserError(f"lora.rank={config.rank} is not below both sides of {path} {shape}: lower it")
        if path in found["trained"]:
            raise UserError(f"{path} is matched by lora.targets and by lora.trained: leave it to one of them")
    return found["targets"], found["trained"]


def init_adapters(base: Params, config: LoraConfig, key: Array) -> Params:
    """Fresh adapters in f32 (A normal with std 1 / sqrt(in), B zero), and copies of what is trained whole.

    ``base`` may be shapes where nothing is trained whole. Raises UserError as `target_paths` does.
    """
    leaves = flatten_with_paths(base)
    targets, trained = target_paths(base, config)
    flat: dict[str, Array] = {path: jnp.array(leaves[path]) for path in trained}
    for number, path in enumerate(targets):
        *lead, fan_in, fan_out = leaves[path].shape
        module = path.removesuffix("/kernel")
        draw = jax.random.normal(jax.random.fold_in(key, number), (*lead, fan_in, config.rank), jnp.float32)
        flat[f"{module}/{A}/kernel"] = draw / math.sqrt(fan_in)
        flat[f"{module}/{B}/kernel"] = jnp.zeros((*lead, config.rank, fan_out), jnp.float32)
    return nested(flat)


def attach(base: Params, adapters: Params, config: LoraConfig) -> Params:
    """Parameters that compute the changed model, differentiable by the adapters: those that stand beside their kernels
    (`BESIDE`), scaled, and the rest merged. The base's arrays are shared, not copied."""

    def beside(path: str, module: Params, a: Array, b: Array) -> Params:
        if BESIDE.search(f"{path}/kernel"):
            return module | {A: {"kernel": a}, B: {"kernel": config.scale * b}}
        return module | {"kernel": _add(module["kernel"], config.scale, a, b)}

    return _changed(base, adapters, beside)


def merge(base: Params, adapters: Params, config: LoraConfig) -> Params:
    """Plain parameters of the changed model, ``W + scale A B`` summed in f32 and rounded to W's dtype: to serve, to
    export, to train on."""
    return _changed(
        base, adapters, lambda _, module, a, b: module | {"kernel": _add(module["kernel"], config.scale, a, b)}
    )


def unmerge(merged: Params, adapters: Params, config: LoraConfig) -> Params:
    """The base of merged parameters, to the rounding of W's dtype: whoever needs it to the bit keeps it. What was
    trained whole stays as it is."""
    flat = {path: leaf for path, leaf in flatten_with_paths(adapters).items() if re.search(f"/({A}|{B})/kernel$", path)}
    return _changed(
        merged,
        nested(flat),
        lambda _, module, a, b: module | {"kernel": _add(module["kernel"], -config.scale, a, b)},
    )


def lora_rules(rules: Rules) -> Rules:
    """The rule table of a model with that of its adapters before it: A lies as its kernel's input does, B as its
    output; the rank is never split."""
    extra: list[tuple[str, PartitionSpec]] = []
    for pattern, spec in rules:
        if not pattern.endswith("kernel$") or len(spec) < 2:
            continue
        stem = pattern.removesuffix("kernel$")
        extra += [
            (f"{stem}{A}/kernel$", PartitionSpec(*spec[:-1], None)),
            (f"{stem}{B}/kernel$", PartitionSpec(*spec[:-2], None, spec[-1])),
        ]
    return (*extra, *rules)


def _add(kernel: Array, scale: float, a: Array, b: Array) -> Array:
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return (kernel.astype(jnp.float32) + scale * product).astype(kernel.dtype)


def _changed(base: Params, adapters: Params, change: Callable[[str, Params, Array, Array], Params]) -> Params:
    """``base`` with ``change(path, module, a, b)`` for each module that has adapters, and what is trained whole in
    place."""

    def walk(path: str, module: Params, part: Params) -> Params:
        out = dict(module)
        if A in part:
            out = change(path, out, part[A]["kernel"], part[B]["kernel"])
        for name, below in part.items():
            if name in (A, B):
                continue
            if name not in module:
                raise UserError(
                    f"the adapters have {path}/{name}, which the base has not: they belong to another model"
                )
            inner = f"{path}/{name}" if path else name
            out[name] = walk(inner, module[name], below) if isinstance(below, dict) else below
        return out

    return walk("", base, adapters)


def check_fits(base: Params, adapters: Params) -> None:
    """Raises UserError where the adapters are not of this base: another model's, or of other sizes. Shapes suffice."""
    leaves = flatten_with_paths(base)
    for path, leaf in flatten_with_paths(adapters).items():
        match = re.fullmatch(f"(.*)/({A}|{B})/kernel", path)
        there = leaves.get(f"{match[1]}/kernel" if match else path)
        rank_axis = None if match is None else -1 if match[2] == A else -2
        if there is None or _without(there.shape, rank_axis) != _without(leaf.shape, rank_axis):
            shape = "nothing" if there is None else f"a parameter of shape {tuple(there.shape)}"
            raise UserError(
                f"the adapters hold {path} {tuple(leaf.shape)}, and the base has {shape} there: name its base"
            )


def _without(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    sizes = list(shape)
    if axis is not None:
        del sizes[axis]
    return tuple(sizes)


def nested(flat: dict[str, Any]) -> Params:
    """``{'a/b': x}`` -> ``{'a': {'b': x}}``."""
    out: Params = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        place = out
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = leaf
    return out
