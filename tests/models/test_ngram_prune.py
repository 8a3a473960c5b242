"""Entropy pruning against its definition: every distribution written out, in float64, with dictionaries."""

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.ngram.spill import Spill
from jaxlm.models.ngram_fit import fit_ngram
from tests.models.test_ngram_laws import BOS, EOS, VOCAB, dictionaries, random_sequences

WORDS = [word for word in range(VOCAB) if word != BOS]
OPTIONS: dict[str, Any] = {"bos_id": BOS, "eos_id": EOS}


class Reference:
    """A back-off model of listed n-grams; weights by sums over the whole vocabulary."""

    def __init__(self, listed):
        self.listed, self.weights = listed, {}

    def prob(self, gram):
        if gram in self.listed:
            return self.listed[gram]
        return self.weight(gram[:-1]) * self.prob(gram[1:])

    def weight(self, history):
        if history not in self.weights:
            after = [word for word in WORDS if (*history, word) in self.listed]
            own = sum(self.listed[(*history, word)] for word in after)
            lower = sum(self.prob((*history[1:], word)) for word in after)
            self.weights[history] = (1 - own) / (1 - lower)
        return self.weights[history]


def reference_of(model):
    """Tuple -> probability of all n-grams, those of order 1 included."""
    return {
        tuple(ids): math.exp(logprob)
        for n in range(1, model.order + 1)
        for ids, (logprob, _) in zip(*(part.tolist() for part in model.grams(n)), strict=True)
    }


def changes(model, sequences):
    """The relative change in perplexity by leaving each n-gram out."""
    listed, whole = reference_of(model), Reference(reference_of(model))
    histories = Counter()
    for words in sequences:
        padded = [BOS, *words, EOS]
        for i in range(1, len(padded)):
            histories.update(tuple(padded[i - n : i]) for n in range(1, min(i, model.order - 1) + 1))
    num_tokens = sum(len(words) + 1 for words in sequences)
    found = {}
    for gram in listed:
        history = gram[:-1]
        if not history:
            continue
        without = Reference({other: prob for other, prob in listed.items() if other != gram})
        terms = [(whole.prob((*history, word)), without.prob((*history, word))) for word in WORDS]
        entropy = sum(p * math.log(p / q) for p, q in terms)
        found[gram] = math.expm1(histories[history] / num_tokens * entropy)
    return found


def kept(changed, threshold):
    """What stays: the n-grams that count, and all that those begin with."""
    staying = {gram for gram, change in changed.items() if change >= threshold}
    return staying | {gram[:n] for gram in staying for n in range(2, len(gram))}


def thresholds(changed):
    """Numbers with some n-grams on either side, and none so near that rounding would decide."""
    values = sorted(change for change in changed.values() if change > 1e-9)
    middles = [math.sqrt(a * b) for a, b in itertools.pairwise(values) if b > 1.01 * a]
    return [middles[len(middles) * part // 10] for part in (1, 4, 7, 9)]


@pytest.mark.parametrize(("order", "prune"), [(2, ()), (3, ()), (4, ()), (4, (0, 0, 1))])
def test_pruned_models_are_the_definition(order, prune):
    sequences = random_sequences(0, 40)
    whole = fit_ngram(sequences, VOCAB, order, prune=prune, **OPTIONS)
    changed = changes(whole, sequences)
    probs = reference_of(whole)
    for threshold in thresholds(changed):
        expected = kept(changed, threshold)
        model = fit_ngram(sequences, VOCAB, order, prune=prune, prune_entropy=threshold, **OPTIONS)
        found = {gram for gram in reference_of(model) if len(gram) > 1}
        assert found == expected
        assert 0 < len(found) < len(changed)
        assert model.facts["num_grams"] == [VOCAB, *(sum(len(g) == n for g in expected) for n in range(2, order + 1))]
        naive = Reference({gram: prob for gram, prob in probs.items() if len(gram) == 1 or gram in expected})
        for history in [(), *dict.fromkeys(gram[:-1] for gram in changed), (0,), (5, 0), (3, 3, 3, 3)]:
            logprobs = model.log_distribution(history)
            assert np.exp(logprobs, dtype=float).sum() == pytest.approx(1, abs=2e-6)
            short = history[-(order - 1) :] if order > 1 else ()
            expected_probs = [naive.prob((*short, word)) for word in WORDS]
            np.testing.assert_allclose(np.exp(np.delete(logprobs, BOS)), expected_probs, rtol=2e-5)


def test_cutoffs_come_first_and_nothing_below_the_least_threshold_goes():
    whole = fit_ngram(random_sequences(), VOCAB, 4, prune=(0, 0, 1), **OPTIONS)
    same = fit_ngram(random_sequences(), VOCAB, 4, prune=(0, 0, 1), prune_entropy=1e-300, **OPTIONS)
    gone = set(reference_of(whole)) - set(reference_of(same))
    assert len(gone) <= 0.1 * len(reference_of(whole))  # those that change nothing but by rounding
    nothing = fit_ngram(random_sequences(), VOCAB, 4, prune_entropy=1e9, **OPTIONS)
    assert nothing.facts["num_grams"] == [VOCAB, 0, 0, 0]
    unigrams = fit_ngram(random_sequences(), VOCAB, 1, prune_entropy=1e9, **OPTIONS)
    assert unigrams.facts["num_grams"] == [VOCAB]
    assert np.exp(nothing.log_distribution([BOS, 3])).sum() == pytest.approx(1, abs=1e-6)


def test_pruning_on_disk_is_pruning_in_memory(tmp_path):
    options: dict[str, Any] = {**OPTIONS, "prune_entropy": 1e-3}
    expected = fit_ngram(random_sequences(), VOCAB, 4, **options)
    with Spill(tmp_path, 1) as spill:
        found = fit_ngram(random_sequences(), VOCAB, 4, sorter=spill.sort, allocate=spill.allocate, **options)
        for n in range(1, 5):
            for a, b in zip(expected.grams(n), found.grams(n), strict=True):
                np.testing.assert_array_equal(a, b)
    raw = dictionaries(random_sequences(), 4)
    assert 0 < expected.facts["num_grams"][3] < len(raw[4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune_entropy": -1e-8}, "prune_entropy=-1e-08 must be"),
        ({"prune_entropy": math.nan}, "prune_entropy=nan"),
        ({"prune_entropy": 1e-8, "smoothing": "add-k"}, "needs smoothing 'kneser-ney', not 'add-k'"),
    ],
)
def test_what_cannot_be_pruned_is_named(options, message):
    with pytest.raises(UserError, match=message):
        fit_ngram([[3]], VOCAB, **options)
