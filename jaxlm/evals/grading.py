"""Outputs that any system wrote, laid beside the items of a task and scored."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.evals.calibration import calibration_error
from jaxlm.evals.flags import split_by_flags
from jaxlm.evals.instructions.grading import kept
from jaxlm.evals.intervals import share
from jaxlm.evals.paired import mcnemar, paired_difference
from jaxlm.evals.summary import Metric, figure, group_places, summarise, with_scores
from jaxlm.evals.tasks import answers
from jaxlm.evals.tasks.answers import Written
from jaxlm.evals.tasks.kinds import LIKELIHOOD_KINDS
from jaxlm.evals.tasks.task import Form, Item, Likelihood, Task


class Output(NamedTuple):
    """What a system said to one item: a text, or how likely it finds what the item's kind asks for."""

    where: str
    """For messages: "FILE line 3"."""
    name: str | None = None
    """Of the item; else it is found by its question."""
    question: str | None = None
    gold: str | None = None
    """The right answer, if the output says it."""
    group: str = ""
    written: Written | None = None
    likelihoods: tuple[Likelihood, ...] = ()
    absent: frozenset[str] = frozenset()
    """Fields of the likelihoods that the system did not say: scores that need them are left out."""


class Graded(NamedTuple):
    """One item with its output."""

    item: Item
    output: Output
    answer: str | None
    """What was read off a text."""
    scores: dict[str, float]


def task_of_outputs(name: str, form: Form, outputs: Sequence[Output]) -> Task:
    """A task made of what the outputs say themselves: questions, right answers, groups.

    Raises ValueError for an output without a right answer.
    """
    items = []
    for number, output in enumerate(outputs):
        if output.written is None:
            raise ValueError(f"{output.where} has log-probabilities: name the task's files with --data")
        if output.gold is None:
            raise ValueError(f"{output.where} says no gold answer: name the task's files with --data")
        gold = form.choices.index(output.gold) if output.gold in form.choices else None
        items.append(
            Item(
                name=output.name or f"{name}:{number}",
                question=output.question or "",
                answer=output.gold,
                choices=form.choices if gold is not None else (),
                gold=gold,
                group=output.group,
            )
        )
    return Task(name, dataclasses.replace(form, kind="answer"), tuple(items))


def pair_up(task: Task, outputs: Sequence[Output]) -> list[tuple[Item, Output]]:
    """Each output with its item, in the task's order: by name, else by question, equal questions in turn.

    Raises ValueError for an output of no item, two of one, or one whose right answer is another than the task's.
    """
    by_name = {item.name: item for item in task.items}
    by_question: dict[str, list[Item]] = {}
    for item in task.items:
        by_question.setdefault(_plain(item.question), []).append(item)
    taken: dict[str, Output] = {}
    for output in outputs:
        if output.name in by_name:
            item = by_name[output.name]
        else:
            same = by_question.get(_plain(output.question or ""), []) if output.question else []
            item = next((one for one in same if one.name not in taken), None) or next(iter(same), None)
        if item is None:
            said = repr(output.name) if output.name else f"the question {(output.question or '')[:60]!r}"
            raise ValueError(f"{output.where}: {said} is no item of task {task.name!r}")
        if item.name in taken:
            raise ValueError(f"{output.where} answers {item.name} again (first: {taken[item.name].where}): remove one")
        if output.gold is not None and not _same(task.form, output.gold, item.answer):
            raise ValueError(f"{output.where} holds {output.gold!r} for right, {item.name} has {item.answer!r}")
        taken[item.name] = output
    return [(item, taken[item.name]) for item in task.items if item.name in taken]


def grade(task: Task, pairs: Sequence[tuple[Item, Output]]) -> list[Graded]:
    """Scores of every item. Raises ValueError for an output that does not fit the task's kind, or the others."""
    for _, output in pairs:
        if (output.written is None) != (pairs[0][1].written is None):
            raise ValueError(f"{output.where}: some outputs are written and some log-probabilities, grade them apart")
    return [_grade(task, item, output) for item, output in pairs]


def _grade(task: Task, item: Item, output: Output) -> Graded:
    if output.written is not None:
        if task.form.kind in ("pair", "text"):
            raise ValueError(f"{output.where} is written, and task {task.name!r} is scored by 'logprobs': give those")
        answer = answers.read_answer(task.form, output.written)
        return Graded(item, output, answer, answers.score(task.form, item, answer))
    kind = LIKELIHOOD_KINDS.get(task.form.kind)
    if kind is None:
        raise ValueError(f"{output.where} has log-probabilities, and task {task.name!r} is answered in words")
    asked, given = kind.requests(task, item, ""), output.likelihoods
    if len(given) not in (len(asked), len(item.choices) or 1):
        raise ValueError(f"{output.where} has {len(given)} log-probabilities, {item.name} asks for {len(asked)}")
    scores = kind.score(item, given)
    return Graded(item, output, None, {k: v for k, v in scores.items() if kind.needs.get(k) not in output.absent})


def metrics_of(task: Task, graded: Sequence[Graded]) -> dict[str, Metric]:
    """The figures that all of these items have the scores for."""
    written = graded[0].output.written is not None
    metrics = answers.metrics_of(task.form) if written else LIKELIHOOD_KINDS[task.form.kind].metrics
    return with_scores(metrics, [one.scores for one in graded])


def report(
    task: Task, graded: Sequence[Graded], *, confidence: float = 0.95, flagged: set[str] | None = None
) -> dict[str, Any]:
    """The summary of a task: figures with intervals, how many items have no output, and what guessing reaches; where
    items are ``flagged`` (`evals.flags`), how many, and the first figure of the clean ones and of those apart."""
    if not graded:
        raise ValueError(f"no output is of an item of task {task.name!r}")
    scores, metrics = [one.scores for one in graded], metrics_of(task, graded)
    found = {"task": task.name, **summarise(metrics, [one.item for one in graded], scores, confidence=confidence)}
    if task.split:
        found["split"] = task.split
    found["num_missing"] = len(task.items) - len(graded)
    if flagged is not None:
        clean, apart = split_by_flags([one.item for one in graded], flagged)
        found["flags"] = {
            part: {"num_items": len(places), **_first_figure(metrics, [graded[i] for i in places], confidence)}
            for part, places in (("clean", clean), ("flagged", apart))
        }
    if task.form.kind == "instruction":
        found["constraints"] = _by_constraint(graded, confidence)
    if task.chance is not None:
        found["chance"] = task.chance
    if task.majority is not None:
        found["majority"] = task.majority
    if "stated" in scores[0]:
        stated, right = (np.array([score[name] for score in scores]) for name in ("stated", "accuracy"))
        found["calibration_error"] = calibration_error(stated, right)["error"]
    return found


def _by_constraint(graded: Sequence[Graded], confidence: float) -> dict[str, Any]:
    """``strict`` and ``loose`` of each kind of constraint: the share that was kept."""
    found: dict[str, list[tuple[bool, bool]]] = {}
    for one in graded:
        for constraint, both in zip(one.item.constraints, kept(one.item.constraints, one.answer or ""), strict=True):
            found.setdefault(constraint.name, []).append(both)
    return {
        name: {"num": len(both)}
        | {
            way: share([float(one[place]) for one in both], confidence=confidence).record()
            for place, way in enumerate(("strict", "loose"))
        }
        for name, both in sorted(found.items())
    }


def _first_figure(metrics: Mapping[str, Metric], graded: Sequence[Graded], confidence: float) -> dict[str, Any]:
    if not graded:
        return {}
    name, metric = next(iter(metrics.items()))
    found = figure(metric, [one.item for one in graded], [one.scores for one in graded], confidence=confidence)
    return {name: found.record()}


def compare(
    metric: str, graded: Sequence[Graded], others: Sequence[Graded], *, confidence: float = 0.95
) -> dict[str, Any]:
    """``difference`` of a score between two systems on the items that both answered, with ``lower`` and ``upper`` of
    its paired interval, and ``p`` of McNemar's test where the scores are all 0 or 1; the same for each of ``groups``,
    if there are several.

    Raises ValueError where they share fewer than two items; a group of one is left out.
    """
    theirs: Mapping[str, Graded] = {one.item.name: one for one in others}
    both = [(one, theirs[one.item.name]) for one in graded if one.item.name in theirs]
    groups = group_places([one.item for one, _ in both])
    found = _difference(metric, both, confidence)
    if len(groups) > 1:
        found["groups"] = {
            group: _difference(metric, [both[i] for i in places], confidence)
            for group, places in groups.items()
            if len({both[i][0].item.cluster or i for i in places}) > 1
        }
    return found


def _difference(metric: str, both: Sequence[tuple[Graded, Graded]], confidence: float) -> dict[str, Any]:
    a, b = [one.scores[metric] for one, _ in both], [other.scores[metric] for _, other in both]
    found = paired_difference(a, b, [one.item.cluster for one, _ in both], confidence=confidence)
    record = {"difference": found.difference, "lower": found.lower, "upper": found.upper, "num_items": len(both)}
    return record | ({"p": mcnemar(a, b)} if set(a + b) <= {0.0, 1.0} else {})


def _plain(text: str) -> str:
    """Without white space, which systems set as they like."""
    return "".join(text.split())


def _same(form: Form, said: str, gold: str) -> bool:
    read = form.extraction.read(said, behind_cue=True)
    return form.extraction.agrees(read, gold) if read is not None else said.strip() == gold.strip()
