"""How many tokens have to be changed to make one answer of another: a metric with credit for what is nearly right."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

# Words stay whole; digits, Han, Kana and signs stand alone, as most tokenizers have them.
_TOKEN = re.compile(
    r"\d|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\d_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+|[^\w\s]|_"
)


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The least number of insertions, deletions and replacements that turn one sequence into the other (Levenshtein).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = np.arange(len(b) + 1)
    steps = np.arange(len(b) + 1)
    for i, one in enumerate(a, start=1):
        replaced = row[:-1] + np.fromiter((one != other for other in b), bool, len(b))
        fresh = np.concatenate([[i], np.minimum(row[1:] + 1, replaced)])
        # Insertions along the row: the least of what stands to the left, one more for each step.
        row = np.minimum.accumulate(fresh - steps) + steps
    return int(row[-1])


def answer_tokens(text: str) -> list[str]:
    """The pieces of an answer that are compared, in lower case: no tokenizer, so that all models are measured alike.

    >>> answer_tokens("The answer is 42.")
    ['the', 'answer', 'is', '4', '2', '.']
    """
    return _TOKEN.findall(text.lower())


def token_edit_distance(answer: str, gold: str) -> float:
    """Edits between the tokens of two answers, as a share of the longer one's tokens: 0 = the same, 1 = nothing shared.

    >>> token_edit_distance("1247", "1347")
    0.25
    """
    a, b = answer_tokens(answer), answer_tokens(gold)
    return edit_distance(a, b) / max(len(a), len(b), 1)
