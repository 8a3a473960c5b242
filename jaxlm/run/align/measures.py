"""What the road measures of a model: answers by the gold checker, KL to a reference, loss on text, what it knows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.world.questions import Question
from jaxlm.data.world.tasks import FORMATS
from jaxlm.data.world.towns import ATTRIBUTES, QUESTIONS, STATEMENTS, Town, World
from jaxlm.evals.gold import is_in_form, is_preferred, is_right
from jaxlm.evals.preferences import share_with_interval
from jaxlm.run.causal_lm import CausalLM
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Conversation, Message

Share = Mapping[str, float]
"""``accuracy``, ``lower``, ``upper``, ``num_pairs`` of `evals.preferences.share_with_interval`."""


def measure_answers(
    lm: CausalLM, reference: CausalLM | None, questions: Sequence[Question], *, max_new_tokens: int, seed: int
) -> dict[str, Any]:
    """Greedy answers to all questions, and drawn ones for the KL divergence to ``reference``.

    Returns ``right`` (kind -> share), ``preferred`` (share in the form that is preferred, of all answers), ``in_form``
    (of tasks that ask for one), ``kl`` (nats an answer, ``kl_error`` its standard error; without a reference None), and
    some answers as ``samples``.
    """
    prompts = [question.prompt for question in questions]
    records = [question.record() for question in questions]
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": 256}
    answers = [one.text for one in lm.answer(prompts, temperature=0.0, **options)]
    kinds = np.array([question.kind for question in questions])
    right, preferred = (
        np.array([check(record, answer) for record, answer in zip(records, answers, strict=True)], np.float64)
        for check in (is_right, is_preferred)
    )
    in_form = [is_in_form(r, a) for r, a in zip(records, answers, strict=True) if r["kind"] in FORMATS]
    names = list(dict.fromkeys(kinds.tolist()))
    first = {name: int(np.argmax(kinds == name)) for name in names}
    found: dict[str, Any] = {
        "right": {name: share_with_interval(right[kinds == name]) for name in names},
        "preferred": share_with_interval(preferred[[question.closes for question in questions]]),
        "in_form": share_with_interval(np.array(in_form, np.float64)),
        "kl": None,
        "samples": [{"kind": name, "prompt": prompts[i], "answer": answers[i]} for name, i in first.items()],
    }
    return found if reference is None else found | _divergence(lm, reference, prompts, options, seed)


def _divergence(
    lm: CausalLM, reference: CausalLM, prompts: Sequence[str], options: dict[str, Any], seed: int
) -> dict[str, float]:
    """KL(model || reference) an answer, by answers drawn from the model: the mean of log p / p_ref."""
    form = _form(lm)
    drawn = lm.answer(prompts, temperature=1.0, seed=seed, **options)
    asked = [form.prompt((Message("user", prompt),), "a prompt") for prompt in prompts]
    theirs = reference.score_ids([[*ids, *one.tokens] for ids, one in zip(asked, drawn, strict=True)])
    ratios = [
        float(np.sum(one.logprobs, dtype=np.float64) - np.sum(logprobs[len(ids) - 1 :], dtype=np.float64))
        for ids, one, logprobs in zip(asked, drawn, theirs, strict=True)
    ]
    return {"kl": float(np.mean(ratios)), "kl_error": float(np.std(ratios) / math.sqrt(len(ratios)))}


def measure_text(lm: CausalLM, texts: Sequence[str]) -> float:
    """Bits per byte of texts together."""
    scores = lm.score(list(texts))
    nats = sum(score.nats + (score.start_nats or 0.0) for score in scores)
    return nats / (math.log(2) * sum(len(text.encode()) for text in texts))


GROUPS: dict[str, str] = {
    "stated": "stated in the text, asked about in no conversation",
    "told": "told in conversations, never in the text",
    "neither": "neither stated nor told",
}


def probe_groups(world: World) -> dict[str, list[Town]]:
    """Towns of each of `GROUPS`."""
    return {
        "stated": [town for town in world.stated if town.held_out],
        "told": [town for town in world.unstated if not town.held_out],
        "neither": [town for town in world.unstated if town.held_out],
    }


def measure_knowledge(lm: CausalLM, world: World) -> dict[str, dict[str, Share]]:
    """Group -> how often the likeliest of a fact's eight values is the true one, ``as_text`` (the statement of the
    pretraining text is completed) and ``as_answer`` (to a question; of what was told, in another phrasing)."""
    by_text, by_answer = _text_chooser(lm), _answer_chooser(lm)
    found = {}
    for name, towns in probe_groups(world).items():
        facts = [(town, key) for town in towns for key in town.facts]
        right = {
            how: np.array([choose(town, key) == town.facts[key] for town, key in facts], np.float64)
            for how, choose in (("as_text", by_text), ("as_answer", by_answer))
        }
        found[name] = {how: share_with_interval(values) for how, values in right.items()}
    return found


Choose = Callable[[Town, str], str]


def _text_chooser(lm: CausalLM) -> Choose:
    def choose(town: Town, key: str) -> str:
        values = ATTRIBUTES[key]
        nats = [score.nats for score in lm.score([STATEMENTS[key][0].format(t=town.name, v=value) for value in values])]
        return values[int(np.argmin(nats))]

    return choose


def _answer_chooser(lm: CausalLM) -> Choose:
    form = _form(lm)

    def choose(town: Town, key: str) -> str:
        values, question = ATTRIBUTES[key], Message("user", QUESTIONS[key][-1].format(t=town.name))
        asked = form.prompt((question,), "a probe")
        rows = [form.encode(Conversation((question, Message("assistant", value)), "a probe")) for value in values]
        # The value alone: whether a full stop or the end follows is the form's matter.
        lengths = [len(asked) + len(lm.tokenizer.encode(value)) for value in values]
        logprobs = lm.score_ids([row.tokens[:length].tolist() for row, length in zip(rows, lengths, strict=True)])
        return values[int(np.argmax([float(one[len(asked) - 1 :].sum()) for one in logprobs]))]

    return choose


def _form(lm: CausalLM) -> ChatFormat:
    if lm.form is None:
        raise UserError("this model was taught no chat template: it cannot be asked")
    return lm.form
