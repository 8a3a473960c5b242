"""Multiple choice by likelihood: which choice would a model most readily go on with, its length allowed for or not?"""

from collections.abc import Sequence

import numpy as np

from jaxlm.evals.calibration import brier, choice_probabilities
from jaxlm.evals.summary import Metric
from jaxlm.evals.tasks.task import Item, Likelihood, Request, Task

METRICS = {
    "accuracy": Metric("accuracy", share=True),
    "accuracy_per_byte": Metric("accuracy_per_byte", share=True),
    "accuracy_per_token": Metric("accuracy_per_token", share=True),
    "accuracy_unconditional": Metric("accuracy_unconditional", share=True),
    "gold_probability": Metric("gold_probability"),
    "gold_nats": Metric("gold_nats"),
    "brier": Metric("brier"),
}
"""Accuracies by log p(choice | prompt) as it is, divided by its bytes or tokens, and less log p(choice | a neutral
context); probability of the right choice among the choices; its nats; Brier's score."""
NEEDS = {"accuracy_per_byte": "num_bytes", "accuracy_per_token": "num_tokens"}


def requests(task: Task, item: Item, prompt: str) -> list[Request]:
    """Each choice behind the prompt, and each behind the neutral context if the task has one."""
    said = [f"{task.form.template.gap}{choice}" for choice in item.choices]
    neutral = [] if task.form.unconditional is None else [Request(task.form.unconditional, one) for one in said]
    return [Request(prompt, one) for one in said] + neutral


def score(item: Item, replies: Sequence[Likelihood]) -> dict[str, float]:
    """Scores of one item; ``chosen`` is which choice is likeliest, ``stated`` how sure the model is of it."""
    assert item.gold is not None
    count = len(item.choices)
    logprobs = np.array([reply.logprob for reply in replies[:count]], np.float64)
    among = choice_probabilities(logprobs)
    ways = {
        "accuracy": logprobs,
        "accuracy_per_byte": logprobs / np.array([max(1, reply.num_bytes) for reply in replies[:count]]),
        "accuracy_per_token": logprobs / np.array([max(1, reply.num_tokens) for reply in replies[:count]]),
    }
    if len(replies) == 2 * count:
        alone = np.array([reply.logprob for reply in replies[count:]])
        # What is impossible behind the prompt stays so, however unlikely it is alone.
        ways["accuracy_unconditional"] = np.subtract(logprobs, alone, out=logprobs.copy(), where=np.isfinite(logprobs))
    return {
        **{name: float(int(np.argmax(values)) == item.gold) for name, values in ways.items()},
        "gold_probability": float(among[item.gold]),
        "gold_nats": -float(logprobs[item.gold]),
        "brier": brier(among, item.gold),
        "chosen": float(np.argmax(logprobs)),
        "stated": float(among.max()),
    }
