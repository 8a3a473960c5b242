"""Rewards from Python functions: found by name, called under a time limit, their answers checked one by one.

A function is called with three lists of one length: ``prompts`` (the text of the last turn before the answer),
``answers`` (what the policy wrote, without the end symbol) and ``records`` (the objects of the file of prompts, with
whatever fields it has for a checker); it returns a number for each answer.
"""

import importlib.util
import math
import numbers
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from jaxlm.core.errors import UserError
from jaxlm.text.chat.encoding import ChatFormat

RewardFunction = Callable[[list[str], list[str], list[dict[str, Any]]], Sequence[float]]


class Answer(NamedTuple):
    """One answer to be judged."""

    prompt: str
    text: str
    record: dict[str, Any]
    where: str
    """File and line of the prompt, for errors."""


def find_function(name: str, given: Mapping[str, RewardFunction], *, field: str) -> RewardFunction:
    """``file.py:function``, or the name of a function that the caller gave.

    Raises UserError where there is none, or where the file cannot be run.
    """
    if name in given:
        return given[name]
    path, colon, function = name.rpartition(":")
    if not colon:
        known = f" (given are {', '.join(given)})" if given else ""
        raise UserError(f"{field}={name!r} names no function{known}: give FILE.py:FUNCTION")
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{field}={name!r}: there is no file {file}")
    spec = importlib.util.spec_from_file_location(f"jaxlm_reward_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{field}={name!r}: {file} is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{field}={name!r}: {file} fails: {_short(error)}") from error
    found: Any = getattr(module, function, None)
    if not callable(found):
        raise UserError(f"{field}={name!r}: {file} has no function {function!r}")
    return cast(RewardFunction, found)


def call_function(fn: RewardFunction, answers: Sequence[Answer], *, name: str, time_limit: float) -> list[float]:
    """The reward of each answer.

    Raises UserError, naming the record, where the function raises, takes longer than ``time_limit`` seconds for all, or
    returns what is no list of finite numbers. A function that hangs is left behind in its thread, which does not keep
    the process from ending.
    """
    outcome = _attempt(fn, answers, time_limit)
    if outcome.kind == "value":
        return _checked(outcome.value, answers, name)
    # Which answer was it? One at a time, until one does it again, in as much time as all had.
    deadline = time.monotonic() + time_limit
    for answer in answers:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        alone = _attempt(fn, [answer], left)
        if alone.kind != "value":
            raise UserError(
                f"reward {name!r} {_said(alone, time_limit)} for an answer to {answer.where}{_mend(answer)}"
            )
    raise UserError(
        f"reward {name!r} {_said(outcome, time_limit)} for {len(answers)} answers together, beginning with "
        f"{answers[0].where}, and for none of those tried alone: mend the function, or raise its time_limit"
    )


class _Outcome(NamedTuple):
    kind: str
    """value, error or hang."""
    value: Any = None


def _attempt(fn: RewardFunction, answers: Sequence[Answer], time_limit: float) -> _Outcome:
    found: list[_Outcome] = []

    def work() -> None:
        try:
            # Records are the function's own to write in: what it does to them must not reach the next rollout.
            records = [dict(one.record) for one in answers]
            found.append(_Outcome("value", fn([one.prompt for one in answers], [one.text for one in answers], records)))
        except Exception as error:
            found.append(_Outcome("error", error))
        except SystemExit as error:
            found.append(_Outcome("error", error))

    thread = threading.Thread(target=work, daemon=True, name="reward function")
    thread.start()
    thread.join(time_limit)
    return found[0] if found else _Outcome("hang")


def _checked(values: Any, answers: Sequence[Answer], name: str) -> list[float]:
    try:
        rewards = list(values)
    except TypeError:
        raise UserError(
            f"reward {name!r} returned {type(values).__name__}, no list: give one number for each answer"
        ) from None
    if len(rewards) != len(answers):
        raise UserError(
            f"reward {name!r} returned {len(rewards)} numbers for {len(answers)} answers: give one for each"
        )
    for value, answer in zip(rewards, answers, strict=True):
        is_number = isinstance(value, numbers.Real) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)
        if not is_number or not math.isfinite(float(value)):
            raise UserError(
                f"reward {name!r} returned {value!r:.40} for an answer to {answer.where}, no finite number"
                f"{_mend(answer)}"
            )
    return [float(value) for value in rewards]


def _said(outcome: _Outcome, time_limit: float) -> str:
    if outcome.kind == "hang":
        return f"took longer than its time_limit={time_limit:g} seconds"
    return f"raised {_short(outcome.value)}"


def _mend(answer: Answer) -> str:
    text = answer.text if len(answer.text) <= 60 else answer.text[:60] + "..."
    return f" (the answer was {text!r}): mend the function, and the same command goes on"


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.160}".rstrip(": ")


def answer_text(form: ChatFormat, prompt_ids: Sequence[int], tokens: Sequence[int]) -> str:
    """What the tokens say after the prompt, without the end symbol."""
    said = [*tokens]
    while said and said[-1] in form.answer_ends:
        said.pop()
    tokenizer = form.tokenizer
    before, whole = tokenizer.decode(prompt_ids), tokenizer.decode([*prompt_ids, *said])
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(said)
