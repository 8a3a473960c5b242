"""From a Hugging Face directory to a run directory: a step 0 that every command opens."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.hf.configs import find_family, read_config
from jaxlm.io.hf.families import Family
from jaxlm.io.hf.pieces import Accounted, Piece, account, rows_per_block, turned, write_out
from jaxlm.io.hf.safetensors import Tensor, read_json, read_tensors
from jaxlm.io.hf.step_files import StepWriter
from jaxlm.io.run_dir import RunDir, environment, write_json
from jaxlm.io.tokenizers.hf import HFTokenizer, read_hf_tokenizer
from jaxlm.io.writing import is_taken, new_directory
from jaxlm.models.families import make_model
from jaxlm.plan.params import param_shapes
from jaxlm.text.tokenizer import MASK

Say = Callable[[str], None]
Tick = Callable[[str, int, int], None]
"""Hears (tensor, bytes done, bytes in all) after each tensor."""
BERT_MASK = "[MASK]"
_FLOATS = {"float64", "float32", "float16", "bfloat16"}


class Opened(NamedTuple):
    """A directory that has been read, but for the tensors themselves, and found in order."""

    family: Family
    config: Any
    """Ours, its dtypes those that the parameters will have."""
    pieces: list[Piece]
    accounted: Accounted
    hf_config: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors that are taken over, as they lie in the files."""
        return sum(self.accounted.tensors[piece.tensor].num_bytes for piece in self.pieces)

    @property
    def num_params(self) -> int:
        return sum(math.prod(piece.shape) for piece in self.pieces)

    def blocks(self, piece: Piece) -> Iterator[tuple[str, tuple[Any, ...], np.ndarray]]:
        """(path, index, values) of what a tensor holds of our parameters, in our dtype, about 64 MiB at a time."""
        dtype = as_dtype(self.config.param_dtype)
        tensor = self.accounted.tensors[piece.tensor].read()
        for rows in piece.blocks(dtype.itemsize):
            at = 0
            for part in piece.parts:
                width = part.shape[-1]
                block = tensor[rows] if len(piece.parts) == 1 else tensor[rows][..., at : at + width]
                at += width
                index = (slice(None), rows) if piece.turn else (rows,)
                if len(piece.parts) > 1:
                    index = ()
                yield part.path, (*part.lead, *index), turned(block, dtype) if piece.turn else np.array(block, dtype)


def open_hf(directory: Path, *, dtype: Any = None) -> Opened:
    """Reads config and headers, and compares them with each other.

    ``dtype``: of the parameters; None = that of the tensors, float32 where they are of several or of float64. Raises
    UserError for an unsupported architecture or setting, a file that is not whole, and a missing, extra or misshapen
    tensor.
    """
    if not directory.is_dir():
        raise UserError(f"no directory {directory}: give one in Hugging Face's layout")
    hf = read_json(directory / "config.json")
    family = find_family(hf)
    config = read_config(family, hf)
    found = read_tensors(directory)
    shapes = {path: leaf.shape for path, leaf in flatten_with_paths(param_shapes(make_model(config))).items()}
    pieces = write_out(family, config, shapes)
    accounted = account(family, config, pieces, found)
    kinds = set()
    for piece in pieces:
        tensor = accounted.tensors[piece.tensor]
        if tensor.dtype is None or tensor.dtype.name not in _FLOATS:
            raise UserError(f"tensor {piece.tensor} is of type {tensor.dtype_name}: jaxlm reads 16 to 64-bit floats")
        kinds.add(tensor.dtype.name)
    if dtype is None:
        dtype = kinds.pop() if len(kinds) == 1 and kinds <= {"float32", "bfloat16", "float16"} else "float32"
    config = dataclasses.replace(config, param_dtype=dtype, compute_dtype=dtype)
    return Opened(family, config, pieces, accounted, hf)


def import_hf(
    source: Path, run: Path, *, dtype: Any = None, tokenizer_from: Path | None = None, say: Say, tick: Tick
) -> dict[str, Any]:
    """Writes the model of a Hugging Face directory as a new run directory; returns what was done.

    Tensors pass through memory one block at a time, from mapped files into the step's arrays. ``run`` appears whole, or
    not at all. Raises UserError as `open_hf` does, and where ``run`` is there already.
    """
    if is_taken(run):
        raise UserError(f"{run} is there already: name a new run directory")
    opened = open_hf(source, dtype=dtype)
    tokenizer = read_hf_tokenizer(tokenizer_from or source, opened.hf_config, opened.config.vocab_size, say)
    if opened.family.record == "encoder":
        tokenizer = _with_mask(tokenizer, tokenizer_from or source)
    if opened.family.record == "encoder" and MASK not in tokenizer.special_tokens:
        raise UserError(f"the tokenizer of {source} names no mask_token: give one in tokenizer_config.json")
    if opened.accounted.left_out:
        names = opened.accounted.left_out
        say(f"left out: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}")
    for copy, original in opened.accounted.copies:
        _check_copy(copy, opened.accounted.tensors[copy], original, opened.accounted.tensors[original])
    with new_directory(run) as partial:
        with StepWriter(RunDir(partial).checkpoints_path, 0) as writer:
            _write_params(opened, writer, tick)
            writer.seal({"imported": {"architecture": opened.family.architecture}, "incidents": []})
        _describe(RunDir(partial), run.name, opened, tokenizer)
    return {
        "architecture": opened.family.architecture,
        "tensors": len(opened.pieces),
        "parameters": opened.num_params,
        "bytes": opened.num_bytes,
        "dtype": opened.config.param_dtype,
    }


def _with_mask(tokenizer: HFTokenizer, directory: Path) -> HFTokenizer:
    """The tokenizer with the mask that special_tokens_map.json or tokenizer.json has, where tokenizer_config.json says
    nothing of one: so it is in BERT's published directories."""
    if "mask_token" in tokenizer.settings:
        return tokenizer
    path = directory / "special_tokens_map.json"
    named = read_json(path).get("mask_token") if path.exists() else None
    if named is None and BERT_MASK in tokenizer.special_tokens:
        named = BERT_MASK
    return tokenizer if named is None else HFTokenizer(tokenizer.model, tokenizer.settings | {"mask_token": named})


def _write_params(opened: Opened, writer: StepWriter, tick: Tick) -> None:
    dtype = as_dtype(opened.config.param_dtype)
    shapes = flatten_with_paths(param_shapes(make_model(opened.config)))
    added, done = set(), 0
    for piece in opened.pieces:
        for part in piece.parts:
            if part.path not in added:
                chunk = list(part.shape)
                if len(piece.parts) == 1:
                    chunk[0] = rows_per_block(piece.shape, dtype.itemsize)
                chunk = chunk[::-1] if piece.turn else chunk
                writer.add(part.path, shapes[part.path].shape, (*(1 for _ in part.lead), *chunk), dtype)
                added.add(part.path)
        for path, index, block in opened.blocks(piece):
            writer.write(path, index, block)
        done += opened.accounted.tensors[piece.tensor].num_bytes
        tick(piece.tensor, done, opened.num_bytes)


def _describe(run: RunDir, name: str, opened: Opened, tokenizer: HFTokenizer) -> None:
    """config.json and tokenizer/, as `jaxlm.load` reads them."""
    config = {
        "name": name,
        "model": config_to_dict(opened.config),
        "data": {"add_bos": tokenizer.adds_bos, "add_eos": tokenizer.adds_eos, "packing": "best_fit"},
        "imported": opened.hf_config,
    }
    write_json(run.config_path, {"config": config, **environment()})
    tokenizer.save(run.tokenizer_path)


def _check_copy(copy: str, one: Tensor, original: str, other: Tensor) -> None:
    """Raises UserError where a tied model's files hold two different tables."""
    a, b = one.read(), other.read()
    step = rows_per_block(one.shape, 8)
    if a.shape != b.shape or any(
        not np.array_equal(a[i : i + step], b[i : i + step]) for i in range(0, a.shape[0], step)
    ):
        raise UserError(
            f"config.json says tie_word_embeddings=true, and tensor {copy} differs from {original}: set it to false"
        )
