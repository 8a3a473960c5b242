"""From counts to probabilities: interpolated modified Kneser-Ney, add-k, stupid backoff, maximum likelihood.

Every estimate is, for each n-gram, a log-probability and a log backoff weight; how a scorer joins them is the rule of
the smoothing (see `jaxlm.models.ngram`). Sums are in float64; what is kept is float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxlm.models.ngram_counts import Grams

SMOOTHINGS = ("kneser-ney", "add-k", "backoff", "ml")
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
MAX_ORDER = 250

_BARREN = {"kneser-ney": 0.0, "ml": 0.0, "add-k": float("nan")}
"""What an n-gram that nothing follows has for a backoff."""


@dataclass(frozen=True)
class NgramConfig:
    """How an n-gram model is estimated."""

    order: int = 5
    smoothing: Literal["kneser-ney", "add-k", "backoff", "ml"] = "kneser-ney"
    k: float = 1.0  # add-k: what is added to every count
    alpha: float = 0.4  # backoff: the factor for each order given up
    prune: tuple[int, ...] = ()  # n-grams of order i seen prune[i-1] times or fewer are left out; the last goes on

    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER:
            raise ValueError(f"order={self.order} is outside 1 .. {MAX_ORDER}")
        if self.smoothing not in SMOOTHINGS:
            raise ValueError(f"smoothing={self.smoothing!r} is none of {', '.join(SMOOTHINGS)}")
        if not 0 < self.k < float("inf"):
            raise ValueError(f"k={self.k} must be a positive number")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha} is outside 0 .. 1")
        if len(self.prune) > self.order:
            raise ValueError(f"prune={self.prune} has more entries than order={self.order}")
        if self.prune and self.prune[0] != 0:
            raise ValueError(f"prune={self.prune} would drop words: begin with 0, or choose the vocabulary beforehand")
        if any(b < a for a, b in zip(self.prune, self.prune[1:], strict=False)):
            raise ValueError(f"prune={self.prune} decreases: a kept n-gram would lose its shorter ones")

    def cutoff(self, n: int) -> int:
        """n-grams of order ``n`` seen so often or less are left out."""
        return self.prune[min(n, len(self.prune)) - 1] if self.prune else 0


class Estimate(NamedTuple):
    """One order's n-grams as a model holds them."""

    kept: np.ndarray | None
    """Which n-grams are in the model, bool [g]; None = all."""
    logprobs: np.ndarray
    """Natural log-probability of each n-gram's word after its context, f32 [g]."""
    backoffs: np.ndarray
    """Log weight of each n-gram as a context, f32 [g]; 0 for one that nothing follows. Under add-k the log-probability
    of a word never seen after it, NaN for one that nothing follows."""


def estimate(grams: Sequence[Grams], config: NgramConfig, *, bos_id: int) -> tuple[list[Estimate], dict[str, Any]]:
    """The estimate of each order, and facts about it (``num_grams``, and ``discounts`` under Kneser-Ney).

    Probabilities are over all words but ``bos_id``, which is only ever a context.
    """
    kept = [g.counts > config.cutoff(n) if n > 1 and config.cutoff(n) else None for n, g in enumerate(grams, start=1)]
    facts: dict[str, Any] = {
        "num_grams": [len(g.word) if m is None else int(m.sum()) for g, m in zip(grams, kept, strict=True)]
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        if config.smoothing == "kneser-ney":
            facts["discounts"], facts["fallback_orders"] = [], []
            pairs = list(_kneser_ney(grams, kept, bos_id, facts))
        else:
            pairs = list(_relative(grams, kept, config, bos_id))
    last = np.log(config.alpha) if config.smoothing == "backoff" else _BARREN[config.smoothing]
    backoffs = [weight for _, weight in pairs[1:]] + [np.full(len(grams[-1].word), last, np.float32)]
    levels = [Estimate(m, logs, weight) for m, (logs, _), weight in zip(kept, pairs, backoffs, strict=True)]
    levels[0].logprobs[bos_id] = -np.inf
    return levels, facts


def _sums(context: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """The sum of weights over each context, f64 [size]."""
    # Of no n-grams at all bincount gives integers.
    return np.bincount(context, weights=weights, minlength=size).astype(np.float64, copy=False)


def _logs(values: np.ndarray) -> np.ndarray:
    return np.log(values).astype(np.float32)


def discounts(counts: np.ndarray) -> tuple[tuple[float, float, float], bool]:
    """D1, D2 and D3+ of n-grams with these (adjusted) counts, and whether they could be computed.

    D_k = k - (k+1) Y n_{k+1} / n_k with Y = n_1 / (n_1 + 2 n_2), n_k the number of n-grams counted k times (Chen and
    Goodman 1998, equation 26). Where a count of counts is zero, or a discount falls outside 0 .. k: 0.5, 1, 1.5.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if not n[1:5].all():
        return FALLBACK_DISCOUNTS, False
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(float(k - (k + 1) * y * n[k + 1] / n[k]) for k in (1, 2, 3))
    if not all(0 <= d <= k for k, d in enumerate(found, start=1)):
        return FALLBACK_DISCOUNTS, False
    return (found[0], found[1], found[2]), True


def adjusted_counts(grams: Sequence[Grams], n: int, bos_id: int) -> np.ndarray:
    """What Kneser-Ney counts for order ``n``, int64 [g]: of the highest order, and of n-grams that begin with the start
    symbol, times seen; else the number of different words seen before it."""
    here = grams[n - 1]
    if n == len(grams):
        adjusted = here.counts
    else:
        adjusted = np.bincount(grams[n].suffix, minlength=len(here.word))
        if n > 1:
            starting = slice(here.first_starting, here.first_starting + here.num_starting)
            adjusted[starting] = here.counts[starting]
    if n == 1:
        adjusted = adjusted.copy()
        adjusted[bos_id] = 0
    return adjusted


def _kneser_ney(
    grams: Sequence[Grams], kept: Sequence[np.ndarray | None], bos_id: int, facts: dict[str, Any]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each order, log p of its n-grams and log gamma of those of the order below.

    p(w | c) = (a(c w) - D(a)) / a(c .) + gamma(c) p(w | shorter c), down to the uniform over all but <s>. gamma(c) is
    what was taken from c's words, and all of the pruned ones' counts: the sum over words is 1.
    """
    below = np.zeros(0)
    for n, here in enumerate(grams, start=1):
        adjusted = adjusted_counts(grams, n, bos_id)
        found, computed = discounts(adjusted)
        facts["discounts"].append(list(found))
        if not computed:
            facts["fallback_orders"].append(n)
        taken = np.array([0.0, *found])[np.minimum(adjusted, 3)]
        mask = kept[n - 1]
        gamma = np.zeros(0)
        if n == 1:
            total = adjusted.sum()
            prob = (adjusted - taken) / total + taken.sum() / total / (len(adjusted) - 1)
        else:
            size = len(grams[n - 2].word)
            total = _sums(here.context, adjusted, size)
            rest = taken if mask is None else np.where(mask, taken, adjusted)
            gamma = _sums(here.context, rest, size)
            gamma /= total
            prob = np.subtract(adjusted, taken, out=taken if mask is None else None)
            prob /= total.take(here.context)
            lower = below.take(here.suffix)
            lower *= gamma.take(here.context)
            prob += lower
            gamma[total == 0] = 1.0
        yield _logs(prob), _logs(gamma)
        below = prob


def _relative(
    grams: Sequence[Grams], kept: Sequence[np.ndarray | None], config: NgramConfig, bos_id: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same for relative frequencies, with k added under add-k."""
    added = config.k if config.smoothing == "add-k" else 0.0
    num_words = len(grams[0].word) - 1
    for n, here in enumerate(grams, start=1):
        mask = kept[n - 1]
        counts = here.counts.astype(np.float64)
        if n == 1:
            counts[bos_id] = 0.0
            yield _logs((counts + added) / (counts.sum() + added * num_words)), np.zeros(0, np.float32)
            continue
        if mask is not None and config.smoothing != "backoff":
            counts *= mask
        size = len(grams[n - 2].word)
        total = _sums(here.context, counts, size)
        whole = total + added * num_words
        left = {"add-k": added / whole, "backoff": np.full(size, config.alpha), "ml": np.zeros(size)}[config.smoothing]
        weight = _logs(left)
        if config.smoothing != "backoff":
            weight[total == 0] = _BARREN[config.smoothing]
        yield _logs((counts + added) / whole[here.context]), weight
