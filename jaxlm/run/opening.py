"""What a run directory holds of a trained model: its config and its parameters."""

import dataclasses
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import decode_config
from jaxlm.models.families import ModelConfig
from jaxlm.text.tokenizer import Tokenizer


class Opened(NamedTuple):
    """A model's config, its vocabulary size known, and one checkpoint's parameters, on the first device."""

    config: Any
    params: Params
    step: int
    is_ema: bool


def open_trained(
    run_config: dict[str, Any], tokenizer: Tokenizer, checkpointer: Checkpointer, step: int | None, ema: bool | None
) -> Opened:
    """Of a run's config (as JSON values) and checkpoints; ``step`` and ``ema`` as in ``jaxlm.load``.

    Raises UserError for a tokenizer of another run, or a step or average that is not there.
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
    return Opened(config, params, step or 0, name == "ema_params")
