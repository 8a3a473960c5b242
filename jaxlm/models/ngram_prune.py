"""Entropy pruning: leaving out the n-grams without which the model is nearly the same (Stolcke 1998).

Without the n-gram h w, the history h backs off for w as well, its weight raised so that it sums to 1 again. The
relative entropy of the two models, in nats a token, is

    D = -P(h) { p(w|h) [log p(w|h') + log b'(h) - log p(w|h)] + m(h) [log b'(h) - log b(h)] }
    m(h) = 1 - sum of p(v|h),  u(h) = 1 - sum of p(v|h')        # over the listed v; h' is h without its first word
    b(h) = m(h) / u(h),  b'(h) = (m(h) + p(w|h)) / (u(h) + p(w|h'))

and exp(D) - 1 is the relative change in perplexity. Each n-gram is judged alone, in the model as it was; those that
change it by less than the threshold go, unless a longer one that stays begins with them. Then the weights are computed
anew.

P(h) is how often h was the history in the training text. Stolcke has the model's own product, which serves other
smoothings; the lower orders of Kneser-Ney are no estimates of it, and a model pruned by them is worse (Chelba et al.
2010; on WikiText-2 by 1 to 2 % at equal size).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.models.ngram_counts import Grams
from jaxlm.models.ngram_estimate import Estimate, add_sums, zeros
from jaxlm.models.ngram_sort import Allocate, spans

_NOTHING = 1e-6
"""Mass left that is no more than the rounding of f32 probabilities: no weight is computed from it."""


class _Order(NamedTuple):
    """An order's n-grams [g] and their contexts [c], f64."""

    probs: np.ndarray
    """p(w|h) [g]."""
    lower: np.ndarray
    """p(w|h') [g]."""
    left: np.ndarray
    """m(h) [c]."""
    lower_left: np.ndarray
    """u(h) [c]."""
    weights: np.ndarray
    """b(h) [c]."""


def prune_by_entropy(
    grams: Sequence[Grams],
    levels: Sequence[Estimate],
    threshold: float,
    *,
    bos_id: int,
    allocate: Allocate = np.empty,
) -> tuple[list[Estimate], list[int]]:
    """The estimates without the n-grams of order 2 and more that change the perplexity by less than ``threshold``
    (relative), with the weights that then hold; and how many n-grams of each order stay."""
    num_tokens = float(grams[0].counts.sum() - grams[0].counts[bos_id])
    masks = [level.kept for level in levels]
    slight = [
        _slight(order, here, num_tokens, threshold, allocate)
        for order, here in zip(_orders(grams, levels, masks, allocate), grams[1:], strict=True)
    ]
    needed: np.ndarray | None = None
    num_grams = [len(here.word) for here in grams]
    for n in range(len(grams), 1, -1):
        kept = ~slight[n - 2]
        if (before := masks[n - 1]) is not None:
            kept &= before
        if needed is not None:
            kept |= needed
        needed = np.zeros(len(grams[n - 2].word), bool)
        needed[grams[n - 1].context[kept]] = True
        masks[n - 1], num_grams[n - 1] = kept, int(kept.sum())
    pruned = [level._replace(kept=mask) for level, mask in zip(levels, masks, strict=True)]
    for n, order in enumerate(_orders(grams, levels, masks, allocate)):
        backoffs = allocate(len(order.weights), np.float32)
        for span in spans(len(backoffs)):
            backoffs[span] = np.log(order.weights[span])
        pruned[n] = pruned[n]._replace(backoffs=backoffs)
    return pruned, num_grams


def _orders(
    grams: Sequence[Grams], levels: Sequence[Estimate], masks: Sequence[np.ndarray | None], allocate: Allocate
) -> Iterator[_Order]:
    """The orders from 2 on, of the model that lists the n-grams under the masks."""
    below = np.exp(levels[0].logprobs, dtype=np.float64)
    for here, level, before, mask in zip(grams[1:], levels[1:], levels, masks[1:], strict=False):
        probs, lower = (allocate(len(here.word), np.float64) for _ in range(2))
        listed, lower_listed = (zeros(len(before.backoffs), np.float64, allocate) for _ in range(2))
        for span in spans(len(probs)):
            probs[span] = np.exp(level.logprobs[span], dtype=np.float64)
            lower[span] = below.take(here.suffix[span])
            chosen = slice(None) if mask is None else mask[span]
            add_sums(listed, here.context[span][chosen], probs[span][chosen])
            add_sums(lower_listed, here.context[span][chosen], lower[span][chosen])
        weights = allocate(len(listed), np.float64)
        for span in spans(len(weights)):
            left = np.maximum(1.0 - listed[span], 0.0)
            lower_left = np.maximum(1.0 - lower_listed[span], 0.0)
            some = (left > _NOTHING) & (lower_left > _NOTHING)
            weights[span] = np.exp(before.backoffs[span], dtype=np.float64)
            np.divide(left, lower_left, out=weights[span], where=some)
            listed[span], lower_listed[span] = left * some, lower_left * some
        yield _Order(probs, lower, listed, lower_listed, weights)
        below = probs
        if mask is not None:  # what is not listed is backed off to
            below = allocate(len(probs), np.float64)
            for span in spans(len(below)):
                below[span] = np.where(mask[span], probs[span], weights.take(here.context[span]) * lower[span])


def _slight(order: _Order, here: Grams, num_tokens: float, threshold: float, allocate: Allocate) -> np.ndarray:
    """Which n-grams change the perplexity by less than the threshold, bool [g]."""
    seen = zeros(len(order.left), np.float64, allocate)
    for span in spans(len(here.word)):
        add_sums(seen, here.context[span], here.counts[span])
    slight = np.empty(len(here.word), bool)
    for span in spans(len(slight)):
        context, prob, lower = here.context[span], order.probs[span], order.lower[span]
        left, lower_left = order.left.take(context), order.lower_left.take(context)
        # log b' - log b; the masses in one quotient each, so that their rounding falls out.
        some = left > 0
        rise = np.zeros(len(prob))
        rise[some] = np.log1p(prob[some] / left[some]) - np.log1p(lower[some] / lower_left[some])
        change = np.log(lower) + np.log((left + prob) / (lower_left + lower)) - np.log(prob)
        entropy = -seen.take(context) / num_tokens * (prob * change + left * rise)
        slight[span] = np.expm1(entropy) < threshold
    return slight
