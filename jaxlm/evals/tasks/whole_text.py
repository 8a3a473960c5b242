"""Whole texts: how likely all of it is."""

from collections.abc import Sequence

from jaxlm.evals.summary import Metric
from jaxlm.evals.tasks.task import Item, Likelihood, Request, Task

METRICS = {
    "bits_per_byte": Metric("nats", per="bytes", form="bits"),
    "perplexity": Metric("nats", per="tokens", form="exp"),
}
"""Sums over all texts, divided once."""
NEEDS = {"tokens": "num_tokens"}


def requests(task: Task, item: Item, prompt: str) -> list[Request]:
    """The text, behind the start symbol alone."""
    return [Request("", item.question)]


def score(item: Item, replies: Sequence[Likelihood]) -> dict[str, float]:
    """Sums of one text."""
    (reply,) = replies
    return {"nats": -reply.logprob, "tokens": float(reply.num_tokens), "bytes": float(len(item.question.encode()))}
