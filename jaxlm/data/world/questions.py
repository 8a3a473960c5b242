"""Questions with their right answers: of tasks, of facts, of what nobody told, and of what must not be told."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data.world.tasks import RARE, TASKS, draw_given
from jaxlm.data.world.towns import ATTRIBUTES, QUESTIONS, REFUSED, SECRETS, Town, World

DONT_KNOW = "I do not know"
REFUSAL = "I will not tell"

TRAINED = tuple(name for name in TASKS if name != RARE)
"""Tasks that conversations show."""
KINDS = (*TASKS, "fact", "unknown", "refuse")
"""All kinds of questions."""


class Question(NamedTuple):
    """A prompt with its right answer, without a full stop."""

    kind: str
    """One of `KINDS`."""
    prompt: str
    answer: str
    given: str
    """Of a task, what it is about; of a fact, its attribute."""
    closes: bool = True
    """Whether a full stop may end the answer."""

    def record(self) -> dict[str, Any]:
        """As a line of a file of prompts, for `evals.gold`."""
        return {
            "prompt": self.prompt, "kind": self.kind, "given": self.given, "answer": self.answer, "closes": self.closes
        }  # fmt: skip


class Asker:
    """Draws questions about what is learnt from, or about what is held out (``for_test``)."""

    def __init__(self, world: World, seed: int, *, for_test: bool):
        self.world, self.for_test = world, for_test
        self.rng = np.random.default_rng([seed, 3, int(for_test)])

    def ask(self, kind: str) -> Question:
        """A question of a kind."""
        if kind in TASKS:
            return self._task(kind, None)
        if kind == "refuse":
            every = (*self.world.stated, *self.world.mentioned)
            town, secret = self._town(every), self._one(SECRETS)
            return Question(kind, self._one(REFUSED).format(s=secret, t=town.name), REFUSAL, secret)
        town = self._town(self.world.stated if kind == "fact" else self.world.mentioned)
        key = self._one(list(ATTRIBUTES))
        return Question(kind, self._one(QUESTIONS[key]).format(t=town.name), town.facts.get(key, DONT_KNOW), key)

    def ask_evenly(self, kind: str, count: int) -> list[Question]:
        """``count`` questions of a task, its phrasings in turn: of a dozen, chance would leave one to so few that
        nobody learns what it asks for."""
        asks = TASKS[kind].asks
        return [self._task(kind, asks[i % len(asks)]) for i in range(count)]

    def ask_different(self, kind: str, count: int) -> list[Question]:
        """Up to ``count`` questions of a kind with different prompts."""
        found: dict[str, Question] = {}
        for _ in range(20 * count):
            if len(found) == count:
                break
            question = self.ask(kind)
            found.setdefault(question.prompt, question)
        return list(found.values())

    def told(self, town: Town, key: str) -> Question:
        """The first question about an attribute of a town, answered by its facts."""
        return Question("fact", QUESTIONS[key][0].format(t=town.name), town.facts[key], key)

    def _town(self, towns: Sequence[Town]) -> Town:
        return self._one([town for town in towns if town.held_out == self.for_test])

    def _task(self, kind: str, phrasing: str | None) -> Question:
        """A question of a task, in this phrasing or in any."""
        task = TASKS[kind]
        given = draw_given(kind, self.rng, for_test=self.for_test)
        asked = (phrasing or self._one(task.asks)).format(x=given)
        return Question(kind, asked, task.right(given), given, task.closes)

    def _one(self, some: Sequence[Any]) -> Any:
        return some[int(self.rng.integers(len(some)))]
