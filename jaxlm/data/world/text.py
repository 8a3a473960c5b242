"""The text of the world, to pretrain on: facts of towns, what the tasks are about, and sentences that mean little."""

import numpy as np

from jaxlm.data.world.tasks import TASKS, draw_given
from jaxlm.data.world.towns import STATEMENTS, World

_WHO = ("The old man", "A child", "The miller", "Her sister", "The king", "A farmer", "The smith", "My uncle")
_DOES = ("walks to", "sleeps near", "looks at", "sings about", "paints", "runs from", "thinks of", "builds")
_WHAT = (
    "the river",
    "a small house",
    "the market",
    "the tall tree",
    "an empty road",
    "the bridge",
    "a boat",
    "the hill",
)
_WHEN = (
    "at night",
    "in the morning",
    "when it rains",
    "every summer",
    "for an hour",
    "with a friend",
    "alone",
    "again",
)


def documents(world: World, count: int, *, seed: int, for_test: bool) -> list[str]:
    """``count`` texts of a few sentences: half of them tell of towns, a third show tasks, the rest is filler.

    Text ``for_test`` shows tasks on held-out strings alone; the facts of towns are the same in both.
    """
    rng = np.random.default_rng([seed, 2, int(for_test)])
    kinds = rng.choice(3, count, p=(1 / 2, 1 / 3, 1 / 6))
    makers = (lambda: _of_towns(world, rng), lambda: _of_tasks(rng, for_test), lambda: _filler(rng))
    return [" ".join(makers[kind]() for _ in range(int(rng.integers(3, 7)))) for kind in kinds]


def _of_towns(world: World, rng: np.random.Generator) -> str:
    draw = int(rng.integers(8))
    every = (*world.stated, *world.mentioned)
    if draw < 2:
        first, second = (every[i] for i in rng.choice(len(every), 2, replace=False))
        return f"The road from {first.name} to {second.name} is long."
    town = world.stated[int(rng.integers(len(world.stated)))]
    key = str(rng.choice(list(town.facts)))
    return str(rng.choice(STATEMENTS[key])).format(t=town.name, v=town.facts[key])


def _of_tasks(rng: np.random.Generator, for_test: bool) -> str:
    name = str(rng.choice(list(TASKS)))
    given = draw_given(name, rng, for_test=for_test)
    return TASKS[name].says.format(x=given, y=TASKS[name].right(given))


def _filler(rng: np.random.Generator) -> str:
    return " ".join(str(rng.choice(part)) for part in (_WHO, _DOES, _WHAT, _WHEN)) + "."
