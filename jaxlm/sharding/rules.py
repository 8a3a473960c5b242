"""From a model's rule table to the PartitionSpec of every parameter, and of every optimiser state that mirrors one."""

import math
import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths, map_with_paths
from jaxlm.core.types import STAGE_AXIS, PyTree
from jaxlm.sharding.constrain import fitting_spec

Rules = tuple[tuple[str, PartitionSpec], ...]


STACKED = r"(^|/)layers/"
"""Parameters of layers of one kind, stacked: their first dimension, the layers, is split over ``stage``."""


def _axes(entry: Any) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _spec_of(path: str, shape: tuple[int, ...], rules: Rules) -> PartitionSpec:
    for pattern, spec in rules:
        if re.search(pattern, path):
            if len(spec) > len(shape):
                raise ValueError(
                    f"rule {pattern!r} names {len(spec)} dimensions, '{path}' has shape {shape}: shorten it"
                )
            leading: list[str | None] = [None] * (len(shape) - len(spec))
            if leading and re.search(STACKED, path):
                leading[0] = STAGE_AXIS
            return PartitionSpec(*leading, *spec) if len(spec) or STAGE_AXIS in leading else PartitionSpec()
    raise ValueError(f"parameter '{path}' of shape {shape} matches no sharding rule: add one to its model's table")


def match_rules(rules: Rules, shapes: PyTree) -> PyTree:
    """The PartitionSpec of each leaf (array or ShapeDtypeStruct): that of the first rule whose regex its path holds.

    A spec is for the trailing dimensions, and a leading axis of stacked layers lies along ``stage``. No match is a
    ValueError.
    """
    return map_with_paths(lambda path, leaf: _spec_of(path, leaf.shape, rules), shapes)


def check_divides(shapes: PyTree, specs: PyTree, axis_sizes: dict[str, int]) -> None:
    """Raise UserError, with parameter, dimension and axis, where a dimension does not divide over its axes."""

    def check(path: str, leaf: Any, spec: PartitionSpec) -> None:
        for dim, entry in enumerate(spec):
            ways = math.prod(axis_sizes.get(axis, 1) for axis in _axes(entry))
            if leaf.shape[dim] % ways:
                names = " x ".join(f"mesh.{axis}={axis_sizes[axis]}" for axis in _axes(entry))
                mend = "set model.vocab_multiple to a multiple of it" if path in VOCAB_PATHS else "change one of them"
                raise UserError(f"dimension {dim} of '{path}', {leaf.shape[dim]}, does not divide over {names}: {mend}")

    map_with_paths(check, shapes, specs)


WHOLE_IF_UNEVEN = r"/attn/(k|v)/(kernel|bias)$"
"""Parameters that an axis which does not divide them leaves whole: key and value heads may be few (PaLM has one of 256
for 12 devices), and each device of the axis then makes them all."""


def param_specs(rules: Rules, shapes: PyTree, axis_sizes: dict[str, int]) -> PyTree:
    """`match_rules` on a mesh of these sizes. Raises UserError where a dimension does not divide over its axes, but
    for `WHOLE_IF_UNEVEN`."""

    def relaxed(path: str, leaf: Any, spec: PartitionSpec) -> PartitionSpec:
        return fitting_spec(spec, leaf.shape, axis_sizes) if re.search(WHOLE_IF_UNEVEN, path) else spec

    specs = map_with_paths(relaxed, shapes, match_rules(rules, shapes))
    check_divides(shapes, specs, axis_sizes)
    return specs


VOCAB_PATHS = ("embed/table", "head/kernel")
"""Parameters whose vocabulary can be padded."""


def named_shardings(mesh: Mesh, specs: PyTree) -> PyTree:
    """A NamedSharding for each spec."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def _mirrored_spec(shape: tuple[int, ...], param_shape: tuple[int, ...], spec: PartitionSpec) -> PartitionSpec:
    """The spec of a state of one parameter: its own where shapes agree, with one entry less for a factored moment."""
    if shape == param_shape:
        return spec
    entries = (*spec, *(None,) * (len(param_shape) - len(spec)))
    for dim in range(len(param_shape)):
        if shape == param_shape[:dim] + param_shape[dim + 1 :]:
            return PartitionSpec(*entries[:dim], *entries[dim + 1 :])
    return PartitionSpec()


def state_specs(state: PyTree, params: PyTree, param_specs: PyTree) -> PyTree:
    """Specs of a tree that holds copies of the parameters' tree: an optimiser state, a whole TrainState.

    A leaf whose path ends in a parameter's path lies as that parameter (momenta, averages, the parameters themselves);
    one that lacks one of its dimensions, as Adafactor's row and column moments do, lies as the dimensions that are
    left; everything else (counts, placeholders) is replicated. Trees may be of arrays or of ShapeDtypeStructs.
    """
    shapes = {path: leaf.shape for path, leaf in flatten_with_paths(params).items()}
    specs = dict(zip(shapes, jax.tree.leaves(param_specs, is_leaf=lambda x: isinstance(x, PartitionSpec)), strict=True))

    def spec_of(path: str, leaf: Any) -> PartitionSpec:
        parts = path.split("/")
        for start in range(len(parts)):  # the longest suffix first
            suffix = "/".join(parts[start:])
            if suffix in shapes:
                return _mirrored_spec(tuple(leaf.shape), shapes[suffix], specs[suffix])
        return PartitionSpec()

    return map_with_paths(spec_of, state)
