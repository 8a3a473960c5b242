"""What a cleaning recipe is made of: edits, which change a text, and rules, which keep it or give a reason why not.

A recipe is a tuple of steps, in order. A step is a frozen dataclass whose fields are its thresholds, so a recipe is a
value: it can be compared, printed and written into a report.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxlm.text.column import TextColumn


class Verdicts(NamedTuple):
    """What a rule says of n texts."""

    reasons: tuple[str, ...]
    """Why a text may be removed, for a person: "fewer than 50 words"."""
    reason_n: np.ndarray
    """Place in ``reasons``, int16 [n]; -1: the text is kept."""
    value_n: np.ndarray
    """The figure that decided, f32 [n]; nan where the text is kept."""

    @property
    def kept_n(self) -> np.ndarray:
        """bool [n]."""
        return self.reason_n < 0


@runtime_checkable
class Edit(Protocol):
    """Changes texts one by one.

    Law: an edit that has run once finds nothing on a second run over its own output, unless its docstring says more.
    """

    @property
    def name(self) -> str:
        """As it stands in reports: "repair_unicode"."""
        ...

    def edit(self, text: str) -> tuple[str, int]:
        """(the new text, the number of changes); "" if nothing is left. No change: the text itself and 0."""
        ...


@runtime_checkable
class Rule(Protocol):
    """Judges a batch of texts at once.

    Law: a verdict depends on its own text alone, never on its neighbours in the batch.
    """

    @property
    def name(self) -> str:
        """As it stands in reports: "gopher_quality"."""
        ...

    def judge(self, texts: TextColumn) -> Verdicts:
        """One verdict a text; where several thresholds are missed the first of ``reasons`` counts."""
        ...


Step = Edit | Rule
Recipe = tuple[Step, ...]


class Check(NamedTuple):
    """One threshold of a rule, over n texts."""

    reason: str
    value_n: np.ndarray
    fails_n: np.ndarray
    """bool [n]."""


def below(reason: str, value_n: np.ndarray, least: float) -> Check:
    """Fails where the value is less than ``least``; nan fails nothing."""
    return Check(reason, value_n, value_n < least)


def above(reason: str, value_n: np.ndarray, most: float) -> Check:
    """Fails where the value is more than ``most``; nan fails nothing."""
    return Check(reason, value_n, value_n > most)


def decide(checks: Sequence[Check]) -> Verdicts:
    """The verdicts of a rule: the first check that fails gives reason and value."""
    count = len(checks[0].value_n)
    reason_n, value_n = np.full(count, -1, np.int16), np.full(count, np.nan, np.float32)
    for index, check in enumerate(checks):
        new = check.fails_n & (reason_n < 0)
        reason_n[new] = index
        value_n[new] = check.value_n[new]
    return Verdicts(tuple(check.reason for check in checks), reason_n, value_n)


def ratio(part_n: np.ndarray, whole_n: np.ndarray) -> np.ndarray:
    """part / whole, float64; 0 where the whole is 0."""
    return part_n / np.maximum(whole_n, 1)


def check_share(owner: object, **shares: float) -> None:
    """ValueError unless each share lies in 0 .. 1."""
    for name, value in shares.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value} of {type(owner).__name__} is no share: use 0 .. 1")
