"""From a run directory to a Hugging Face directory that ``AutoModelForCausalLM.from_pretrained`` opens."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import decode_config
from jaxlm.io.hf.configs import read_config, write_config
from jaxlm.io.hf.importing import Say, Tick
from jaxlm.io.hf.pieces import Piece, turned, write_out
from jaxlm.io.hf.safetensors import Planned, write_tensors
from jaxlm.io.hf.step_files import StepReader
from jaxlm.io.hf.tasks import write_task
from jaxlm.io.hf.tokenizer_files import write_hf_tokenizer
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.io.writing import is_taken, new_directory
from jaxlm.models.families import ModelConfig, make_model
from jaxlm.models.heads import HeadConfig, make_task_model

MAX_FILE_BYTES = 5 * 10**9


def export_hf(
    run_dir: Path,
    target: Path,
    *,
    dtype: Any = None,
    step: int | None = None,
    ema: bool | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
    say: Say,
    tick: Tick,
) -> dict[str, Any]:
    """Writes a checkpoint of a run as config.json, safetensors and tokenizer files; returns what was done.

    Args:
      dtype: of the tensors; None = as saved, float32 where the parameters are of several.
      step, ema: as `jaxlm.load` has them.
      max_file_bytes: where the tensors are cut into several files.

    ``target`` appears whole, or not at all. Raises UserError where no family of theirs computes this model, and where
    ``target`` is there already.
    """
    if is_taken(target):
        raise UserError(f"{target} is there already: name a new directory")
    run = RunDir(run_dir)
    record = run.read_config()["config"]
    if record.get("tune", "all") != "all":
        raise UserError(f"{run.path} holds adapters alone: merge them into a run (tools.lora merge), and export that")
    tokenizer = load_tokenizer(run.tokenizer_path)
    config: Any = decode_config(ModelConfig, record.get("model", {}), where="config.model")
    if config.vocab_size is None:
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    if not run.checkpoints_path.is_dir():
        raise UserError(f"{run.path} has no checkpoints/: train the run until its first save")
    data = _group(run, record, "data") or _group(run, record, "prompts")
    kept = _group(run, record, "imported")
    task = write_task(_group(run, record, "task"), config) if "task" in record else None
    family, hf = write_config(config)
    if task is not None:
        family, hf = task.family, hf | {"architectures": [task.family.architecture]} | task.settings
    head = None if task is None else task.head
    # Theirs in the layout of ours: with the gains and biases that the family has, its layers grouped as they are here.
    whole = read_config(family, hf)
    if config.family == "decoder":
        whole = dataclasses.replace(whole, window_pattern=config.window_pattern)
    pieces = write_out(family, whole, _shapes(whole, head))
    saved = _find_step(run, _shapes(config, head), step, ema)
    leaves = saved.leaves
    dtype = dtype or _common({np.dtype(leaf.dtype).name for leaf in leaves.values()})
    reader = StepReader(run.checkpoints_path / str(saved.step), saved.field)
    stored = set(leaves)
    plan = [Planned(piece.tensor, piece.shape, as_dtype(dtype)) for piece in _by_row(pieces)]
    by_name = {piece.tensor: piece for piece in pieces}
    total, done = sum(tensor.num_bytes for tensor in plan), 0
    held, gain = "", 0.0 if getattr(whole, "norm_offset", False) else 1.0

    def blocks(tensor: Planned) -> Iterator[np.ndarray]:
        nonlocal done, held
        piece = by_name[tensor.name]
        if piece.parts[0].path != held:
            reader.forget()
            held = piece.parts[0].path
        first = leaves.get(piece.parts[0].path)  # runs of rows as they are stored: no chunk is read twice
        for rows in piece.blocks(4 if first is None else np.dtype(first.dtype).itemsize):
            parts = [_values(reader, stored, piece, i, rows, gain) for i in range(len(piece.parts))]
            yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        done += tensor.num_bytes
        tick(tensor.name, done, total)

    with new_directory(target) as partial:
        files = write_tensors(partial, plan, blocks, max_file_bytes=max_file_bytes)
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": None}
        hf |= {name: kept.get(name, value) for name, value in ids.items()}
        write_json(partial / "config.json", hf | {"dtype": dtype, "use_cache": True})
        write_hf_tokenizer(
            tokenizer,
            partial,
            add_bos=data.get("add_bos", True),
            add_eos=config.family == "encoder" and data.get("add_eos", True),
            say=say,
        )
    _say_differences({part.path for piece in pieces for part in piece.parts}, stored, say)
    return {
        "architecture": family.architecture,
        "tensors": len(plan),
        "parameters": sum(math.prod(tensor.shape) for tensor in plan),
        "bytes": total,
        "dtype": dtype,
        "files": len(files),
        "step": saved.step,
    }


class _Saved(NamedTuple):
    """The parameters of one checkpoint, as shapes by path."""

    step: int
    field: str
    leaves: dict[str, Any]


def _group(run: RunDir, record: dict[str, Any], name: str) -> dict[str, Any]:
    """A group of the run's config, empty where it has none. Raises UserError where it is none."""
    group = record.get(name, {})
    if not isinstance(group, dict):
        raise UserError(f"{run.config_path} has config.{name}={group!r:.80}, which is no group: restore the file")
    return group


def _shapes(config: Any, head: HeadConfig | None) -> dict[str, tuple[int, ...]]:
    """The parameters of a model, with its own head or a task's."""
    model = make_model(config)
    init = model.init if head is None else make_task_model(model, head).init
    return {path: leaf.shape for path, leaf in flatten_with_paths(jax.eval_shape(init, jax.random.key(0))).items()}


def _find_step(run: RunDir, shapes: dict[str, tuple[int, ...]], step: int | None, ema: bool | None) -> _Saved:
    """The checkpoint to export, verified. Raises UserError where it does not hold what the config asks for."""
    with Checkpointer(run.checkpoints_path, read_only=True) as checkpointer:
        step = checkpointer.newest_intact() if step is None else step
        saved = checkpointer.shapes(step)
    if ema and saved.get("ema_params") is None:
        raise UserError(f"checkpoint {step} holds no averaged parameters: export with --no-ema, or leave it out")
    field = "params" if ema is False or saved.get("ema_params") is None else "ema_params"
    leaves = flatten_with_paths(saved[field])
    for path, wanted in shapes.items():
        have = leaves[path].shape if path in leaves else None
        if have is None or tuple(have) != wanted:
            shown = "no" if have is None else f"{path} of shape {tuple(have)}, not"
            raise UserError(
                f"checkpoint {step} holds {shown} {path if have is None else wanted}: "
                f"{run.config_path} is not the config that it was saved with"
            )
    return _Saved(step or 0, field, leaves)


def _say_differences(written: set[str], stored: set[str], say: Say) -> None:
    if filled := written - stored:
        say(f"{len(filled)} gains and biases that the model does not have are written as ones and zeros")
    if left_out := sorted(stored - written):
        say(f"left out: {', '.join(left_out)}")


def _common(names: set[str]) -> str:
    return next(iter(names)) if len(names) == 1 else "float32"


def _by_row(pieces: list[Piece]) -> list[Piece]:
    """Parameter by parameter: layers that a checkpoint stores together are read together."""
    return sorted(pieces, key=lambda piece: (piece.parts[0].path, piece.parts[0].lead))


def _values(reader: StepReader, stored: set[str], piece: Piece, number: int, rows: slice, gain: float) -> np.ndarray:
    """Rows of one part of a tensor, from the checkpoint; gains that it lacks are ``gain``, biases 0."""
    part = piece.parts[number]
    if part.path not in stored:
        if not part.path.endswith(("/scale", "/bias")):
            raise UserError(f"the checkpoint has no {part.path}: use the config that it was saved with")
        shape = (rows.stop - rows.start, *part.shape[1:]) if len(piece.parts) == 1 else part.shape
        return np.full(shape, gain if part.path.endswith("/scale") else 0.0, np.float32)
    index = [slice(0, size) for size in part.shape]
    if len(piece.parts) == 1:
        index[0] = rows
    ours = tuple(index[::-1]) if piece.turn else tuple(index)
    block = reader.read(part.path, part.lead, ours)
    return turned(block, block.dtype) if piece.turn else block
