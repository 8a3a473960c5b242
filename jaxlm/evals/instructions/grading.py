"""Whether an answer keeps to its constraints: strictly, and with what politeness puts around it allowed for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxlm.evals.instructions.checks import CHECKS, check_arguments
from jaxlm.evals.summary import Metric

METRICS = {
    "prompt_strict": Metric("prompt_strict", share=True),
    "prompt_loose": Metric("prompt_loose", share=True),
    "instruction_strict": Metric("kept_strict", per="asked"),
    "instruction_loose": Metric("kept_loose", per="asked"),
}
"""Share of prompts whose every constraint is kept, and of all constraints; strictly and loosely."""


@dataclass(frozen=True)
class Constraint:
    """One thing that an answer must do. Raises ValueError for an unknown one, or arguments that do not fit."""

    name: str
    """Of `checks.CHECKS`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_arguments(self.name, self.arguments)

    def holds(self, text: str) -> bool:
        """Whether a text keeps to it; an empty one keeps to nothing."""
        return bool(text.strip()) and CHECKS[self.name].holds(text, **self.arguments)


def variants(text: str) -> list[str]:
    """The text as it is, and without what models put around an answer: its first line ("Sure, here it is:"), its last
    one, both; each also without Markdown's asterisks (Zhou et al. 2023, section 2.3)."""
    lines = text.split("\n")
    shortened = [lines, lines[1:], lines[:-1], lines[1:-1]]
    whole = ["\n".join(part).strip() if len(part) < len(lines) else text for part in shortened]
    return [*whole, *(one.replace("*", "") for one in whole)]


def kept(constraints: Sequence[Constraint], text: str) -> list[tuple[bool, bool]]:
    """(strictly, loosely) for each constraint; loosely: by any of the `variants`."""
    forms = variants(text)
    return [(one.holds(text), any(map(one.holds, forms))) for one in constraints]


def score(constraints: Sequence[Constraint], text: str) -> dict[str, float]:
    """Scores of one answer, for `METRICS`."""
    found = kept(constraints, text)
    strict, loose = sum(one for one, _ in found), sum(one for _, one in found)
    return {
        "prompt_strict": float(strict == len(found)),
        "prompt_loose": float(loose == len(found)),
        "kept_strict": float(strict),
        "kept_loose": float(loose),
        "asked": float(len(found)),
    }
