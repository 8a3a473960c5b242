"""The safetensors format: a length, a JSON header, then the tensors side by side. Read by memory map, written in order.

A file is never held whole: a tensor is mapped when it is read and unmapped when the array over it goes.
"""

import json
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxlm.core.errors import UserError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
_MOST_HEADER = 100_000_000
_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Tensor(NamedTuple):
    """Where a tensor lies; nothing of it is read."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype | None
    """None = a type that has no array here (8-bit floats)."""
    dtype_name: str

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * (0 if self.dtype is None else self.dtype.itemsize)

    def read(self) -> np.ndarray:
        """The tensor over its file, read page by page as it is used."""
        if self.dtype is None:
            raise UserError(f"{self.path} holds tensors of type {self.dtype_name}, which jaxlm does not read")
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """The tensors of all files of a directory (one file, or those that the index names), by name.

    Raises UserError for a missing, truncated or malformed file, and where the index and the files disagree.
    """
    if not (directory / INDEX_FILE).exists():
        if not (directory / SINGLE_FILE).exists():
            found = sorted(path.name for path in directory.glob("*.bin")) or ["none of them"]
            raise UserError(
                f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE} (it has {found[0]}): jaxlm reads safetensors"
            )
        return read_header(directory / SINGLE_FILE)
    weight_map = read_json(directory / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{directory / INDEX_FILE} has no weight_map of tensors to files: get the file again")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise UserError(f"{directory / INDEX_FILE} names the file {name!r:.80}: files stand beside the index")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        for tensor_name, tensor in read_header(directory / name).items():
            if weight_map.get(tensor_name) != name:
                raise UserError(f"{directory / name} holds tensor {tensor_name}, which {INDEX_FILE} does not put there")
            tensors[tensor_name] = tensor
    if missing := sorted(weight_map.keys() - tensors.keys()):
        raise UserError(
            f"{INDEX_FILE} puts tensor {missing[0]} into {weight_map[missing[0]]}, which has no such tensor"
        )
    return tensors


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, by name. Raises UserError where the file is not whole."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MOST_HEADER):
                raise UserError(f"{path} is truncated: its header needs {8 + length} bytes and it has {size}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a safetensors file: its header is no JSON") from error
    start, tensors, spans = 8 + length, {}, []
    try:
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = map(operator.index, entry["data_offsets"])
            shape = tuple(map(int, entry["shape"]))
            tensor = Tensor(path, start + begin, shape, _DTYPES.get(entry["dtype"]), entry["dtype"])
            if tensor.dtype is not None and tensor.num_bytes != end - begin:
                raise UserError(
                    f"{path} gives tensor {name} {end - begin} bytes, and {tensor.dtype_name} {list(shape)} has "
                    f"{tensor.num_bytes}: get the file again"
                )
            tensors[name] = tensor
            spans.append((begin, end))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a safetensors file: its header names no tensors") from error
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise UserError(f"{path} is damaged: its tensors leave a gap or overlap at byte {start + at}")
        at = end
    if start + at != size:
        what = "truncated" if size < start + at else "damaged"
        raise UserError(f"{path} is {what}: it has {size} bytes, and its header describes {start + at}")
    return tensors


class Planned(NamedTuple):
    """A tensor that is to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(
    directory: Path,
    plan: Iterable[Planned],
    blocks: Callable[[Planned], Iterator[np.ndarray]],
    *,
    max_file_bytes: int,
) -> list[Path]:
    """Writes tensors into files of at most ``max_file_bytes`` (a larger tensor has a file for itself), and the index
    where there are several. ``blocks(tensor)`` gives its rows, some at a time, in order."""
    files: list[list[Planned]] = [[]]
    held = 0
    for tensor in plan:
        if files[-1] and held + tensor.num_bytes > max_file_bytes:
            files.append([])
            held = 0
        files[-1].append(tensor)
        held += tensor.num_bytes
    many = len(files) > 1
    paths = [
        directory / (f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" if many else SINGLE_FILE)
        for i in range(len(files))
    ]
    for path, tensors in zip(paths, files, strict=True):
        _write_file(path, tensors, blocks)
    if many:
        total = sum(tensor.num_bytes for tensors in files for tensor in tensors)
        weight_map = {t.name: path.name for path, tensors in zip(paths, files, strict=True) for t in tensors}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return paths


def _write_file(path: Path, tensors: list[Planned], blocks: Callable[[Planned], Iterator[np.ndarray]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        spec = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)}
        header[tensor.name] = spec | {"data_offsets": [at, at + tensor.num_bytes]}
        at += tensor.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            written = 0
            for block in blocks(tensor):
                block = np.ascontiguousarray(block, tensor.dtype)
                file.write(block.reshape(-1).view(np.uint8).data)
                written += block.nbytes
            if written != tensor.num_bytes:
                raise RuntimeError(f"{tensor.name} has {written} bytes, not {tensor.num_bytes}")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} has no {path.name}: give a directory in Hugging Face's layout") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value
