"""The arrays of one checkpoint step, written and read a block at a time.

Orbax saves and restores whole arrays. What it leaves on disk is an OCDBT store of zarr arrays named by their paths,
and a JSON description of the tree; here the same is written, and what it wrote is read, through TensorStore alone.
"""

import contextlib
import json
import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from jaxlm.io.checkpoint_format import pack_meta
from jaxlm.io.checkpoint_steps import META, STATE
from jaxlm.io.checksums import write_manifest

_IN_FLIGHT = 4
"""Blocks that are being written while the next is made."""
_HANDLERS = {
    META: "orbax.checkpoint._src.handlers.json_checkpoint_handler.JsonCheckpointHandler",
    STATE: "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler",
}


def _store(step: Path, path: str, driver: str = "zarr") -> dict[str, Any]:
    base = f"file://{(step / STATE).absolute()}/"
    return {
        "driver": driver,
        "kvstore": {"driver": "ocdbt", "base": base, "path": f"{path.replace('/', '.')}/"},
        "recheck_cached_data": "open",
    }


class StepWriter:
    """One step with a state of ``{"params": ...}``, which counts once `seal` has returned."""

    def __init__(self, checkpoints: Path, step: int):
        self._step, self._path = step, checkpoints / str(step)
        (self._path / STATE).mkdir(parents=True)
        self._arrays: dict[str, Any] = {}
        self._pending: deque[Any] = deque()

    def __enter__(self) -> "StepWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Blocks still under way are waited for, whatever came: nothing is written after this."""
        for pending in self._pending:
            with contextlib.suppress(Exception):
                pending.result()
        self._pending.clear()

    def add(self, path: str, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype) -> None:
        """Makes an empty parameter, in which each chunk is to be written once."""
        metadata = {
            "shape": shape,
            "chunks": chunk,
            "dtype": "bfloat16" if dtype.name == "bfloat16" else dtype.str,
            "compressor": None,
            "fill_value": None,
        }
        spec = _store(self._path, f"params/{path}") | {"metadata": metadata}
        self._arrays[path] = ts.open(spec, create=True, delete_existing=False).result()

    def write(self, path: str, index: tuple[Any, ...], block: np.ndarray) -> None:
        """One block, of whole chunks. It must not change afterwards."""
        self._pending.append(self._arrays[path][index].write(block))
        while len(self._pending) > _IN_FLIGHT:
            self._pending.popleft().result()

    def seal(self, meta: dict[str, Any]) -> None:
        """Waits for all blocks; writes the descriptions and, last, the checksums."""
        while self._pending:
            self._pending.popleft().result()
        tree = {}
        for path in sorted(self._arrays):
            keys = ("params", *path.split("/"))
            tree[str(keys)] = {
                "key_metadata": [{"key": key, "key_type": 2} for key in keys],
                "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
            }
        described = {"tree_metadata": tree, "use_ocdbt": True, "use_zarr3": False, "custom_metadata": None}
        (self._path / META).mkdir()
        (self._path / STATE / "_METADATA").write_text(json.dumps(described))
        (self._path / META / "metadata").write_text(json.dumps(pack_meta(self._step, meta)))
        (self._path / "_CHECKPOINT_METADATA").write_text(json.dumps({"item_handlers": _HANDLERS}))
        write_manifest(epath.Path(self._path))


class StepReader:
    """The arrays of a committed step, of this writer's or of Orbax's."""

    def __init__(self, path: Path, field: str):
        self._path, self._field = path, field
        described = json.loads((path / STATE / "_METADATA").read_bytes())
        self._driver = "zarr3" if described.get("use_zarr3") else "zarr"
        self._arrays: dict[str, Any] = {}
        self._held: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}

    def read(self, path: str, lead: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
        """``array[(*lead, *index)]``. Where a stored chunk spans several leads, it is read once for those in turn."""
        array = self._open(path)
        span = array.chunk_layout.read_chunk.shape[: len(lead)]
        if math.prod(span) == 1:
            return array[(*lead, *index)].read().result()
        corner = tuple(at - at % size for at, size in zip(lead, span, strict=True))
        held = self._held.get(path)
        if held is None or held[0] != corner:
            self._held.pop(path, None)
            whole = tuple(
                slice(at, min(at + size, full)) for at, size, full in zip(corner, span, array.shape, strict=False)
            )
            held = self._held[path] = (corner, array[whole].read().result())
        return held[1][tuple(at - low for at, low in zip(lead, corner, strict=True))][index]

    def forget(self) -> None:
        """Lets go of what was read for several leads."""
        self._held.clear()

    def _open(self, path: str) -> Any:
        if path not in self._arrays:
            spec = _store(self._path, f"{self._field}/{path}", self._driver)
            self._arrays[path] = ts.open(spec, open=True, read=True).result()
        return self._arrays[path]
