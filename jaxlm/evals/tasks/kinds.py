"""The kinds of tasks that likelihoods answer: what is asked of a model, how replies become scores, what is reported."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxlm.evals.summary import Metric
from jaxlm.evals.tasks import choices, cloze, pairs, whole_text
from jaxlm.evals.tasks.task import Item, Likelihood, Request, Task


class LikelihoodKind(NamedTuple):
    """How a kind is scored."""

    requests: Callable[[Task, Item, str], list[Request]]
    """``(task, item, prompt) -> requests``."""
    score: Callable[[Item, Sequence[Likelihood]], dict[str, float]]
    """``(item, replies in the order of the requests) -> scores``."""
    metrics: Mapping[str, Metric]
    needs: Mapping[str, str]
    """Of a `Likelihood` beside its log-probability: score -> field."""


LIKELIHOOD_KINDS: dict[str, LikelihoodKind] = {
    "choice": LikelihoodKind(choices.requests, choices.score, choices.METRICS, choices.NEEDS),
    "pair": LikelihoodKind(pairs.requests, pairs.score, pairs.METRICS, pairs.NEEDS),
    "cloze": LikelihoodKind(cloze.requests, cloze.score, cloze.METRICS, cloze.NEEDS),
    "text": LikelihoodKind(whole_text.requests, whole_text.score, whole_text.METRICS, whole_text.NEEDS),
}
"""By ``Task.kind``. Tasks of other kinds are written, see `answers`; any kind but ``text`` and ``pair`` can be."""
