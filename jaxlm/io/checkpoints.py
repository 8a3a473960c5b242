"""Checkpoints: one Orbax step holds the state and a JSON record of where the run stood.

Saving is asynchronous: `Checkpointer.save` returns once the arrays stand in host memory (the device buffers may then be
donated), and a thread writes them. A step is written under a temporary name and renamed when whole, so a process killed
while saving leaves nothing that is taken for a step. Deleting an old step goes the same way round: it is renamed out of
the list first.
"""

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Params, PyTree
from jaxlm.io.checkpoint_format import FORMAT_VERSION, pack_meta, unpack_meta, upgrade_state

_STATE, _META, _TRASH = "state", "meta", ".deleted"


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep."""

    save_every: int | None = 500
    """Steps between saves; None = at the end only. The last step is always saved."""
    keep_last: int = 3
    """How many of the newest steps stay."""
    keep_every: int | None = None
    """Steps that are multiples of this stay for good. None = none."""

    def __post_init__(self):
        for name in ("save_every", "keep_last", "keep_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"checkpoint.{name}={value} must be at least 1")
        if self.keep_every is not None and (self.save_every is None or self.keep_every % self.save_every):
            raise ValueError(
                f"checkpoint.keep_every={self.keep_every} is not a multiple of save_every={self.save_every}, "
                "so those steps would not be saved"
            )


class Checkpointer:
    """Saves and restores the steps of one directory.

    Args:
      directory: local path or ``gs://`` address; made when missing, unless read-only.
      config: what to keep. The caller decides when to save.
      read_only: opens another process's checkpoints: nothing is made, cleaned or deleted.
    """

    def __init__(
        self, directory: str | Path, config: CheckpointConfig = CheckpointConfig(), *, read_only: bool = False
    ):
        path = epath.Path(directory)
        self.directory = path if "://" in str(directory) else epath.Path(Path(directory).absolute())
        self._read_only = read_only
        policies = ocp.checkpoint_managers
        kept: list[Any] = [policies.LatestN(config.keep_last)]
        if config.keep_every is not None:
            kept.append(policies.EveryNSteps(config.keep_every))
        with _quiet():
            self._manager = ocp.CheckpointManager(
                self.directory,
                item_names=(_STATE, _META),
                options=ocp.CheckpointManagerOptions(
                    create=not read_only,
                    read_only=read_only,
                    cleanup_tmp_directories=not read_only,
                    preservation_policy=policies.AnyPreservationPolicy(kept),
                    todelete_subdir=_TRASH,
                ),
            )
        self._purge()

    def save(self, step: int, state: PyTree, meta: dict[str, Any]) -> bool:
        """Starts saving `state` (a pytree of arrays) and `meta` (JSON values; tuples come back as lists) as `step`.

        Waits for the save before it, if that is still under way, and raises what went wrong in it. The arrays may be
        donated as soon as this returns. Returns False, having done nothing, where `step` is already saved.
        """
        with _quiet():
            if step in self._manager.all_steps():
                return False
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(pack_meta(step, meta)))
            self._manager.save(step, args=args, force=True)
        self._purge()
        return True

    def restore(self, abstract_state: PyTree, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
        """The state of a step (None = the newest), laid out as `abstract_state` says, and the meta saved with it.

        `abstract_state` holds ShapeDtypeStructs with shardings; the mesh may differ from the one that saved. Raises
        UserError where there is no such step, a newer jaxlm wrote it, or its arrays are not those asked for.
        """
        step = self._resolve(step)
        version, meta = self._read_meta(step)
        with _quiet():
            if version != FORMAT_VERSION:
                arrays = upgrade_state(version, flatten_with_paths(self._restore_host(step)))
                _check_fit(f"checkpoint {step} of {self.directory}", arrays, abstract_state, same_dtype=True)
                return _lay_out(arrays, abstract_state), meta
            saved = flatten_with_paths(self.shapes(step))
            _check_fit(f"checkpoint {step} of {self.directory}", saved, abstract_state, same_dtype=True)
            args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
            return self._manager.restore(step, args=args)[_STATE], meta

    def restore_params(
        self, abstract_params: Params | None = None, step: int | None = None, *, name: str = "params"
    ) -> tuple[Params, dict[str, Any]]:
        """One sub-tree of the state (``params``, ``ema``) and the meta; nothing else of the state is read.

        `abstract_params` may ask for other dtypes than were saved (weights to serve in bfloat16). None gives what was
        saved, whole on the first device.
        """
        step = self._resolve(step)
        version, meta = self._read_meta(step)
        if version != FORMAT_VERSION:
            arrays = upgrade_state(version, flatten_with_paths(self._restore_host(step)))
            tree = _subtree(_nest(arrays), name, step)
        else:
            tree = _subtree(self.shapes(step), name, step)
        if abstract_params is None:
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            abstract_params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)
        flat = flatten_with_paths(tree)
        _check_fit(f"{name} of checkpoint {step} of {self.directory}", flat, abstract_params, same_dtype=False)
        if version != FORMAT_VERSION:
            return _lay_out(flat, abstract_params), meta
        with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            args = ocp.args.PyTreeRestore(
                item={name: abstract_params},
                restore_args=ocp.checkpoint_utils.construct_restore_args({name: abstract_params}),
                partial_restore=True,
            )
            return reader.restore(self._step_path(step) / _STATE, args=args)[name], meta

    def shapes(self, step: int | None = None) -> dict[str, Any]:
        """What a step holds, as nested dicts (tuples as lists, empty nodes as None) of ShapeDtypeStructs."""
        with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            tree = reader.metadata(self._step_path(self._resolve(step)) / _STATE).item_metadata.tree
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)

    def read_meta(self, step: int | None = None) -> dict[str, Any]:
        """The meta saved with a step (None = the newest)."""
        return self._read_meta(self._resolve(step))[1]

    def steps(self) -> list[int]:
        """The committed steps, ascending, read from the directory: a save under way is not among them."""
        if not self.directory.exists():
            return []
        return sorted(step for step in ocp.path.step.checkpoint_steps(self.directory) if self._is_committed(step))

    def latest_step(self) -> int | None:
        """The newest committed step, or None."""
        steps = self.steps()
        return steps[-1] if steps else None

    def wait(self) -> None:
        """Blocks until the save under way is committed; raises what went wrong in it."""
        with _quiet():
            self._manager.wait_until_finished()
        self._purge()

    def close(self) -> None:
        """Waits, then releases the threads."""
        with _quiet():
            self._manager.close()
        self._purge()
        for thread in self._purging():
            thread.join()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _step_path(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _is_committed(self, step: int) -> bool:
        """A step that is all there: the one place to ask for more (checksums) before trusting it."""
        path = self._step_path(step)
        return all((path / name).exists() for name in ("_CHECKPOINT_METADATA", _STATE, _META))

    def _resolve(self, step: int | None) -> int:
        steps = self.steps()
        if not steps:
            raise UserError(f"no checkpoint in {self.directory}: train first, or name another run directory")
        if step is not None and step not in steps:
            raise UserError(f"no checkpoint for step {step} in {self.directory}: there are {_listing(steps)}")
        return steps[-1] if step is None else step

    def _read_meta(self, step: int) -> tuple[int, dict[str, Any]]:
        with _quiet(), ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            record = reader.restore(self._step_path(step) / _META, args=ocp.args.JsonRestore())
        return unpack_meta(record, f"checkpoint {step} of {self.directory}")

    def _restore_host(self, step: int) -> PyTree:
        """The whole state as NumPy arrays: the way in for older formats, whose layout has no shardings."""
        with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), self.shapes(step))
            return reader.restore(self._step_path(step) / _STATE, args=ocp.args.PyTreeRestore(restore_args=as_numpy))

    def _purge(self) -> None:
        """Removes, in a thread (unlinking gigabytes takes time), the steps that Orbax has renamed out of the list."""
        trash = self.directory / _TRASH
        if self._read_only or jax.process_index() != 0 or not trash.exists():
            return
        # Children only: Orbax may be moving the next step into the directory.
        for child in trash.iterdir():
            threading.Thread(
                target=shutil.rmtree, args=(child, True), name=f"{_TRASH}-{self.directory}", daemon=True
            ).start()

    def _purging(self) -> Iterator[threading.Thread]:
        return (thread for thread in threading.enumerate() if thread.name == f"{_TRASH}-{self.directory}")


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


def _subtree(tree: dict[str, Any], name: str, step: int) -> dict[str, Any]:
    if tree.get(name) is None:
        there = ", ".join(key for key, value in tree.items() if value is not None)
        raise UserError(f"checkpoint {step} holds no {name!r}: it holds {there}")
    return tree[name]


def _listing(steps: list[int], most: int = 8) -> str:
    text = ", ".join(map(str, steps[-most:]))
    return text if len(steps) <= most else f"..., {text}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Orbax speaks through absl's logger on every call; only its errors are the user's business."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
