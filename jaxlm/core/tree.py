"""Pytree helpers: paths as text, counts and bytes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxlm.core.types import PyTree


def path_str(path: tuple[Any, ...]) -> str:
    """``(DictKey('blocks'), DictKey('attn'))`` -> ``'blocks/attn'``: the form that rule tables match."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def map_with_paths(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """``fn(path, leaf, ...)`` over a tree, the path as text."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: fn(path_str(path), *leaves), tree, *rest)


def flatten_with_paths(tree: PyTree) -> dict[str, Any]:
    """``{'blocks/attn/q/kernel': leaf, ...}`` in the tree's order."""
    return {path_str(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def count_params(tree: PyTree) -> int:
    """Number of elements over all leaves (arrays or ShapeDtypeStructs)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def count_bytes(tree: PyTree) -> int:
    """Bytes over all leaves, were each held whole."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
