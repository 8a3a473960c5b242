"""Reading one step's directory: its meta, its shapes, its arrays under the shardings asked for.

Of any format version: older ones come out as the present one has them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Params, PyTree
from jaxlm.io.checkpoint_format import changes_state, unpack_meta, upgrade_state
from jaxlm.io.checkpoint_steps import META, STATE

_NOT_NOW = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Too many open files")


@contextlib.contextmanager
def refusing(path: epath.Path) -> Iterator[None]:
    """UserError for what may not or cannot be read now: no damage, to be mended outside and tried again.

    What is missing, or is no directory where one belongs, is damage: it passes through.
    """
    try:
        yield
    except (UserError, MemoryError, jax.errors.JaxRuntimeError):  # the last two are of host and device
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        ours = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if ours or not (isinstance(error, OSError) or any(sign in text for sign in _NOT_NOW)):
            raise
        raise UserError(
            f"cannot read {path} now ({text[:200]}): mend that and try again, or move a step that stays so away to "
            "go on from the one before; nothing was changed"
        ) from error


class Meta(NamedTuple):
    """The version that a step was saved with, and the caller's meta as the present version has it."""

    version: int
    meta: dict[str, Any]


def read_meta(path: epath.Path) -> Meta:
    """Raises UserError where a newer jaxlm, or none, wrote the step."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        record = reader.restore(path / META, args=ocp.args.JsonRestore())
    return Meta(*unpack_meta(record, _name(path)))


def read_shapes(path: epath.Path) -> dict[str, Any]:
    """What the step holds, as nested dicts (tuples as lists, empty nodes as None) of ShapeDtypeStructs."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(path / STATE).item_metadata.tree
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def read_state(path: epath.Path, abstract_state: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The state under the shardings of `abstract_state`, and the meta. Raises UserError where they do not fit."""
    version, meta = read_meta(path)
    if changes_state(version):
        arrays = upgrade_state(version, flatten_with_paths(_read_host(path)))
        _check_fit(_name(path), arrays, abstract_state, same_dtype=True)
        return _lay_out(arrays, abstract_state), meta
    _check_fit(_name(path), flatten_with_paths(read_shapes(path)), abstract_state, same_dtype=True)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        return reader.restore(path / STATE, args=ocp.args.StandardRestore(abstract_state)), meta


def read_subtree(path: epath.Path, name: str, abstract: Params | None) -> tuple[Params, dict[str, Any]]:
    """One field of the state, in the dtypes and under the shardings of `abstract` (None: as saved, in NumPy arrays on
    the host, for no device may hold it whole), and the meta."""
    version, meta = read_meta(path)
    changes = changes_state(version)
    if changes:
        tree = _subtree(_nest(upgrade_state(version, flatten_with_paths(_read_host(path)))), name, path)
    else:
        tree = _subtree(read_shapes(path), name, path)
    if abstract is not None:
        flat = flatten_with_paths(tree)
        _check_fit(f"{name} of {_name(path)}", flat, abstract, same_dtype=False)
        if changes:
            return _lay_out(flat, abstract), meta
    elif changes:
        return tree, meta
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        item = {name: tree if abstract is None else abstract}
        how = _to_host(item) if abstract is None else ocp.checkpoint_utils.construct_restore_args(item)
        args = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
        return reader.restore(path / STATE, args=args)[name], meta


def _name(path: epath.Path) -> str:
    return f"checkpoint {path.name} of {path.parent}"


def _read_host(path: epath.Path) -> PyTree:
    """The whole state as NumPy arrays: the way in for older formats, whose layout has no shardings."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        return reader.restore(path / STATE, args=ocp.args.PyTreeRestore(restore_args=_to_host(read_shapes(path))))


def _to_host(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)


def _check_fit(what: str, saved: dict[str, Any], asked: PyTree, *, same_dtype: bool) -> None:
    """Orbax would cast another dtype silently, and reports another shape or path over many lines."""
    wanted = flatten_with_paths(asked)
    wrong = [f"has no {path}" for path in wanted if path not in saved]
    wrong += [f"holds {path}, which is not asked for" for path in saved if path not in wanted]
    for path in wanted.keys() & saved.keys():
        have, want = saved[path], wanted[path]
        if tuple(have.shape) != tuple(want.shape):
            wrong.append(f"holds {path} of shape {tuple(have.shape)}, not {tuple(want.shape)}")
        elif same_dtype and np.dtype(have.dtype) != np.dtype(want.dtype):
            wrong.append(f"holds {path} in {have.dtype}, not {want.dtype}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"{what} {wrong[0]}{more}: use the config that it was saved with")


def _lay_out(arrays: dict[str, np.ndarray], abstract: PyTree) -> PyTree:
    """Host arrays by path -> the abstract tree filled with them, each under its sharding."""

    def place(path: str, want: jax.ShapeDtypeStruct) -> jax.Array:
        array = np.asarray(arrays[path]).astype(want.dtype)
        return jax.make_array_from_callback(want.shape, want.sharding, lambda index: array[index])

    leaves = [place(path, want) for path, want in flatten_with_paths(abstract).items()]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    """``{'a/b': x}`` -> ``{'a': {'b': x}}``."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def _subtree(tree: dict[str, Any], name: str, path: epath.Path) -> dict[str, Any]:
    if tree.get(name) is None:
        there = ", ".join(key for key, value in tree.items() if value is not None)
        raise UserError(f"{_name(path)} holds no {name!r}: it holds {there}")
    return tree[name]
