"""A family's table written out for one model: each tensor of theirs, and the parts of our parameters that it holds."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.hf.families import Family, Row
from jaxlm.io.hf.safetensors import Tensor

BLOCK_BYTES = 64 << 20
"""What is held of a large tensor at once."""


class Part(NamedTuple):
    """A whole layer's (and expert's) share of one parameter."""

    path: str
    """The parameter as flattened, ``layers/layer_0/attn/q/kernel``."""
    lead: tuple[int, ...]
    """Index into its leading axes: group of layers, expert."""
    shape: tuple[int, ...]
    """As it stands in the tensor: turned, if the piece is."""


class Piece(NamedTuple):
    """One tensor of theirs."""

    tensor: str
    parts: tuple[Part, ...]
    """Side by side in the tensor's last axis."""
    turn: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return (*self.parts[0].shape[:-1], sum(part.shape[-1] for part in self.parts))

    def blocks(self, itemsize: int) -> Iterator[slice]:
        """Runs of the tensor's rows, of about `BLOCK_BYTES` each. A tensor of several parts is one block."""
        rows, step = self.shape[0], rows_per_block(self.shape, itemsize)
        if len(self.parts) > 1:
            step = rows
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))


def rows_per_block(shape: tuple[int, ...], itemsize: int) -> int:
    """How many rows of a tensor go into a block."""
    return max(1, min(shape[0], BLOCK_BYTES // max(1, itemsize * int(np.prod(shape[1:])))))


def turned(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``block.T`` in memory, cast; panel by panel, four times as fast as NumPy's own copy of a large matrix."""
    out = np.empty(block.shape[::-1], dtype)
    for start in range(0, block.shape[0], 64):
        out[:, start : start + 64] = block[start : start + 64].T
    return out


def write_out(family: Family, config: Any, shapes: dict[str, tuple[int, ...]]) -> list[Piece]:
    """The pieces of a model whose parameters have these shapes, in the order of the table.

    Raises UserError where a parameter has no place in the table.
    """
    pieces = [piece for row in family.rows for piece in _expand(row, config, shapes)]
    covered = {part.path for piece in pieces for part in piece.parts}
    if left := sorted(shapes.keys() - covered):
        raise UserError(f"parameter {left[0]} has no tensor in {family.architecture}")
    return pieces


def _expand(row: Row, config: Any, shapes: dict[str, tuple[int, ...]]) -> Iterator[Piece]:
    names = (row.ours,) if isinstance(row.ours, str) else row.ours
    layers = _layers(config) if "{i}" in row.tensor else [("", ())]
    for i, (base, lead) in enumerate(layers):
        paths = [f"{base}{name}" for name in names]
        if paths[0] not in shapes:
            continue
        experts = range(shapes[paths[0]][len(lead)]) if "{e}" in row.tensor else [None]
        for expert in experts:
            index = lead if expert is None else (*lead, expert)
            parts = []
            for path in paths:
                shape = shapes[path][len(index) :]
                parts.append(Part(path, index, shape[::-1] if row.turn else shape))
            yield Piece(row.tensor.format(i=i, e=expert), tuple(parts), row.turn)


def _layers(config: Any) -> list[tuple[str, tuple[int, ...]]]:
    """(prefix of its parameters, index into their first axis) of each layer."""
    if config.family == "encoder":
        return [("layers/", (i,)) for i in range(config.num_layers)]
    group, stacked = len(config.window_pattern), len(config.window_pattern) * config.num_groups
    return [
        (f"layers/layer_{i % group}/", (i // group,)) if i < stacked else (f"tail_{i - stacked}/", ())
        for i in range(config.num_layers)
    ]


class Accounted(NamedTuple):
    """Tensors by the names that the table has."""

    tensors: dict[str, Tensor]
    copies: list[tuple[str, str]]
    """(copy, original) that a file holds twice, to be compared."""
    left_out: list[str]


def account(family: Family, config: Any, pieces: list[Piece], found: dict[str, Tensor]) -> Accounted:
    """Each tensor of the files against the table. Raises UserError naming the first missing, extra or misshapen one."""
    renamed: dict[str, Tensor] = {}
    bare = family.prefix and not any(name.startswith(family.prefix) for name in found)
    left_out = []
    for name, tensor in found.items():
        if any(re.search(pattern, name) for pattern in family.left_out):
            left_out.append(name)
            continue
        for old, new in family.spellings:
            name = re.sub(old, new, name)
        if bare and not any(name == copy for copy, _ in family.tied):
            name = family.prefix + name
        if name in renamed:
            raise UserError(f"the files hold tensor {name} in two spellings: get them again")
        renamed[name] = tensor
    expected = {piece.tensor: piece for piece in pieces}
    copies = [
        (copy, original)
        for copy, original in family.tied
        if copy in renamed and copy not in expected and original in renamed
    ]
    same = {copy for copy, _ in copies}
    _check_depth(family, config, renamed)
    _refuse("lack tensor", [name for name in expected if name not in renamed], "which the config asks for")
    _refuse(
        "hold tensor",
        [name for name in renamed if name not in expected and name not in same],
        "which is not in the model",
    )
    for name, piece in expected.items():
        have = renamed[name].shape
        if have != piece.shape:
            raise UserError(
                f"tensor {name} has shape {list(have)}, and config.json ({_sizes(family, config)}) asks for "
                f"{list(piece.shape)}"
            )
    return Accounted(renamed, copies, left_out)


def _check_depth(family: Family, config: Any, names: dict[str, Tensor]) -> None:
    """Raises UserError where config.json counts other layers than the files hold."""
    first = next(row.tensor for row in family.rows if "{i}" in row.tensor)
    pattern = re.compile(re.escape(first).replace(r"\{i\}", r"(\d+)"))
    layers = {int(match[1]) for match in map(pattern.fullmatch, names) if match}
    if layers and layers == set(range(len(layers))) and len(layers) != config.num_layers:
        name = next(name for name, (field, _) in family.fields.items() if field == "num_layers")
        raise UserError(f"config.json says {name}={config.num_layers}, and the files hold {len(layers)} layers")


def _refuse(what: str, names: list[str], why: str) -> None:
    if names:
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise UserError(f"the files {what} {names[0]}, {why}{more}")


def _sizes(family: Family, config: Any) -> str:
    """The sizes in config.json, as it names them."""
    shown = []
    for name, (field, _) in family.fields.items():
        value: Any = config
        for part in field.split("."):
            value = getattr(value, part, None)
        if isinstance(value, int) and not isinstance(value, bool) and field not in ("max_seq_len", "num_layers"):
            shown.append(f"{name}={value}")
    return ", ".join(shown)
