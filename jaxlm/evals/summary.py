"""From scores of items to figures of a task: intervals on each, groups, and what guessing would reach."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from jaxlm.evals import intervals
from jaxlm.evals.intervals import Interval


class Metric(NamedTuple):
    """How a figure comes from the scores of items."""

    of: str
    """The score that is summed."""
    per: str | None = None
    """The score to divide the sum by; None: the number of items."""
    form: Literal["mean", "exp", "bits"] = "mean"
    """``exp``: e to the quotient; ``bits``: the quotient over log 2."""
    share: bool = False
    """Whether the score lies in 0 .. 1 and says how right an item is: the interval is Wilson's."""


class Named(Protocol):
    """What a summary needs of an item."""

    @property
    def group(self) -> str: ...
    @property
    def cluster(self) -> str: ...


def figure(
    metric: Metric, items: Sequence[Named], scores: Sequence[Mapping[str, float]], *, confidence: float = 0.95
) -> Interval:
    """One figure over items with its interval."""
    values = [score[metric.of] for score in scores]
    clusters = [item.cluster for item in items]
    if metric.share:
        return intervals.share(values, clusters, confidence=confidence)
    weights = np.ones(len(values)) if metric.per is None else [score[metric.per] for score in scores]
    found = intervals.ratio(values, weights, clusters, confidence=confidence)
    return found.map(_FORMS[metric.form])


def with_scores(metrics: Mapping[str, Metric], scores: Sequence[Mapping[str, float]]) -> dict[str, Metric]:
    """The metrics that every item has the scores for."""
    here = set.intersection(*(set(score) for score in scores)) if scores else set()
    return {name: one for name, one in metrics.items() if {one.of} | ({one.per} if one.per else set()) <= here}


def summarise(
    metrics: Mapping[str, Metric],
    items: Sequence[Named],
    scores: Sequence[Mapping[str, float]],
    *,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """``num_items``, every metric with ``value``, ``lower`` and ``upper``; where items have groups, ``groups`` with the
    first metric of each and ``group_mean``, in which each group counts once. A group "a/b" is also part of "a".

    Metrics that an item has no score for are left out. Raises ValueError for no items.
    """
    if not items or len(items) != len(scores):
        raise ValueError(f"{len(items)} items with {len(scores)} scores: nothing to sum up")
    here = with_scores(metrics, scores)
    found: dict[str, Any] = {"num_items": len(items)}
    for name, metric in here.items():
        found[name] = figure(metric, items, scores, confidence=confidence).record()
    groups = sorted({item.group for item in items})
    if len(groups) > 1:
        first, metric = next(iter(here.items()))
        parts = {
            group: figure(metric, [items[i] for i in places], [scores[i] for i in places], confidence=confidence)
            for group, places in group_places(items).items()
        }
        found["group_mean"] = intervals.mean_of_groups([parts[group] for group in groups]).record()
        found["groups"] = {group: {first: part.record(), "num_items": part.num_items} for group, part in parts.items()}
    return found


def group_places(items: Sequence[Named]) -> dict[str, list[int]]:
    """Which items are of each group, groups sorted by name. "a/b" is also part of "a"."""
    members: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        parents = [item.group[:place] for place, sign in enumerate(item.group) if sign == "/"]
        for group in (*parents, item.group):
            members.setdefault(group, []).append(i)
    return dict(sorted(members.items()))


def _exp(nats: float) -> float:
    """e to any power: infinite beyond what a float holds."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


_FORMS = {"mean": lambda x: x, "exp": _exp, "bits": lambda x: x / math.log(2)}
