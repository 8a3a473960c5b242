"""Adapters from a directory that PEFT wrote, or `export_peft`."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Params
from jaxlm.io.hf.configs import read_config, write_config
from jaxlm.io.hf.peft import CONFIG_FILE, TENSOR_FILE, whole_config
from jaxlm.io.hf.pieces import Piece, write_out
from jaxlm.io.hf.safetensors import Tensor, read_header
from jaxlm.models.families import make_model
from jaxlm.models.lora import A, B, LoraConfig, nested
from jaxlm.plan.params import param_shapes

_PREFIX = "base_model.model."
_UNREAD = {"bias": "none", "use_dora": False, "fan_in_fan_out": None, "lora_bias": False, "megatron_config": None}


def import_peft(source: Path, config: Any) -> tuple[Params, LoraConfig]:
    """The adapters as a tree of ours for a model of this config, and what they are. Each module's scale goes into its
    B, so that alpha / rank is 1; ranks may differ from module to module.

    Raises UserError where it is no LoRA of this model, or has what is not computed here (DoRA, biases, embeddings).
    """
    settings = _read_settings(source / CONFIG_FILE)
    tensors = read_header(source / TENSOR_FILE)
    family, hf = write_config(config)
    whole = whole_config(config, read_config(family, hf))
    shapes = {path: leaf.shape for path, leaf in flatten_with_paths(param_shapes(make_model(whole))).items()}
    ours = set(flatten_with_paths(param_shapes(make_model(config))))
    left, flat, parts = set(tensors), {}, {}
    trained: dict[str, np.ndarray] = {}
    unsaved: dict[str, str] = {}
    for piece in write_out(family, whole, shapes):
        module = piece.tensor.removesuffix(".weight")
        names = [f"{_PREFIX}{module}.lora_{factor}.weight" for factor in "AB"]
        saved = f"{_PREFIX}{piece.tensor}"
        if all(name in tensors for name in names):
            _take_pair(piece, tensors[names[0]], tensors[names[1]], _scale(settings, module), shapes, parts)
            left -= set(names)
            unsaved |= {part.path: saved for part in piece.parts}
        elif saved in tensors and len(piece.parts) == 1:
            path, lead, _ = piece.parts[0]
            if tensors[saved].shape != piece.shape:
                raise UserError(
                    f"{source / TENSOR_FILE} holds {saved} of shape {tensors[saved].shape}, not {piece.shape}: it "
                    "belongs to another model"
                )
            value = np.asarray(tensors[saved].read(), np.float32)
            trained.setdefault(path, np.zeros(shapes[path], np.float32))[lead] = value.T if piece.turn else value
            left.discard(saved)
        else:
            unsaved |= {part.path: saved for part in piece.parts}
    if left:
        raise UserError(f"{source / TENSOR_FILE} holds {sorted(left)[0]}, which this model has no module for")
    if not parts:
        raise UserError(f"{source / TENSOR_FILE} holds no adapter of this model: name its base")
    for path in trained.keys() & unsaved.keys():
        raise UserError(
            f"{source / TENSOR_FILE} lacks {unsaved[path]}: jaxlm trains a parameter in all layers or in none, so save "
            "it in every layer"
        )
    for path, by_lead in parts.items():
        if path not in ours:
            raise UserError(f"{source} adapts {path}, which the base has not: name its base")
        module, lead = path.removesuffix("/kernel"), shapes[path][:-2]
        used = np.unique(np.concatenate([np.flatnonzero(np.any(b != 0, axis=1)) for _, b in by_lead.values()] or [[]]))
        used = used.astype(int) if len(used) else np.array([0])
        (fan_in, fan_out), rank = shapes[path][-2:], len(used)
        a, b = np.zeros((*lead, fan_in, rank), np.float32), np.zeros((*lead, rank, fan_out), np.float32)
        for at, (down, up) in by_lead.items():
            a[at], b[at] = down[:, used], up[used]
        flat[f"{module}/{A}/kernel"], flat[f"{module}/{B}/kernel"] = a, b
    rank = max(leaf.shape[-1] for path, leaf in flat.items() if path.endswith(f"/{A}/kernel"))
    targets = tuple(f"^{re.escape(path)}$" for path in parts)
    lora = LoraConfig(rank, float(rank), targets, trained=tuple(f"^{re.escape(path)}$" for path in trained))
    return nested(flat | trained), lora


def _take_pair(
    piece: Piece,
    down: Tensor,
    up: Tensor,
    scale: float,
    shapes: dict[str, tuple[int, ...]],
    parts: dict[str, dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]],
) -> None:
    """One module's factors, cut to the kernels of ours that stand side by side in it: A [in, r] and scaled B [r, out]
    for each."""
    widths = [shapes[part.path][-1] for part in piece.parts]
    fan_in, fan_out = shapes[piece.parts[0].path][-2], sum(widths)
    if len(down.shape) != 2 or down.shape[1] != fan_in or up.shape != (fan_out, down.shape[0]):
        raise UserError(
            f"the adapter of {piece.tensor} is {down.shape} and {up.shape}, not (r, {fan_in}) and ({fan_out}, r): it "
            "belongs to another model"
        )
    a, b = np.asarray(down.read(), np.float32), np.asarray(up.read(), np.float32) * np.float32(scale)
    for part, start, width in zip(piece.parts, np.cumsum([0, *widths]), widths, strict=False):
        parts.setdefault(part.path, {})[part.lead] = (a.T, b[start : start + width].T)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}: name a directory that PEFT wrote") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise UserError(f"{path} describes no LoRA (peft_type): jaxlm reads no other adapters")
    for name, value in _UNREAD.items():
        if value is not None and settings.get(name, value) not in (value, None):
            raise UserError(f"{path} has {name}={settings[name]!r}, which jaxlm does not compute: merge it with PEFT")
    if not isinstance(settings.get("r"), int) or not isinstance(settings.get("lora_alpha"), int | float):
        raise UserError(f"{path} lacks r or lora_alpha: get the file again")
    return settings


def _scale(settings: dict[str, Any], module: str) -> float:
    """alpha / r of a module, or alpha / sqrt(r)."""

    def of(pattern: str, default: float) -> float:
        for name, value in (settings.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({name})$", module):
                return value
        return default

    rank, alpha = of("rank_pattern", settings["r"]), of("alpha_pattern", settings["lora_alpha"])
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
