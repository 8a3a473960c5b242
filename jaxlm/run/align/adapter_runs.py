"""Runs that hold adapters alone: merged into plain runs, written for PEFT, and made of what PEFT wrote."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.core.errors import UserError
from jaxlm.core.tree import count_params
from jaxlm.core.types import Params
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict, decode_config
from jaxlm.io.hf.peft import export_peft
from jaxlm.io.hf.peft_import import import_peft
from jaxlm.io.run_dir import RunDir, environment, text_of, write_json
from jaxlm.io.writing import is_taken, new_directory
from jaxlm.models.families import ModelConfig
from jaxlm.models.lora import check_fits
from jaxlm.run.opening import has_adapters, lora_of, open_base


def merge_run(source: Path, target: Path, *, step: int | None = None) -> dict[str, Any]:
    """Writes the model of a run of adapters, merged, as a plain run that every command opens; returns what was done.

    ``target`` appears whole, or not at all. Raises UserError where it is there already, ``source`` holds no adapters,
    or their base is gone.
    """
    record = _check(source, target)
    base = open_base(source, step)
    assert base.params is not None
    config = record | {"tune": "all", "base": None, "base_step": None}
    _write_run(target, config, base.params, base.step or 0, source)
    return {"step": base.step, "parameters": count_params(base.params), "run_dir": str(target)}


def export_adapters(source: Path, target: Path, *, step: int | None = None, base: str | None = None) -> dict[str, Any]:
    """Writes the adapters of a run in PEFT's format (`io.hf.peft`); ``base``: the name under which PEFT shall look for
    their model. Raises UserError as `merge_run` does."""
    record = _check(source, target)
    run = RunDir(source)
    with Checkpointer(run.checkpoints_path, read_only=True) as checkpointer:
        adapters, _ = checkpointer.restore_params(step=step)
    model = decode_config(ModelConfig, record["model"], where="config.model")
    return export_peft(target, model, adapters, lora_of(record), base=base)


def import_adapters(source: Path, target: Path, *, base: Path) -> dict[str, Any]:
    """Writes adapters that PEFT wrote as a run beside its base, which must be a run of their model.

    Raises UserError where ``target`` is there already, or the adapters are of another model.
    """
    if is_taken(target):
        raise UserError(f"{target} is there already: name a new run directory")
    opened = open_base(base)
    adapters, lora = import_peft(source, opened.model)
    assert opened.params is not None
    check_fits(opened.params, adapters)
    config = {
        "name": target.name,
        "model": config_to_dict(opened.model),
        "data": text_of(opened.run_config),
        "tune": "lora",
        "lora": config_to_dict(lora),
        "base": str(base),
        "base_step": opened.step,
    }
    _write_run(target, config, adapters, 0, base)
    return {"parameters": count_params(adapters), "rank": lora.rank, "run_dir": str(target)}


def _check(source: Path, target: Path) -> dict[str, Any]:
    """The config of a run of adapters."""
    if is_taken(target):
        raise UserError(f"{target} is there already: name a new directory")
    record = RunDir(source).read_config()["config"]
    if not has_adapters(record):
        raise UserError(f"{source} holds no adapters but a whole model: use it as it is")
    return record


def _write_run(target: Path, config: dict[str, Any], params: Params, step: int, like: Path) -> None:
    """A run directory of one checkpoint, with the tokenizer and the template of another."""
    with new_directory(target) as partial:
        run, source = RunDir(partial), RunDir(like)
        write_json(run.config_path, {"config": config, **environment()})
        shutil.copytree(source.tokenizer_path, run.tokenizer_path)
        if source.chat_template_path.is_file():
            shutil.copy(source.chat_template_path, run.chat_template_path)
        with Checkpointer(run.checkpoints_path) as checkpointer:
            state = {
                "params": jax.tree.map(jnp.asarray, params),
                "ema_params": None,
                "opt_state": {},
                "step": jnp.asarray(step),
            }
            checkpointer.save(step, state, {"incidents": []})
            checkpointer.wait()
