"""``jaxlm.load(run_dir)``: a trained model from its run directory. Opening reads files and executes nothing in them."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax

from jaxlm.core.errors import UserError
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.run_dir import RunDir
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.models.decoder_inference import Weights
from jaxlm.run.align.base import choose_template, saved_template
from jaxlm.run.align.reward_lm import RewardLM
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.encoder_lm import EncoderLM
from jaxlm.run.language_model import Generation, LanguageModel, Score
from jaxlm.run.ngram_lm import open_ngram
from jaxlm.run.opening import open_trained
from jaxlm.run.tuned_model import TunedModel

__all__ = ["FAMILIES", "Generation", "LanguageModel", "Score", "load"]


Open = Callable[..., LanguageModel]
"""``make(opened, tokenizer, run_config)``, and ``template=`` where the run has one."""


def _trained(make: Open) -> Callable[..., LanguageModel]:
    """How to open a run that has checkpoints: ``make(parameters, tokenizer, run_config)``, or a task's model."""

    def open_run(run: RunDir, config: dict[str, Any], step: int | None, ema: bool | None) -> LanguageModel:
        if not run.tokenizer_path.is_dir():
            raise UserError(f"{run.path} has no tokenizer/: the run stopped before it began, start it again")
        if not run.checkpoints_path.is_dir():
            raise UserError(f"{run.path} has no checkpoints/: train the run until its first save")
        tokenizer = load_tokenizer(run.tokenizer_path)
        with Checkpointer(run.checkpoints_path, read_only=True) as checkpointer:
            opened = open_trained(config, tokenizer, checkpointer, step, ema)
        opened = opened._replace(params=jax.device_put(opened.params, jax.local_devices()[0]))
        template = saved_template(run)
        if "task" in config:
            return TunedModel(opened, tokenizer, config)
        if "reward" in config:
            return RewardLM(opened, tokenizer, config, template=choose_template(run, None))
        return (
            make(opened, tokenizer, config) if template is None else make(opened, tokenizer, config, template=template)
        )

    return open_run


FAMILIES: dict[str, Callable[..., LanguageModel]] = {
    "decoder": _trained(CausalLM.of_run),
    "recurrent": _trained(CausalLM.of_run),
    "encoder": _trained(EncoderLM.of_run),
    "ngram": open_ngram,
}
"""Family -> how to open it: ``f(run, run_config, step, ema) -> LanguageModel``."""


def load(
    run_dir: str | Path, *, step: int | None = None, ema: bool | None = None, weights: Weights = "trained"
) -> LanguageModel:
    """The model of a run directory, its parameters on the first device; no optimiser state is read.

    Args:
      run_dir: what ``jaxlm pretrain``, ``jaxlm finetune``, ``jaxlm sft``, ``tools.hf import``... wrote.
      step: which checkpoint; None = the newest.
      ema: True = the averaged parameters, False = the trained ones, None = averaged if the run kept them.
      weights: "int8" keeps the kernels of a decoder's layers in 8 bits: a quarter of their memory in f32, and faster
        generation where memory bandwidth binds (docs/quantization.md says what it costs). "row" lays them out for one
        kernel that decodes one row greedily on an NVIDIA GPU (docs/generation.md).

    Raises UserError where the directory is no run, or has no such checkpoint, average or family.
    """
    if weights not in get_args(Weights):
        raise UserError(f"weights={weights!r} is unknown: choose {', '.join(get_args(Weights))}")
    run = RunDir(run_dir)
    if not run.path.is_dir():
        raise UserError(f"no run directory {run.path}: give the --run-dir of a training run")
    config: dict[str, Any] = run.read_config()["config"]
    family = config.get("model", {}).get("family", "decoder")
    if family not in FAMILIES:
        raise UserError(f"{run.config_path} names family {family!r}: this jaxlm opens {', '.join(FAMILIES)}")
    if weights != "trained":
        if family != "decoder" or "task" in config or "reward" in config:
            raise UserError(
                f"weights={weights!r} is for decoders that write, {run.path} is another model: leave it out"
            )
        return _trained(functools.partial(CausalLM.of_run, weights=weights))(run, config, step, ema)
    return FAMILIES[family](run, config, step, ema)
