"""Which of two answers is better? Judged by any numbers (a reward model's), or by a model that writes, in both orders.

A judge that writes is asked twice, each answer once in front: judges prefer the first (or the second) place. Where both
say the same, that counts; where they contradict each other, or call it a tie, it is a draw.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.evals.extraction import Extraction
from jaxlm.evals.intervals import Interval, mean, share
from jaxlm.evals.strategies import Ask

TEMPLATE = """Here are two answers to one request. Which one serves the request better? Length and order do not count.

Request: {prompt}

Answer A: {first}

Answer B: {second}

Better answer (A, B, or C for equally good):"""
_LETTER = Extraction("letter", "ABC")


class Pair(NamedTuple):
    """Two systems' answers to one prompt."""

    name: str
    prompt: str
    answer: str
    """Of the model."""
    reference: str
    cluster: str = ""


class Judgement(NamedTuple):
    """What came of one pair."""

    preference: float | None
    """1 = the model's answer, 0 = the reference's, 1/2 = a draw; None: nothing could be read in either order."""
    orders: tuple[float | None, float | None] = (None, None)
    """The model's share when it stands first, and when second; only of judges that write."""


def by_scores(scores: Any, reference_scores: Any, *, margin: float = 0.0) -> list[Judgement]:
    """The higher number wins; a difference of at most ``margin`` is a draw. Raises ValueError for what is no number."""
    a, b = np.asarray(scores, np.float64), np.asarray(reference_scores, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not np.isfinite(a).all() or not np.isfinite(b).all():
        raise ValueError(f"scores of shapes {a.shape} and {b.shape}: give one finite number for each answer")
    apart = a - b
    return [Judgement(0.5 if abs(one) <= margin else float(one > 0)) for one in apart]


def asks(pair: Pair, *, template: str = TEMPLATE, max_new_tokens: int = 8) -> tuple[Ask, Ask]:
    """What a judge that writes is asked: the model's answer first, then second."""
    orders = ((pair.answer, pair.reference), (pair.reference, pair.answer))
    # No str.format: answers hold braces. What was put in is not looked through again.
    first, second = (_filled(template, pair.prompt, *order) for order in orders)
    return (
        Ask(first, ("\n",), max_new_tokens, item=pair.name, turn=0),
        Ask(second, ("\n",), max_new_tokens, item=pair.name, turn=1),
    )


def read_verdict(text: str) -> float | None:
    """Of the answer that stood first: 1 better, 0 worse, 1/2 as good; None where no letter says it.

    >>> read_verdict(" A, since it is right."), read_verdict("(B)"), read_verdict("C"), read_verdict("both")
    (1.0, 0.0, 0.5, None)
    """
    letter = _LETTER.read(text, behind_cue=True)
    return None if letter is None else {"A": 1.0, "B": 0.0, "C": 0.5}[letter]


def by_writing(
    pairs: Sequence[Pair], generate: Callable[[list[Ask]], Sequence[str]], *, template: str = TEMPLATE
) -> list[Judgement]:
    """Judgements by a model; ``generate(asks)`` completes prompts, as for `strategies.run`."""
    asked = [ask for pair in pairs for ask in asks(pair, template=template)]
    texts = list(generate(asked)) if asked else []
    found = []
    for i in range(len(pairs)):
        first, second = read_verdict(texts[2 * i]), read_verdict(texts[2 * i + 1])
        orders = (first, None if second is None else 1 - second)
        found.append(Judgement(_combined(orders), orders))
    return found


class Report(NamedTuple):
    """Judgements summed up."""

    win_rate: Interval
    """Draws as halves."""
    wins: int
    draws: int
    losses: int
    num_unjudged: int
    consistent: Interval | None
    """Share of pairs on which both orders say the same; None without two orders."""
    first_place: Interval | None
    """How often the answer in front is preferred: 1/2 for a judge without a liking for places."""


def report(
    judgements: Sequence[Judgement], clusters: Sequence[str] | None = None, *, confidence: float = 0.95
) -> Report:
    """The figures. Raises ValueError where nothing was judged."""
    kept = [i for i, one in enumerate(judgements) if one.preference is not None]
    if not kept:
        raise ValueError("no pair was judged: the judge's answers name neither A nor B")
    won = np.array([judgements[i].preference for i in kept], np.float64)
    names = None if clusters is None else [clusters[i] for i in kept]
    both = [one.orders for one in judgements if None not in one.orders]
    consistent = first = None
    if both:
        consistent = share([float(a == b) for a, b in both], confidence=confidence)
        first = mean([0.5 * ((a or 0.0) + 1 - (b or 0.0)) for a, b in both], confidence=confidence)
    return Report(
        mean(won, names, confidence=confidence),
        int((won > 0.5).sum()),
        int((won == 0.5).sum()),
        int((won < 0.5).sum()),
        len(judgements) - len(kept),
        consistent,
        first,
    )


def _combined(orders: tuple[float | None, float | None]) -> float | None:
    said = [one for one in orders if one is not None]
    if not said:
        return None
    # An order that cannot be read leaves the other, whose liking for a place is not known: a draw unless both agree.
    return said[0] if len(said) == 2 and said[0] == said[1] else 0.5


def _filled(template: str, prompt: str, first: str, second: str) -> str:
    values = {"{prompt}": prompt, "{first}": first, "{second}": second}
    parts, rest = [], template
    while rest:
        place, name = min(((rest.find(name), name) for name in values if name in rest), default=(-1, ""))
        if place < 0:
            return "".join([*parts, rest])
        parts += [rest[:place], values[name]]
        rest = rest[place + len(name) :]
    return "".join(parts)
