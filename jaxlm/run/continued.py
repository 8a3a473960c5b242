"""Pretraining that goes on from a trained model: on other text, in longer rows, for more steps."""

import dataclasses
from typing import Any

import jax

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Params
from jaxlm.io.agree import say
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.run_dir import RunDir
from jaxlm.models.families import ModelConfig, make_model
from jaxlm.run.config import PretrainConfig
from jaxlm.run.opening import open_base
from jaxlm.run.setup import place_leaf
from jaxlm.text.tokenizer import TokenizerConfig
from jaxlm.train.state import TrainState


def on_base(config: PretrainConfig, *, resumes: bool = False) -> PretrainConfig:
    """The config with the model, the tokenizer and the step of its base; itself where it has none. ``resumes``: the run
    has parameters of its own, and the base's checkpoints may be gone.

    Raises UserError where the base is no run or has no such checkpoint, and where the config asks for a model with
    other parameters.
    """
    if config.base is None:
        return config
    base, run = open_base(config.base, config.base_step, read_params=False), RunDir(config.base)
    model = _over(config, base.model)
    tokenizer = TokenizerConfig(path=str(run.tokenizer_path))
    step = config.base_step if resumes else _step(run, config.base_step)
    found = dataclasses.replace(config, model=model, tokenizer=tokenizer, base_step=step)
    try:
        found.check_model()
    except ValueError as error:
        raise UserError(f"{error} (the model is that of base {config.base})") from None
    say(f"base: {config.base} step {step}; its model and tokenizer are used")
    return found


def base_params(config: PretrainConfig, fresh: TrainState, abstract: TrainState) -> TrainState:
    """A fresh state with the base's parameters in place of its own, each device given its part."""
    assert config.base is not None
    for leaf in jax.tree.leaves((fresh.params, fresh.ema_params)):
        leaf.delete()  # devices may not hold both
    params = open_base(config.base, config.base_step).params
    assert params is not None
    if missing := [name for name in abstract.params if name not in params]:
        raise UserError(f"base {config.base} holds no {', '.join(missing)}: name a run of a language model")
    whole = {name: params[name] for name in abstract.params}

    def place(wanted: Params) -> Params:
        return jax.tree.map(place_leaf, whole, wanted)

    average = None if abstract.ema_params is None else place(abstract.ema_params)
    return dataclasses.replace(fresh, params=place(abstract.params), ema_params=average)


def _step(run: RunDir, asked: int | None) -> int:
    """The step that was asked for, or the newest."""
    if not run.checkpoints_path.is_dir():
        raise UserError(f"base {run.path} has no checkpoints/: train it until its first save")
    with Checkpointer(run.checkpoints_path, read_only=True) as checkpointer:
        step = checkpointer.newest_intact() if asked is None else asked
        steps = checkpointer.steps()
    if step not in steps:
        there = f"there are {', '.join(map(str, steps))}" if steps else "train it until its first save"
        raise UserError(f"base {run.path} has no checkpoint{'' if asked is None else f' of step {asked}'}: {there}")
    return step


def _over(config: PretrainConfig, base: ModelConfig) -> ModelConfig:
    """The base's model under what the config sets of its own."""
    own: Any = config.model
    plain = type(own)()
    asked = {
        field.name: getattr(own, field.name)
        for field in dataclasses.fields(own)
        if getattr(own, field.name) != getattr(plain, field.name)
    }
    if asked and type(own) is not type(base):
        raise UserError(f"base {config.base} is a {base.family}, and model a {own.family}: leave the model out")
    try:
        model: Any = dataclasses.replace(base, **asked) if asked else base
    except ValueError as error:
        raise UserError(f"model, over that of base {config.base}: {error}") from None
    if asked and (other := _first_difference(_shapes(base), _shapes(model))) is not None:
        set_here = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        raise UserError(
            f"model ({set_here}) makes other parameters than base {config.base} has ({other}): leave out what alters "
            "them"
        )
    return model


def _shapes(config: ModelConfig) -> dict[str, Any]:
    shapes = jax.eval_shape(make_model(config).init, jax.random.key(0))
    return {path: tuple(leaf.shape) for path, leaf in flatten_with_paths(shapes).items()}


def _first_difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    for path in [*old, *new]:
        if old.get(path) != new.get(path):
            return f"{path}: {old.get(path, 'not there')} -> {new.get(path, 'not there')}"
    return None
