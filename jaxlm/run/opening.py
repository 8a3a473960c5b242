"""What a run directory holds of a trained model: its config, its tokenizer and its parameters."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.checksums import digest
from jaxlm.io.config_json import decode_config
from jaxlm.io.ngram.files import MODEL_DIR
from jaxlm.io.run_dir import RunDir
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.models.families import ModelConfig
from jaxlm.models.int8_base import dequantize_base, quantize_base
from jaxlm.models.lora import LoraConfig, check_fits, merge
from jaxlm.run.prepare import resolve_model
from jaxlm.text.tokenizer import Tokenizer
from jaxlm.train.policy_objectives import CRITIC


class Opened(NamedTuple):
    """A model's config, its vocabulary size known, and one checkpoint's parameters, on the host (where adapters were
    merged, maybe on the first device)."""

    config: Any
    params: Params
    step: int
    is_ema: bool


def open_trained(
    run_config: dict[str, Any], tokenizer: Tokenizer, checkpointer: Checkpointer, step: int | None, ema: bool | None
) -> Opened:
    """Of a run's config (as JSON values) and checkpoints; ``step`` and ``ema`` as in ``jaxlm.load``. Adapters are
    merged into their base.

    Raises UserError for a tokenizer of another run, for a step, an average or the base of adapters that is not there.
    """
    config: Any = decode_config(ModelConfig, run_config.get("model", {}), where="config.model")
    if config.vocab_size is None:
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    if config.vocab_size is not None and config.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size={config.vocab_size} is less than the tokenizer's {tokenizer.vocab_size}: "
            "the run directory's tokenizer is not the one it was trained with"
        )
    if step is None:
        step = checkpointer.newest_intact()
    kept = step in checkpointer.steps() and checkpointer.shapes(step).get("ema_params") is not None
    if ema and not kept:
        raise UserError(f"checkpoint {step} holds no averaged parameters: load with ema=False, or train with ema_decay")
    name = "ema_params" if kept and ema is not False else "params"
    params, _ = checkpointer.restore_params(step=step, name=name)
    params.pop(CRITIC, None)  # a policy's critic writes nothing
    if has_adapters(run_config):
        params = merge_adapters(run_config, params)
    return Opened(config, params, step or 0, name == "ema_params")


def stored_digest(run_dir: str | Path, step: int) -> str:
    """What tells a model from all others, also from one of the same name and config: a digest of the files that it is
    opened from, its base's too where it is adapters."""
    run = RunDir(run_dir)
    run_config = run.read_config()["config"]
    directories = [run.path / MODEL_DIR, run.checkpoints_path / str(step), run.tokenizer_path]
    parts = [digest(epath.Path(path)) for path in directories if path.is_dir()]
    if run.chat_template_path.exists():
        parts.append(hashlib.sha256(run.chat_template_path.read_bytes()).hexdigest())
    if has_adapters(run_config) and run_config.get("base_step") is not None:
        parts.append(stored_digest(run_config["base"], run_config["base_step"]))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


class Base(NamedTuple):
    """A run to start another from."""

    model: Any
    """Its model's config, the vocabulary size known."""
    tokenizer: Tokenizer
    params: Params | None
    """On the host, whole; None where they were not asked for."""
    step: int | None
    """The checkpoint that they are of."""
    run_config: dict[str, Any]
    """The run's whole config, as JSON values."""


def open_base(run_dir: str | Path, step: int | None = None, *, read_params: bool = True) -> Base:
    """The run as a base; ``step`` as in ``jaxlm.load``. Without ``read_params`` its checkpoints may be gone.

    Raises UserError where it is no run, or has no such checkpoint.
    """
    run = RunDir(run_dir)
    run_config = run.read_config()["config"]
    if run_config.get("model", {}).get("family") == "ngram":
        raise UserError(f"{run.path} is an n-gram model: name the run of a network as a base")
    tokenizer = load_tokenizer(run.tokenizer_path)
    if not read_params:
        model = decode_config(ModelConfig, run_config.get("model", {}), where="config.model")
        return Base(resolve_model(model, tokenizer), tokenizer, None, step, run_config)
    if not run.checkpoints_path.is_dir():
        raise UserError(f"{run.path} has no checkpoints/: train the base until its first save")
    with Checkpointer(run.checkpoints_path, read_only=True) as checkpointer:
        opened = open_trained(run_config, tokenizer, checkpointer, step, None)
    # Merged adapters to the host too: what is made of them lies elsewhere, and the device would hold both for as long
    # as the run lasts.
    return Base(opened.config, tokenizer, jax.tree.map(np.asarray, opened.params), opened.step, run_config)


def has_adapters(run_config: dict[str, Any]) -> bool:
    """Whether the checkpoints of a run hold adapters alone."""
    return run_config.get("tune", "all") != "all"


def lora_of(run_config: dict[str, Any]) -> LoraConfig:
    """What the adapters of a run are."""
    return decode_config(LoraConfig, run_config["lora"], where="config.lora")


def merge_adapters(run_config: dict[str, Any], adapters: Params) -> Params:
    """The whole parameters of a run whose checkpoints hold adapters alone. They were trained beside its base, in int8
    where the run says so, and are added to just that."""
    try:
        base = open_base(run_config["base"], run_config["base_step"]).params
    except UserError as error:
        raise UserError(
            f"the run holds adapters, and their base {run_config['base']} cannot be opened ({error}): bring it "
            "back, or open a run that they were merged into (tools.lora merge)"
        ) from error
    assert base is not None
    if "classifier" in adapters:  # a head of its own, trained whole
        if not run_config.get("reward", {}).get("likelihood_coef"):  # else the judge reads likelihoods with the other
            base = {name: part for name, part in base.items() if name != "head"}
        base = base | {"classifier": adapters["classifier"]}
    check_fits(base, adapters)
    if run_config["tune"] == "lora_int8":
        base = dequantize_base(quantize_base(base), base)
    return merge(base, adapters, lora_of(run_config))
