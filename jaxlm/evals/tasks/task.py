"""What a task is: items with their right answers, how a model is asked, and how what it says is scored.

One value serves three users. A likelihood scorer asks `requests(task, item, prompt)` (see `evals.tasks.kinds`) and
hands the replies to `score`; a generating scorer lets a strategy (`evals.strategies`) write prompts and reads the
answers; ``tools.score`` reads the answers that another system wrote. All end in the same scores of items and summary.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from jaxlm.evals.extraction import Extraction
from jaxlm.evals.instructions.grading import Constraint
from jaxlm.evals.prompting import Template, draw_shots

Kind = Literal["choice", "pair", "cloze", "text", "answer", "instruction"]
"""``choice``: the likeliest of several continuations. ``pair``: which of two texts is likelier. ``cloze``: a
continuation that can be only one. ``text``: the likelihood of all of it. ``answer``: written, and read off.
``instruction``: written, and checked against constraints."""

Order = Literal["given", "drawn", "balanced"]


@dataclass(frozen=True)
class Item:
    """One question."""

    name: str
    """Where it stands, once in its task: "mmlu/astronomy:17"."""
    question: str
    answer: str = ""
    """The right answer as it is written behind the question; empty for ``text`` alone."""
    choices: tuple[str, ...] = ()
    """What there is to choose from; of a pair the good text and the bad one."""
    gold: int | None = None
    """Which choice is right."""
    solution: str = ""
    """The steps that lead to the answer, if known, with the white space that stands between them and it."""
    group: str = ""
    """Subject, paradigm or subtask: scores are given for each."""
    cluster: str = ""
    """What it shares with other items, such as a passage; "" = nothing."""
    constraints: tuple[Constraint, ...] = ()
    """What an answer must keep to, in place of a right answer."""

    def __post_init__(self) -> None:
        if self.gold is not None and not 0 <= self.gold < len(self.choices):
            raise ValueError(
                f"{self.name}: choice {self.gold} is not among its {len(self.choices)} choices (0 = first)"
            )


@dataclass(frozen=True)
class Form:
    """How the items of a task are put and scored: all of a task but its items."""

    kind: Kind
    template: Template = field(default_factory=Template)
    instruction: str = ""
    """What stands before everything."""
    extraction: Extraction = field(default_factory=lambda: Extraction("exact"))
    """How a written answer is read."""
    choices: tuple[str, ...] = ()
    """What every item can be answered by, if that is the same for all."""
    cue: str = ""
    """What asks for the answer itself, of a model that is shown no example; "": the layout does."""
    reasoning: str = "Let's think step by step."
    """What asks for steps, of a model that is shown none (Kojima et al. 2022)."""
    cue_after_steps: str = "Therefore, the answer is"
    """What then asks for the answer."""
    opening: str = ""
    """What the steps of worked examples begin with."""
    lead: str = "The answer is "
    """What stands between the steps and the answer in worked examples."""
    stop: tuple[str, ...] = ("\n\nQ:",)
    """Where an answer ends, with steps or without."""
    steps_stop: tuple[str, ...] | None = None
    """Where steps alone end, behind which the answer is asked for; None: as answers do."""
    max_new_tokens: int = 32
    """For an answer alone."""
    max_reasoning_tokens: int = 256
    unconditional: str | None = None
    """``choice``: the context in which choices are scored once more, to divide by (Brown et al. 2020, section 2.4)."""


@dataclass(frozen=True)
class Task:
    """Items of one form, and the examples that their prompts may show.

    Raises ValueError for no items, two of one name, and an item without what its kind needs.
    """

    name: str
    form: Form
    items: tuple[Item, ...]
    shots: tuple[Item, ...] = ()
    """Where they name groups, an item sees those of its own."""
    instructions: Mapping[str, str] = field(default_factory=dict)
    """By group, in place of the form's."""
    split: str = ""
    """Which part of the published set the items are, where there is a choice."""

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError(f"task {self.name!r} has no items")
        names: set[str] = set()
        for item in self.items:
            if item.name in names:
                raise ValueError(f"{item.name} is there twice: names of items tell them apart")
            names.add(item.name)
            if self.form.kind == "instruction":
                if not item.constraints:
                    raise ValueError(f"{item.name} has no constraints: nothing can be checked")
            elif self.form.kind != "text" and not item.answer.strip():
                raise ValueError(f"{item.name} has no gold answer")
            if self.form.kind in ("choice", "pair") and item.gold is None:
                raise ValueError(f"{item.name} does not say which choice is right")
            if self.form.kind in ("choice", "pair") and len(item.choices) < 2:
                raise ValueError(f"{item.name} has {len(item.choices)} choices: give two or more")

    def instruction(self, item: Item) -> str:
        """What stands before the examples."""
        return self.instructions.get(item.group, self.form.instruction)

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing, None where there is nothing to choose from."""
        sizes = [len(item.choices) for item in self.items]
        return float(np.mean([1 / size for size in sizes])) if all(sizes) else None

    @property
    def majority(self) -> float | None:
        """The accuracy of always giving each group's commonest answer; None where no one answer is right."""
        if self.form.kind in ("pair", "text", "instruction"):
            return None
        said = Counter((item.group, item.answer) for item in self.items)
        commonest = {group: count for (group, _), count in sorted(said.items(), key=lambda one: one[1])}
        return sum(commonest.values()) / len(self.items)


class Request(NamedTuple):
    """How likely is ``continuation`` behind ``context``? The context may be empty: then behind the start symbol."""

    context: str
    continuation: str


class Likelihood(NamedTuple):
    """What a model says to a request."""

    logprob: float
    """Natural log-probability of the continuation."""
    num_tokens: int
    """Tokens of the continuation."""
    num_bytes: int
    """UTF-8 bytes of the continuation, white space in front not counted."""
    is_greedy: bool
    """Whether each of its tokens is the model's first choice."""
    token_logprobs: tuple[float, ...] = ()
    """Of each token, where the model says it."""
    truncated: int = 0
    """Tokens of the context, the first ones, that had no room."""


def choose_shots(task: Task, item: Item, count: int, *, seed: int = 0, order: Order = "given") -> list[Item]:
    """``count`` examples for an item's prompt, from its own group where examples name groups, never the item itself.

    ``order``: ``given``: the first ones, as the task's authors chose them; ``drawn``: by the seed, the same for all
    items of a group; ``balanced``: by the seed, the answers in turn, but as ``drawn`` for a cloze, whose answers are
    open. Raises ValueError where there are too few.
    """
    if count == 0:
        return []
    own = [shot for shot in task.shots if shot.group == item.group] or list(task.shots)
    others = [shot.name != item.name and shot.question != item.question for shot in own]
    if order == "balanced" and task.form.kind != "cloze":
        own = [shot for shot, other in zip(own, others, strict=True) if other]
        chosen = [own[i] for i in draw_shots([shot.answer for shot in own], count, seed)]
    else:
        places = range(len(own)) if order == "given" else np.random.default_rng(seed).permutation(len(own)).tolist()
        chosen = [own[i] for i in places if others[i]][:count]
    if len(chosen) < count:
        raise ValueError(f"{item.name}: {count} examples are asked for and task {task.name!r} has {len(chosen)}")
    return chosen


def direct_prompt(task: Task, item: Item, shots: Sequence[Item]) -> str:
    """Instruction, examples with their answers, the question; the answer is to follow behind the template's gap."""
    done = [(shot.question, shot.answer) for shot in shots]
    return task.form.template.prompt(done, item.question, instruction=task.instruction(item))
