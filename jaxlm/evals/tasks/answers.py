"""Written answers: what is read off the text, and whether it is right, or keeps to what was asked of it."""

from typing import NamedTuple

from jaxlm.evals.extraction import cut_at, vote
from jaxlm.evals.instructions import grading as instructions
from jaxlm.evals.summary import Metric
from jaxlm.evals.tasks.task import Form, Item

METRICS = {"accuracy": Metric("accuracy", share=True), "answered": Metric("answered", share=True)}
"""Exact match of the answer that was read, in the task's form; and the share of texts that hold one."""


class Written(NamedTuple):
    """What a model wrote for one item: one text, or several to vote among."""

    texts: tuple[str, ...]
    behind_cue: bool = False
    """Whether the prompt ended with what announces the answer."""


def metrics_of(form: Form) -> dict[str, Metric]:
    """Of written answers to a task of this form."""
    return instructions.METRICS if form.kind == "instruction" else METRICS


def read_answer(form: Form, written: Written) -> str | None:
    """The answer of a text up to a stop string of the form, or of several texts the commonest; None without one. Of an
    instruction all of the first text."""
    texts = [cut_at(text, form.stop) for text in written.texts]
    if form.kind == "instruction":
        return texts[0]
    read = [form.extraction.read(text, behind_cue=written.behind_cue) for text in texts]
    return vote(read, form.extraction.value)


def score(form: Form, item: Item, answer: str | None) -> dict[str, float]:
    """Scores of one item. Raises ValueError for a gold answer that is not in the task's form."""
    if form.kind == "instruction":
        return instructions.score(item.constraints, answer or "")
    return {"accuracy": float(form.extraction.agrees(answer, item.answer)), "answered": float(answer is not None)}
