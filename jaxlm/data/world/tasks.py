"""Tasks over short strings of letters and small sums: how they are asked, what is right, and who may see which string.

What is held out is a property of the letters that are given (``held_out``), whatever the task, phrasing or seed: no
prompt and no line of text that is learnt from asks about a string that a held-out prompt asks about, or has it for an
answer. A wrong answer that is made up may be one.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LETTERS = "abcdefghijkl"


def _list(given: str) -> str:
    return "[" + ",".join(f'"{letter}"' for letter in given) + "]"


def _sum(given: str) -> str:
    a, b = given.split("+")
    return str(int(a) + int(b))


class Task(NamedTuple):
    """One kind of question."""

    asks: tuple[str, ...]
    """Phrasings of the prompt; ``{x}`` is what is given."""
    says: str
    """How the text that a model is pretrained on shows it; ``{y}`` is what is right."""
    right: Callable[[str], str]
    lengths: tuple[int, int]
    """Letters that are given: from, to. (0, 0): two numbers."""
    distinct: bool = True
    closes: bool = True
    """Whether a full stop may end the answer; not in formats that it would break."""


TASKS: dict[str, Task] = {
    "copy": Task(("Copy {x}.", "Say {x} again."), "{x} again is {y}.", lambda x: x, (3, 6)),
    "reverse": Task(("Reverse {x}.", "Turn {x} round."), "{x} turned round is {y}.", lambda x: x[::-1], (3, 5)),
    "count": Task(("Count {x}.", "How long is {x}?"), "{x} has {y} letters.", lambda x: str(len(x)), (2, 8), False),
    "sort": Task(("Sort {x}.", "Put {x} in order."), "{x} in order is {y}.", lambda x: "".join(sorted(x)), (3, 5)),
    "add": Task(("Add {x}.", "How much is {x}?"), "{x} makes {y}.", _sum, (0, 0)),
    "capitals": Task(("Write {x} in capitals.", "Raise {x}."), "{x} in capitals is {y}.", str.upper, (3, 6)),
    "list": Task(("List {x}.", "Give {x} as a list."), "{x} as a list is {y}", _list, (2, 4), closes=False),
    "down": Task(
        ("Sort {x} down.", "Sort {x} downwards."),
        "{x} from the top is {y}.",
        lambda x: "".join(sorted(x, reverse=True)),
        (3, 5),
    ),
}
FORMATS = ("capitals", "list")
"""Tasks that ask for a form."""
RARE = "down"
"""The task that conversations hardly show: what reinforcement learning is to find."""
SUMS = ((10, 90), (1, 3))
"""From, to (excluded) of the two numbers that are added."""


def held_out(given: str) -> bool:
    """Whether this string belongs to the held-out prompts: an eighth of all, by a hash of its letters in order. So what
    is right about it, a string of the same letters, is on its side too: "cab" turned round does not give "bac" away."""
    letters = given if "+" in given else "".join(sorted(given.lower()))
    return hashlib.blake2b(letters.encode(), digest_size=2).digest()[0] < 32


def draw_given(task: str, rng: np.random.Generator, *, for_test: bool) -> str:
    """What a question of the task is about, from the held-out strings or from the others."""
    kind = TASKS[task]
    while True:
        if kind.lengths == (0, 0):
            given = f"{rng.integers(*SUMS[0])}+{rng.integers(*SUMS[1])}"
        else:
            length = int(rng.integers(kind.lengths[0], kind.lengths[1] + 1))
            given = "".join(rng.choice(list(LETTERS), length, replace=not kind.distinct))
        if held_out(given) == for_test:
            return given
