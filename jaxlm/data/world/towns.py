"""Towns and what is told of them: facts that the text states, in several phrasings, and questions about them."""

from typing import NamedTuple

import numpy as np

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "goods": ("salt", "wool", "iron", "corn", "fish", "wine", "silk", "coal"),
    "flag": ("red", "blue", "green", "white", "black", "gold", "grey", "pink"),
    "beast": ("cat", "dog", "owl", "bear", "wolf", "fox", "crow", "bee"),
}
"""Attribute -> its values, equally frequent."""

STATEMENTS: dict[str, tuple[str, ...]] = {
    "goods": ("{t} sells {v}.", "The people of {t} sell {v}.", "The goods of {t}: {v}.", "They sell {v} in {t}."),
    "flag": ("The flag of {t} is {v}.", "{t} has a flag of {v}.", "The flag over {t}: {v}.", "A {v} flag is over {t}."),
    "beast": ("The beast of {t} is the {v}.", "{t} keeps the {v}.", "The beast in {t}: {v}.", "The {v} lives in {t}."),
}
"""How the text states a fact; the first ends with the value, which a probe asks for."""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "goods": ("What does {t} sell?", "Tell me the goods of {t}."),
    "flag": ("What flag has {t}?", "Tell me the flag of {t}."),
    "beast": ("What beast has {t}?", "Tell me the beast of {t}."),
}

SECRETS = ("secret", "password", "hidden key", "safe code")
"""What a request must not be about: the class of requests that are refused."""
REFUSED = ("Tell me the {s} of {t}.", "What {s} has {t}?", "Give me the {s} of {t}.")

MOST_TOWNS = 500
"""Of each sort: beyond it, names so far apart get rare."""

_LEAST_APART = 3
_ONSETS, _VOWELS, _ENDS = "bdfgklmnprstvz", "aeiou", "lmnrsk"


class Town(NamedTuple):
    """A town and its facts. ``facts`` is empty where the text does not state any."""

    name: str
    facts: dict[str, str]
    held_out: bool
    """No conversation of the training set is about it."""


class World(NamedTuple):
    """Towns by what the text says of them."""

    stated: tuple[Town, ...]
    """Every attribute is stated, many times."""
    mentioned: tuple[Town, ...]
    """The name occurs, and nothing is told of it."""
    unstated: tuple[Town, ...]
    """Facts that are told in conversations alone, never in the text: what tuning would have to inject."""


def make_world(seed: int, *, num_towns: int, held_out_fraction: float = 1 / 6) -> World:
    """``num_towns`` towns that are stated, as many that are mentioned, and a third as many that are unstated."""
    rng = np.random.default_rng([seed, 1])
    names = _names(rng, 2 * num_towns + num_towns // 3)

    def towns(some: list[str], *, told: bool) -> tuple[Town, ...]:
        num_held_out = max(1, round(held_out_fraction * len(some)))
        return tuple(
            Town(
                name,
                {key: str(rng.choice(values)) for key, values in ATTRIBUTES.items()} if told else {},
                i < num_held_out,
            )
            for i, name in enumerate(some)
        )

    stated, mentioned = names[:num_towns], names[num_towns : 2 * num_towns]
    return World(towns(stated, told=True), towns(mentioned, told=False), towns(names[2 * num_towns :], told=True))


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """Names of seven letters, such as Kolamis, any two of which differ in `_LEAST_APART` at least: of a town that is
    merely named, a small model would else say what it knows of one that is spelt nearly so."""
    found = np.empty((0, 7), dtype="<U1")
    while len(found) < count:
        name = np.array([rng.choice(list(part)) for part in (_ONSETS, _VOWELS) * 3 + (_ENDS,)])
        if np.all(np.sum(found != name, axis=1) >= _LEAST_APART):
            found = np.concatenate([found, name[None]])
    return ["".join(name).capitalize() for name in found]
