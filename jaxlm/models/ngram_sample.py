"""Drawing text from an n-gram model, token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxlm.models.ngram import NgramModel


@dataclass(frozen=True)
class NgramSampling:
    """How tokens are chosen: temperature first, then the filters, each on what the ones before left."""

    temperature: float = 1.0  # 0 = the likeliest
    top_k: int | None = None
    top_p: float | None = None  # the fewest tokens whose probabilities reach it
    min_p: float | None = None  # tokens at least this fraction as likely as the likeliest

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be a number of at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        for name, value in (("top_p", self.top_p), ("min_p", self.min_p)):
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name}={value} is outside 0 .. 1")


def normalised(log_scores: np.ndarray) -> np.ndarray:
    """Log-probabilities f64 [v] of scores that need not sum to 1."""
    logs = log_scores.astype(np.float64)
    top = logs.max()
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing has a probability: NaN
        return logs - top - np.log(np.exp(logs - top).sum())


def choose(logprobs: np.ndarray, sampling: NgramSampling, uniform: float) -> int:
    """One id by a number from [0, 1): inverse of the cumulated probabilities, the likeliest first."""
    order = np.argsort(-logprobs, kind="stable")
    if sampling.temperature == 0:
        return int(order[0])
    scaled = logprobs[order] / sampling.temperature
    weights = np.exp(scaled - scaled[0])
    if sampling.top_k is not None:
        weights = weights[: sampling.top_k]
    if sampling.top_p is not None:
        before = np.cumsum(weights) - weights
        weights = weights[before < sampling.top_p * weights.sum()]
    if sampling.min_p is not None:
        weights = weights[weights >= sampling.min_p * weights[0]]
    cumulated = np.cumsum(weights)
    return int(order[min(np.searchsorted(cumulated, uniform * cumulated[-1], "right"), len(weights) - 1)])


def sample(
    model: NgramModel,
    prompt: Sequence[int],
    rng: np.random.Generator,
    *,
    max_new_tokens: int,
    sampling: NgramSampling = NgramSampling(),
    stop_ids: Sequence[int] = (),
    banned_ids: Sequence[int] = (),
) -> Iterator[tuple[int, float]]:
    """Ids drawn after ``prompt`` (behind the start symbol), each with its log-probability under the model's own
    distribution (temperature 1, no filter). Ends with a stop id, which is given too.

    ``banned_ids`` are never drawn; log-probabilities are those of the model that may draw them.
    """
    history = [model.bos_id, *prompt]
    for _ in range(max_new_tokens):
        logprobs = normalised(model.log_distribution(history))
        allowed = logprobs.copy()
        allowed[list(banned_ids)] = -np.inf
        if not (allowed > -np.inf).any():
            return
        token = choose(allowed, sampling, float(rng.random()))
        yield token, float(logprobs[token])
        if token in stop_ids:
            return
        history.append(token)
