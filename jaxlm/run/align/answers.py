"""Answers that a tuning run writes while it trains."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxlm.core.types import Params
from jaxlm.models.api import Model
from jaxlm.run.align.base import ChatBase
from jaxlm.run.align.config import AnswersConfig
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.training import Sample
from jaxlm.text.chat.messages import Message


def make_answerer(
    model: Model,
    base: ChatBase,
    prompts: Sequence[tuple[Message, ...]],
    options: AnswersConfig,
    run_config: dict[str, Any],
    *,
    seed: int,
) -> Callable[[Params], list[Sample]]:
    """``answer(params) -> [{"prompt", "completion"}, ...]``, of plain parameters; compiled at the first call."""

    def answer(params: Params) -> list[Sample]:
        if not prompts:
            return []
        lm = CausalLM(model, params, base.tokenizer, run_config, template=base.form.template)
        said = lm.answer(prompts, max_new_tokens=options.max_new_tokens, temperature=options.temperature, seed=seed)
        shown = ["\n".join(message.content for message in prompt) + "\n" for prompt in prompts]
        return [{"prompt": text, "completion": one.text} for text, one in zip(shown, said, strict=True)]

    return answer
