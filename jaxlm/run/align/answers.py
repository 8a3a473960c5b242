"""Answers that a tuning run writes while it trains."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.io.config_json import config_to_dict
from jaxlm.models.families import make_model
from jaxlm.run.align.base import ChatBase
from jaxlm.run.align.config import AnswersConfig
from jaxlm.run.align.policy import Policy
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.training import Sample
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Message

Prompt = tuple[Message, ...]


def choose_prompts(
    options: AnswersConfig, form: ChatFormat, held_out: Iterable[Prompt], *, seq_len: int
) -> list[Prompt]:
    """What is answered: the given texts, which must leave room, or the first held-out prompts that do."""
    room = seq_len - options.max_new_tokens
    if options.prompts:
        given = [(Message("user", text),) for text in options.prompts]
        for prompt in given:
            if len(form.prompt(prompt, "sample.prompts")) > room:
                raise UserError(
                    f"sample.prompts holds {prompt[0].content[:40]!r}, which leaves no room for "
                    f"sample.max_new_tokens={options.max_new_tokens} in data.seq_len={seq_len}"
                )
        return given
    fitting = (prompt for prompt in dict.fromkeys(held_out) if prompt and len(form.prompt(prompt)) <= room)
    return [prompt for _, prompt in zip(range(options.num_prompts), fitting, strict=False)]


def answers_of(
    policy: Policy, base: ChatBase, prompts: Sequence[Prompt], config: Any
) -> Callable[[Params], list[Sample]]:
    """``answer(params) -> [{"prompt", "completion"}, ...]`` of what is trained; compiled at the first call.

    ``config``: with ``sample`` and ``seed``, of the run.
    """
    options: AnswersConfig = config.sample
    model, whole, run_config = make_model(policy.model.config), policy.whole(), config_to_dict(config)

    def answer(params: Params) -> list[Sample]:
        if not prompts:
            return []
        lm = CausalLM(model, whole(params), base.tokenizer, run_config, template=base.form.template)
        said = lm.answer(
            prompts, max_new_tokens=options.max_new_tokens, temperature=options.temperature, seed=config.seed
        )
        shown = ["\n".join(message.content for message in prompt) + "\n" for prompt in prompts]
        return [{"prompt": text, "completion": one.text} for text, one in zip(shown, said, strict=True)]

    return answer
