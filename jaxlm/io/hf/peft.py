"""Adapters as a directory that PEFT opens: adapter_config.json and adapter_model.safetensors, under the names of
Hugging Face's modules.

PEFT adds ``lora_alpha / r * B A`` to a module's weight: ``base_model.model.<module>.lora_A.weight`` is [r, in] and
``lora_B.weight`` [out, r], one pair for each layer, where jaxlm keeps all layers stacked.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Params
from jaxlm.io.hf.configs import read_config, write_config
from jaxlm.io.hf.families import Family
from jaxlm.io.hf.pieces import Piece, write_out
from jaxlm.io.hf.safetensors import Planned, write_tensors
from jaxlm.io.run_dir import write_json
from jaxlm.io.writing import new_directory
from jaxlm.models.families import make_model
from jaxlm.models.lora import A, B, LoraConfig, check_fits
from jaxlm.plan.params import param_shapes

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"


class PeftAdapters(NamedTuple):
    """What is written."""

    settings: dict[str, Any]
    """adapter_config.json"""
    tensors: dict[str, np.ndarray]


def export_peft(
    target: Path, config: Any, adapters: Params, lora: LoraConfig, *, base: str | None = None
) -> dict[str, Any]:
    """Writes the adapters of a model with this config; returns what was done. ``base``: the name of the model that they
    belong to, as PEFT shall look for it.

    ``target`` appears whole, or not at all. Raises UserError where it is there already, where no family of theirs
    computes the model, and for what PEFT has no module for.
    """
    made = peft_adapters(config, adapters, lora, base=base)
    plan = [Planned(name, array.shape, array.dtype) for name, array in made.tensors.items()]
    with new_directory(target) as partial:
        (written,) = write_tensors(
            partial, plan, lambda tensor: iter([made.tensors[tensor.name]]), max_file_bytes=1 << 62
        )
        written.rename(partial / TENSOR_FILE)
        write_json(partial / CONFIG_FILE, made.settings)
    return {
        "tensors": len(plan),
        "parameters": sum(array.size for array in made.tensors.values()),
        "bytes": sum(array.nbytes for array in made.tensors.values()),
        "target_modules": made.settings["target_modules"],
    }


def peft_adapters(config: Any, adapters: Params, lora: LoraConfig, *, base: str | None = None) -> PeftAdapters:
    """The settings and tensors of `export_peft`."""
    check_fits(param_shapes(make_model(config)), adapters)
    family, hf = write_config(config)
    whole = whole_config(config, read_config(family, hf))
    shapes = {path: leaf.shape for path, leaf in flatten_with_paths(param_shapes(make_model(whole))).items()}
    pieces = [piece for piece in write_out(family, whole, shapes) if piece.tensor.endswith(".weight")]
    leaves = {path: np.asarray(leaf) for path, leaf in flatten_with_paths(adapters).items()}
    tensors: dict[str, np.ndarray] = {}
    joined: dict[str, int] = {}  # module -> how many adapters stand side by side in it
    saved, done, turned = set(), set(), set()
    for piece in pieces:
        module = piece.tensor.removesuffix(".weight")
        names = [part.path.removesuffix("/kernel") for part in piece.parts]
        if any(f"{name}/{A}/kernel" in leaves for name in names):
            _check_module(piece, shapes)
            tensors |= dict(_pair(piece, names, leaves, module))
            joined[module] = sum(f"{name}/{A}/kernel" in leaves for name in names)
            turned.add(piece.turn)
            done |= {f"{name}/{factor}/kernel" for name in names for factor in (A, B)}
        elif whole_parts := [part for part in piece.parts if part.path in leaves]:
            path, lead, _ = whole_parts[0]
            if len(piece.parts) > 1:
                raise UserError(f"{path} is a part of {piece.tensor}, which PEFT cannot save: merge")
            value = leaves[path][lead]
            tensors[f"base_model.model.{piece.tensor}"] = np.ascontiguousarray(value.T if piece.turn else value)
            saved.add(module)
            done.add(path)
    if left := sorted(leaves.keys() - done):
        raise UserError(f"PEFT has no module for {left[0]}: merge the adapters and export the model")
    return PeftAdapters(_settings(family, lora, pieces, joined, saved, turned, base), tensors)


def whole_config(config: Any, theirs: Any) -> Any:
    """Their form of a model, its layers grouped as ours are."""
    return theirs if config.family != "decoder" else dataclasses.replace(theirs, window_pattern=config.window_pattern)


def _check_module(piece: Piece, shapes: dict[str, tuple[int, ...]]) -> None:
    """Experts are slices of one parameter there, not modules."""
    path = piece.parts[0].path
    if len(shapes[path]) - len(piece.parts[0].lead) != 2 or re.search(r"\.experts\.\d+\.", piece.tensor):
        raise UserError(f"PEFT has no module for {path}, experts are one parameter there: merge and export the model")


def _pair(
    piece: Piece, names: list[str], leaves: dict[str, np.ndarray], module: str
) -> Iterator[tuple[str, np.ndarray]]:
    """``lora_A`` and ``lora_B`` of a module. Of several kernels side by side the ranks are laid one after the other,
    each with its own columns."""
    downs, blocks = [], []
    for part, name in zip(piece.parts, names, strict=True):
        key = f"{name}/{A}/kernel"
        if key in leaves:
            downs.append(leaves[key][part.lead].T)
            blocks.append(leaves[f"{name}/{B}/kernel"][part.lead].T)
        else:
            fan_out = part.shape[0] if piece.turn else part.shape[-1]
            blocks.append(np.zeros((fan_out, 0), np.float32))
    down, up = np.concatenate(downs), np.zeros((sum(len(b) for b in blocks), sum(len(a) for a in downs)), np.float32)
    row = column = 0
    for block in blocks:
        up[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    yield f"base_model.model.{module}.lora_A.weight", np.ascontiguousarray(down, np.float32)
    yield f"base_model.model.{module}.lora_B.weight", up


def _settings(
    family: Family,
    lora: LoraConfig,
    pieces: list[Piece],
    joined: dict[str, int],
    saved: set[str],
    turned: set[bool],
    base: str | None,
) -> dict[str, Any]:
    """adapter_config.json. rsLoRA's scale is written into alpha: with patterns of ranks PEFT would not apply it."""
    every = {piece.tensor.removesuffix(".weight") for piece in pieces}

    def suffix(module: str) -> str:
        return module.rpartition(".")[2]

    def named(modules: set[str]) -> list[str]:
        """By their last names where that means the same modules, else by their whole names."""
        short = {suffix(module) for module in modules}
        reached = {module for module in every if suffix(module) in short}
        return sorted(short if reached == modules else modules)

    ranks = {suffix(module): lora.rank * count for module, count in joined.items() if count > 1}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if family.record == "decoder" else None,
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.scale * lora.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": turned == {False},
        "target_modules": named(set(joined)),
        "modules_to_save": sorted(saved) or None,  # whole names: PEFT takes any module whose name ends like one
        "rank_pattern": ranks,
        "alpha_pattern": {name: lora.scale * rank for name, rank in ranks.items()},
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
