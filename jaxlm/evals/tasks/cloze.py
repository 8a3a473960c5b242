"""Cloze: a continuation that can be only one, such as the last word of a passage (LAMBADA; Paperno et al. 2016)."""

from collections.abc import Sequence

from jaxlm.evals.summary import Metric
from jaxlm.evals.tasks.task import Item, Likelihood, Request, Task

METRICS = {
    "accuracy": Metric("accuracy", share=True),
    "perplexity": Metric("nats", form="exp"),
    "nats_per_byte": Metric("nats", per="bytes"),
}
"""Whether every token of the answer is the model's first choice; exp of the mean nats of an answer (not of a token);
nats for each of its bytes."""
NEEDS = {"accuracy": "is_greedy", "bytes": "num_bytes"}


def requests(task: Task, item: Item, prompt: str) -> list[Request]:
    """The answer behind the prompt."""
    return [Request(prompt, f"{task.form.template.gap}{item.answer}")]


def score(item: Item, replies: Sequence[Likelihood]) -> dict[str, float]:
    """Scores of one item."""
    (reply,) = replies
    return {"accuracy": float(reply.is_greedy), "nats": -reply.logprob, "bytes": float(max(1, reply.num_bytes))}
