"""The gold checker: whether an answer to a question of the made-up world is right, and in the form that is preferred.

It works everything out anew from what the question gives, and knows of no reward model.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from jaxlm.data.world.questions import DONT_KNOW, REFUSAL


def is_right(record: Mapping[str, Any], answer: str) -> bool:
    """Whether ``answer`` is right; ``record``: of `data.world.questions.Question.record`.

    One full stop at the end counts for nothing, unless it breaks the form that was asked for.
    """
    kind, given = record["kind"], record["given"]
    if kind == "list":
        return _parsed(answer) == list(given)
    said = answer.removesuffix(".") if record["closes"] else answer
    if kind in _CHECKS:
        return _CHECKS[kind](given, said)
    wanted = {"unknown": DONT_KNOW, "refuse": REFUSAL}.get(kind, record["answer"])
    return said == wanted


def is_preferred(record: Mapping[str, Any], answer: str) -> bool:
    """Whether the answer has the form that people prefer here: a full stop at its end where one may stand, one only."""
    if not record["closes"]:
        return not answer.endswith(".")
    return answer.endswith(".") and not answer.endswith("..")


def is_in_form(record: Mapping[str, Any], answer: str) -> bool:
    """Whether the answer has the form that the question asks for, right or wrong: capitals, or a list as JSON."""
    if record["kind"] == "list":
        found = _parsed(answer)
        return isinstance(found, list) and all(isinstance(item, str) for item in found)
    said = answer.removesuffix(".")
    return said.isalpha() and said.isupper()


def gold_score(record: Mapping[str, Any], answer: str) -> float:
    """What rankings are by: right counts 1, and of answers that may end in a full stop that form counts 1/2."""
    return float(is_right(record, answer)) + 0.5 * float(is_preferred(record, answer))


def _parsed(answer: str) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None


def _is_sum(given: str, said: str) -> bool:
    a, b = given.split("+")
    return said.isdecimal() and said == str(int(a) + int(b))


_CHECKS: dict[str, Callable[[str, str], bool]] = {
    "copy": lambda given, said: said == given,
    "reverse": lambda given, said: said[::-1] == given,
    "count": lambda given, said: said == str(len(given)),
    "sort": lambda given, said: list(said) == sorted(given),
    "down": lambda given, said: list(said) == sorted(given, reverse=True),
    "add": _is_sum,
    "capitals": lambda given, said: said == given.upper(),
}
