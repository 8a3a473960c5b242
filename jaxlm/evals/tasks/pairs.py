"""Minimal pairs: of two texts that differ in one point, is the good one likelier? (BLiMP; Warstadt et al. 2020)"""

from collections.abc import Sequence

from jaxlm.evals.summary import Metric
from jaxlm.evals.tasks.task import Item, Likelihood, Request, Task

METRICS = {
    "accuracy": Metric("accuracy", share=True),
    "accuracy_per_token": Metric("accuracy_per_token", share=True),
    "margin_nats": Metric("margin_nats"),
}
"""Accuracy by the whole texts' likelihood (the published figure) and by that of a token; how much likelier the good one
is. Equal texts, and two that are impossible, count as a half."""
NEEDS = {"accuracy_per_token": "num_tokens"}


def requests(task: Task, item: Item, prompt: str) -> list[Request]:
    """Both texts, behind nothing but the prompt, which is empty without examples."""
    return [Request(prompt, text) for text in item.choices]


def score(item: Item, replies: Sequence[Likelihood]) -> dict[str, float]:
    """Scores of one pair."""
    assert item.gold is not None
    good, bad = replies[item.gold], replies[1 - item.gold]
    margin = _less(good.logprob, bad.logprob)
    each = _less(good.logprob / max(1, good.num_tokens), bad.logprob / max(1, bad.num_tokens))
    return {"accuracy": _sign(margin), "accuracy_per_token": _sign(each), "margin_nats": margin}


def _less(a: float, b: float) -> float:
    """a - b, 0 for equal infinities too."""
    return 0.0 if a == b else a - b


def _sign(value: float) -> float:
    return 1.0 if value > 0 else 0.5 if value == 0 else 0.0
