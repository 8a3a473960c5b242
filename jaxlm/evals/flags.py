"""Items that a training text holds: what a score says of them may be memory."""

from collections.abc import Sequence

from jaxlm.evals.tasks.task import Item, Task
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


def split_by_flags(items: Sequence[Item], flagged: set[str]) -> tuple[list[int], list[int]]:
    """Places of the items that are clean, and of those that are flagged."""
    clean = [i for i, item in enumerate(items) if item.name not in flagged]
    return clean, [i for i, item in enumerate(items) if item.name in flagged]
