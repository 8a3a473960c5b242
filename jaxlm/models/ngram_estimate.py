"""From counts to probabilities: interpolated modified Kneser-Ney, add-k, stupid backoff, maximum likelihood.

Every estimate is, for each n-gram, a log-probability and a log backoff weight; how a scorer joins them is the rule of
the smoothing (see `jaxlm.models.ngram`). Sums are in float64; what is kept is float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxlm.models.ngram_counts import Grams
from jaxlm.models.ngram_sort import Allocate, spans

SMOOTHINGS = ("kneser-ney", "add-k", "backoff", "ml")
IMPORTED = "imported"
"""In the place of a smoothing: the estimates are those of a file, which does not say how it came by them."""
BACKOFF_MODELS = ("kneser-ney", "ml", IMPORTED)
"""Whose probabilities are those of listed n-grams, or back off with a weight for each context."""
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
MAX_ORDER = 250

_BARREN = {"kneser-ney": 0.0, "ml": 0.0, "add-k": float("nan")}
"""What an n-gram that nothing follows has for a backoff."""


@dataclass(frozen=True)
class NgramConfig:
    """How an n-gram model is estimated."""

    order: int = 5
    smoothing: Literal["kneser-ney", "add-k", "backoff", "ml", "imported"] = "kneser-ney"
    k: float = 1.0  # add-k: what is added to every count
    alpha: float = 0.4  # backoff: the factor for each order given up
    prune: tuple[int, ...] = ()  # n-grams of order i seen prune[i-1] times or fewer are left out; the last goes on
    prune_entropy: float = 0.0  # kneser-ney: n-grams that change the perplexity by less are left out; 0 = none

    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER:
            raise ValueError(f"order={self.order} is outside 1 .. {MAX_ORDER}")
        if self.smoothing not in (*SMOOTHINGS, IMPORTED):
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
        if not 0 <= self.prune_entropy < float("inf"):
            raise ValueError(f"prune_entropy={self.prune_entropy} must be a number of at least 0, such as 1e-7")
        if self.prune_entropy and self.smoothing != "kneser-ney":
            raise ValueError(f"prune_entropy needs smoothing 'kneser-ney', not {self.smoothing!r}: leave it at 0")

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


def estimate(
    grams: Sequence[Grams], config: NgramConfig, *, bos_id: int, allocate: Allocate = np.empty
) -> tuple[list[Estimate], dict[str, Any]]:
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
            pairs = list(_kneser_ney(grams, kept, bos_id, facts, allocate))
        else:
            pairs = list(_relative(grams, kept, config, bos_id, allocate))
    last = np.log(config.alpha) if config.smoothing == "backoff" else _BARREN[config.smoothing]
    backoffs = [weight for _, weight in pairs[1:]] + [allocate(len(grams[-1].word), np.float32)]
    backoffs[-1][:] = last
    levels = [Estimate(m, logs, weight) for m, (logs, _), weight in zip(kept, pairs, backoffs, strict=True)]
    levels[0].logprobs[bos_id] = -np.inf
    return levels, facts


def add_sums(sums: np.ndarray, context: np.ndarray, weights: np.ndarray) -> None:
    """Adds weights to the sums of their contexts [m], which do not decrease."""
    if len(context):
        first, last = int(context[0]), int(context[-1])
        sums[first : last + 1] += np.bincount(context - first, weights=weights, minlength=last - first + 1)


def _logs(values: np.ndarray, allocate: Allocate) -> np.ndarray:
    logs = allocate(len(values), np.float32)
    for span in spans(len(values)):
        logs[span] = np.log(values[span])
    return logs


def zeros(length: int, dtype: type, allocate: Allocate) -> np.ndarray:
    """An allocated array of zeros."""
    array = allocate(length, dtype)
    array[:] = 0
    return array


def discounts(counts: np.ndarray) -> tuple[tuple[float, float, float], bool]:
    """D1, D2 and D3+ of n-grams with these (adjusted) counts, and whether they could be computed.

    D_k = k - (k+1) Y n_{k+1} / n_k with Y = n_1 / (n_1 + 2 n_2), n_k the number of n-grams counted k times (Chen and
    Goodman 1998, equation 26). Where a count of counts is zero, or a discount falls outside 0 .. k: 0.5, 1, 1.5.
    """
    n = np.zeros(6)
    for span in spans(len(counts)):
        n += np.bincount(np.minimum(counts[span], 5), minlength=6)
    if not n[1:5].all():
        return FALLBACK_DISCOUNTS, False
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(float(k - (k + 1) * y * n[k + 1] / n[k]) for k in (1, 2, 3))
    if not all(0 <= d <= k for k, d in enumerate(found, start=1)):
        return FALLBACK_DISCOUNTS, False
    return (found[0], found[1], found[2]), True


def adjusted_counts(grams: Sequence[Grams], n: int, bos_id: int, allocate: Allocate = np.empty) -> np.ndarray:
    """What Kneser-Ney counts for order ``n``, int64 [g]: of the highest order, and of n-grams that begin with the start
    symbol, times seen; else the number of different words seen before it."""
    here = grams[n - 1]
    if n == len(grams):
        adjusted = here.counts
    else:
        adjusted = zeros(len(here.word), np.int64, allocate)
        suffix = grams[n].suffix
        for span in spans(len(suffix)):
            np.add.at(adjusted, suffix[span], 1)
        if n > 1:
            starting = slice(here.first_starting, here.first_starting + here.num_starting)
            adjusted[starting] = here.counts[starting]
    if n == 1:
        adjusted = adjusted.copy()
        adjusted[bos_id] = 0
    return adjusted


def _kneser_ney(
    grams: Sequence[Grams],
    kept: Sequence[np.ndarray | None],
    bos_id: int,
    facts: dict[str, Any],
    allocate: Allocate,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each order, log p of its n-grams and log gamma of those of the order below.

    p(w | c) = (a(c w) - D(a)) / a(c .) + gamma(c) p(w | shorter c), down to the uniform over all but <s>. gamma(c) is
    what was taken from c's words, and all of the pruned ones' counts: the sum over words is 1.
    """
    below = np.zeros(0)
    for n, here in enumerate(grams, start=1):
        adjusted = adjusted_counts(grams, n, bos_id, allocate)
        found, computed = discounts(adjusted)
        facts["discounts"].append(list(found))
        if not computed:
            facts["fallback_orders"].append(n)
        discount = np.array([0.0, *found])
        if n == 1:
            taken, total = discount[np.minimum(adjusted, 3)], adjusted.sum()
            below = (adjusted - taken) / total + taken.sum() / total / (len(adjusted) - 1)
            yield _logs(below, allocate), np.zeros(0, np.float32)
            continue
        mask = kept[n - 1]
        total, gamma = (zeros(len(below), np.float64, allocate) for _ in range(2))
        for span in spans(len(adjusted)):
            counts = adjusted[span]
            rest = discount.take(np.minimum(counts, 3))
            if mask is not None:
                rest = np.where(mask[span], rest, counts)
            add_sums(total, here.context[span], counts)
            add_sums(gamma, here.context[span], rest)
        for span in spans(len(total)):
            gamma[span] = np.where(total[span] == 0, 1.0, gamma[span] / total[span])
        prob = allocate(len(adjusted), np.float64)
        for span in spans(len(adjusted)):
            counts, context = adjusted[span], here.context[span]
            lower = gamma.take(context) * below.take(here.suffix[span])
            prob[span] = (counts - discount.take(np.minimum(counts, 3))) / total.take(context) + lower
        yield _logs(prob, allocate), _logs(gamma, allocate)
        below = prob


def _relative(
    grams: Sequence[Grams],
    kept: Sequence[np.ndarray | None],
    config: NgramConfig,
    bos_id: int,
    allocate: Allocate,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same for relative frequencies, with k added under add-k."""
    added = config.k if config.smoothing == "add-k" else 0.0
    num_words = len(grams[0].word) - 1
    for n, here in enumerate(grams, start=1):
        if n == 1:
            counts = here.counts.astype(np.float64)
            counts[bos_id] = 0.0
            yield _logs((counts + added) / (counts.sum() + added * num_words), allocate), np.zeros(0, np.float32)
            continue
        mask = kept[n - 1] if config.smoothing != "backoff" else None
        total = zeros(len(grams[n - 2].word), np.float64, allocate)
        for span in spans(len(here.word)):
            counts = here.counts[span]
            add_sums(total, here.context[span], counts if mask is None else counts * mask[span])
        prob = allocate(len(here.word), np.float64)
        for span in spans(len(here.word)):
            prob[span] = (here.counts[span] + added) / (total.take(here.context[span]) + added * num_words)
        weight = allocate(len(total), np.float32)
        for span in spans(len(total)):
            sums = total[span]
            if config.smoothing == "backoff":
                weight[span] = np.log(config.alpha)
            else:
                left = np.log(added / (sums + added * num_words)) if added else -np.inf
                weight[span] = np.where(sums == 0, _BARREN[config.smoothing], left)
        yield _logs(prob, allocate), weight
