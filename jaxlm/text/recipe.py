"""A recipe over a batch of texts: what is left of each, and which step removed it and why."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.text.column import TextColumn
from jaxlm.text.steps import Edit, Rule, Step

NOTHING_LEFT = "nothing left"
"""The reason of an edit that leaves no text."""


class Removal(NamedTuple):
    """Why a step removed a text."""

    reason: str
    value: float
    """The figure that decided; nan where an edit left nothing."""


class StepResult(NamedTuple):
    """What one step did to a batch. Texts are known by their place in it."""

    place: int
    """Of the step in the recipe."""
    before: list[int]
    """The texts that it met."""
    after: list[int]
    """Those that are left."""
    changes: dict[int, int]
    """Texts that it changed -> number of changes."""
    removed: dict[int, Removal]


def run_steps(texts: list[str], recipe: Sequence[Step]) -> Iterator[StepResult]:
    """Takes the steps one by one, changing ``texts`` in place; a step runs when its result is asked for."""
    alive = list(range(len(texts)))
    column: TextColumn | None = None
    rows: dict[int, int] = {}
    for place, step in enumerate(recipe):
        changes: dict[int, int] = {}
        removed: dict[int, Removal] = {}
        if isinstance(step, Edit):
            for i in alive:
                new, count = step.edit(texts[i])
                if count:
                    texts[i], changes[i] = new, count
                if not texts[i].strip():
                    removed[i] = Removal(NOTHING_LEFT, float("nan"))
            column = None if changes else column
        elif isinstance(step, Rule):
            # Neighbouring rules share a column, though some of its texts may be gone by now.
            if column is None or 2 * len(alive) < len(rows):
                column, rows = TextColumn([texts[i] for i in alive]), {i: row for row, i in enumerate(alive)}
            verdicts = step.judge(column)
            if (verdicts.reason_n >= 0).any():
                for i in alive:
                    reason = int(verdicts.reason_n[rows[i]])
                    if reason >= 0:
                        removed[i] = Removal(verdicts.reasons[reason], float(verdicts.value_n[rows[i]]))
        else:
            raise TypeError(f"step {place} of the recipe, {step!r}, is neither an Edit nor a Rule")
        before, alive = alive, [i for i in alive if i not in removed] if removed else alive
        yield StepResult(place, before, alive, changes, removed)


class Fate(NamedTuple):
    """What became of one text."""

    text: str
    """As it was when it was removed, or as it came out; "" where an edit left nothing."""
    step: int
    """Place in the recipe of the step that removed it; -1: kept."""
    reason: str
    """"" where it is kept."""
    value: float
    """The figure that decided; nan where it is kept or an edit left nothing."""
    changes: tuple[int, ...]
    """Changes by each step of the recipe: 0 for rules, and for steps that it did not reach."""


def clean(texts: Sequence[str], recipe: Sequence[Step]) -> list[Fate]:
    """One fate a text, in order; each text meets the steps in order until one removes it."""
    current = list(texts)
    changes = np.zeros((len(current), len(recipe)), np.int64)
    ends: dict[int, tuple[int, str, float]] = {}
    for result in run_steps(current, recipe):
        for i, count in result.changes.items():
            changes[i, result.place] = count
        ends |= {i: (result.place, why.reason, why.value) for i, why in result.removed.items()}
    kept = (-1, "", float("nan"))
    return [Fate(current[i], *ends.get(i, kept), tuple(changes[i].tolist())) for i in range(len(current))]
