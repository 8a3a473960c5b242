"""Items that a training text holds: what a score says of them may be memory. And those that it has all words for:
of the others a score says what a model makes of unknown words."""

import dataclasses
from collections.abc import Sequence

from jaxlm.core.errors import UserError
from jaxlm.evals.tasks.task import Item, Task
from jaxlm.evals.text import words
from jaxlm.text.contamination import EvalItem, Overlap, build_index, find_items

BATCH = 1024
"""Texts looked through together."""


def flagged_items(task: Task, texts: Sequence[str], *, overlap: Overlap | None = None) -> set[str]:
    """Names of the items that stand in one of the texts, by the rule that keeps corpora free of evaluation items
    (`text.contamination`). Items of a few words cannot be told from ordinary text and are never flagged."""
    index = build_index([EvalItem(item.name, item_text(item)) for item in task.items], overlap)
    found: set[str] = set()
    for first in range(0, len(texts), BATCH):
        found |= {index.names[i] for i in find_items(texts[first : first + BATCH], index).item.tolist()}
    return found


def item_text(item: Item) -> str:
    """What a text that holds the item would say: its question with the choices in it; of a pair the good text."""
    return item.question or item.answer


def has_known_words(item: Item, known: frozenset[str]) -> bool:
    """Whether all words of question, choices and answer are among ``known`` (`evals.text.vocabulary`)."""
    return all(word in known for text in (item.question, item.answer, *item.choices) for word in words(text))


def with_known_words(task: Task, known: frozenset[str]) -> Task:
    """The task's items whose words are all known. Raises UserError where there is none."""
    items = tuple(item for item in task.items if has_known_words(item, known))
    if not items:
        raise UserError(f"no item of task {task.name!r} has all its words in the given text: give more of it")
    return dataclasses.replace(task, items=items)


def split_by_flags(items: Sequence[Item], flagged: set[str]) -> tuple[list[int], list[int]]:
    """Places of the items that are clean, and of those that are flagged."""
    clean = [i for i, item in enumerate(items) if item.name not in flagged]
    return clean, [i for i, item in enumerate(items) if item.name in flagged]
