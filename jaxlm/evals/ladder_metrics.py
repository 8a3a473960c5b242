"""Which metrics count whole answers and which grow bit by bit; each as scores of which higher is better."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxlm.evals.emergence import Scores

DISCONTINUOUS = ("accuracy", "acc", "exact_match", "em", "acc_norm", "pass@1", "multiple_choice_grade")
"""In the order of preference, where a task has several."""


class Continuous(NamedTuple):
    """How a figure becomes a score."""

    sign: float = -1.0
    """1 where more is better."""
    log: bool = False
    """Its logarithm is taken: a perplexity."""


CONTINUOUS: dict[str, Continuous] = {
    "nats": Continuous(),
    "gold_nats": Continuous(),
    "perplexity": Continuous(log=True),
    "ppl": Continuous(log=True),
    "word_perplexity": Continuous(log=True),
    "bits_per_byte": Continuous(),
    "brier": Continuous(),
    "brier_score": Continuous(),
    "token_edit_distance": Continuous(),
    "gold_probability": Continuous(sign=1.0),
    "logprob": Continuous(sign=1.0),
}


def as_scores(metric: str, values: np.ndarray, errors: np.ndarray) -> Scores:
    """Figures and their standard errors as scores. Raises ValueError for a perplexity that is not above 0."""
    how = CONTINUOUS.get(metric, Continuous(sign=1.0))
    if not how.log:
        return Scores(how.sign * values, errors)
    if not (values > 0).all():
        raise ValueError(f"{metric} is {values.min():g}: a perplexity is above 0")
    return Scores(how.sign * np.log(values), errors / values)


def split_metrics(scores: Mapping[str, Scores]) -> tuple[str | None, dict[str, Scores]]:
    """(the discontinuous metric that counts, all continuous ones)."""
    first = next((name for name in DISCONTINUOUS if name in scores), None)
    return first, {name: scores[name] for name in CONTINUOUS if name in scores}
