"""N-gram models against dictionaries: sums of one, Kneser-Ney by hand, the same answers on every path."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.models.ngram_counts import count_ngrams, join_sequences
from jaxlm.models.ngram_estimate import FALLBACK_DISCOUNTS, NgramConfig, discounts
from jaxlm.models.ngram_fit import fit_ngram

BOS, EOS, VOCAB = 1, 2, 9


def random_sequences(seed=0, count=60):
    """Sequences over the ids 3 .. VOCAB - 1 whose words depend on the one before; id 0 never occurs."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(count):
        words = [int(rng.integers(3, VOCAB))]
        while rng.random() < 0.85:
            words.append(3 + (words[-1] + int(rng.integers(0, 3) ** 2)) % (VOCAB - 3))
        sequences.append(words)
    return [*sequences, []]


def dictionaries(sequences, order):
    """Raw counts of each order, tuple -> count."""
    counts = [Counter() for _ in range(order + 1)]
    for words in sequences:
        padded = [BOS, *words, EOS]
        for n in range(1, order + 1):
            counts[n].update(tuple(padded[i : i + n]) for i in range(len(padded) - n + 1))
    del counts[1][BOS,]
    return counts


class Naive:
    """The definitions, with dictionaries and recursion."""

    def __init__(self, sequences, config):
        self.config, self.order = config, config.order
        self.raw = dictionaries(sequences, config.order)
        self.adjusted = [Counter() for _ in range(self.order + 1)]
        for n in range(1, self.order + 1):
            for gram, count in self.raw[n].items():
                if n == self.order or gram[0] == BOS:
                    self.adjusted[n][gram] = count
                else:
                    self.adjusted[n][gram] = sum(longer[1:] == gram for longer in self.raw[n + 1])
        self.discounts: list[tuple[float, ...]] = [(0.0,) * 4]
        for n in range(1, self.order + 1):
            kinds = Counter(self.adjusted[n].values())
            try:
                y = kinds[1] / (kinds[1] + 2 * kinds[2])
                found = [k - (k + 1) * y * kinds[k + 1] / kinds[k] for k in (1, 2, 3)]
                if not kinds[4] or any(not 0 <= d <= k for k, d in enumerate(found, 1)):
                    raise ZeroDivisionError
            except ZeroDivisionError:
                found = FALLBACK_DISCOUNTS
            self.discounts.append((0, *found))

    def prob(self, history, word):
        history = tuple(history)[-(self.order - 1) :] if self.order > 1 else ()
        return getattr(self, self.config.smoothing.replace("-", "_"))(history, word)

    def kept(self, gram):
        return len(gram) == 1 or self.raw[len(gram)][gram] > self.config.cutoff(len(gram))

    def kneser_ney(self, history, word):
        n = len(history) + 1
        followers = {g: c for g, c in self.adjusted[n].items() if g[:-1] == history and (n > 1 or g[0] != BOS)}
        if n == 1:
            lower = 1 / (VOCAB - 1)
        else:
            lower = self.kneser_ney(history[1:], word)
        total = sum(followers.values())
        if not total:
            return lower
        taken = {g: self.discounts[n][min(c, 3)] if self.kept(g) else c for g, c in followers.items()}
        gram = (*history, word)
        own = followers[gram] - taken[gram] if gram in followers else 0
        return own / total + sum(taken.values()) / total * lower

    def longest_seen(self, history):
        while history and not any(g[:-1] == history and self.kept(g) for g in self.raw[len(history) + 1]):
            history = history[1:]
        return history

    def relative(self, history, word, k):
        followers = {g: c for g, c in self.raw[len(history) + 1].items() if g[:-1] == history and self.kept(g)}
        return (followers.get((*history, word), 0) + k) / (sum(followers.values()) + k * (VOCAB - 1))

    def add_k(self, history, word):
        return self.relative(self.longest_seen(history), word, self.config.k)

    def ml(self, history, word):
        return self.relative(self.longest_seen(history), word, 0)

    def backoff(self, history, word):
        gram = (*history, word)
        if not history:
            return self.raw[1][gram] / sum(self.raw[1].values())
        if self.raw[len(gram)][gram] and self.kept(gram):
            return self.raw[len(gram)][gram] / sum(c for g, c in self.raw[len(gram)].items() if g[:-1] == history)
        return self.config.alpha * self.backoff(history[1:], word)


CASES = [
    *itertools.product(("kneser-ney", "add-k", "backoff", "ml"), (1, 2, 3, 4), [()]),
    *itertools.product(("kneser-ney", "add-k", "backoff", "ml"), (3,), [(0, 0, 1), (0, 1)]),
]


@pytest.mark.parametrize(("smoothing", "order", "prune"), CASES)
def test_scores_are_the_definitions(smoothing, order, prune):
    training, held_out = random_sequences(0), [*random_sequences(1, 25), [0, 3, 0, 0, 4]]
    options = {"smoothing": smoothing, "prune": prune, "k": 0.3}
    model = fit_ngram(training, VOCAB, order, bos_id=BOS, eos_id=EOS, **options)
    naive = Naive(training, model.config)
    tokens = join_sequences(held_out, vocab_size=VOCAB, bos_id=BOS, eos_id=EOS)
    expected, history = [], []
    for token in tokens.tolist():
        if token == BOS:
            history = []
            expected.append(1.0)
        else:
            expected.append(naive.prob(history, token))
        history.append(token)
    np.testing.assert_allclose(np.exp(model.score(tokens)), expected, rtol=2e-6)


@pytest.mark.parametrize(("smoothing", "order", "prune"), [case for case in CASES if case[0] != "backoff"])
def test_every_context_sums_to_one(smoothing, order, prune):
    model = fit_ngram(random_sequences(), VOCAB, order, bos_id=BOS, eos_id=EOS, smoothing=smoothing, prune=prune)
    for size in range(3):
        for history in itertools.product(range(VOCAB), repeat=size):
            logprobs = model.log_distribution(history)
            assert np.exp(logprobs, dtype=float).sum() == pytest.approx(1, abs=1e-6), history
            assert logprobs[BOS] == -np.inf


def test_distributions_are_what_scoring_gives():
    for smoothing in ("kneser-ney", "add-k", "backoff", "ml"):
        model = fit_ngram(random_sequences(), VOCAB, 3, bos_id=BOS, eos_id=EOS, smoothing=smoothing)
        for history in ([BOS], [BOS, 4], [BOS, 0, 5], [BOS, 8, 8, 0], [BOS, 3, 4, 5]):
            rows = np.array([[*history, word] for word in range(VOCAB) if word != BOS])
            scores = model.score(rows.reshape(-1)).reshape(rows.shape)[:, -1]
            np.testing.assert_allclose(scores, np.delete(model.log_distribution(history), BOS), rtol=1e-5)


def test_kneser_ney_by_hand():
    """The corpus "a b", "a b", "a": order 2, worked on paper with the discounts 1/2, 1, 3/2 (n4 = 0: the fallback).

    Bigrams, all raw: <s> a 3, a b 2, a </s> 1, b </s> 2. Different words before: a 1, b 1, </s> 2.
    Unigrams: total 4, taken 1/2 + 1/2 + 1 = 2, uniform over a, b, </s>, <unk> = 1/4:
    p(a) = (1 - 1/2)/4 + 2/4 * 1/4 = 1/4 = p(b), p(</s>) = (2 - 1)/4 + 1/8 = 3/8, p(<unk>) = 1/8.
    """
    unk, bos, eos, a, b = range(5)
    model = fit_ngram([[a, b], [a, b], [a]], 5, 2, bos_id=bos, eos_id=eos)
    assert model.facts["fallback_orders"] == [1, 2]
    fourth, eighth = Fraction(1, 4), Fraction(1, 8)
    expected = {
        (): {a: fourth, b: fourth, eos: 3 * eighth, unk: eighth},
        # total 3, taken 3/2 of the one word counted 3 times
        (bos,): {a: Fraction(1, 2) + fourth / 2, b: fourth / 2, eos: 3 * eighth / 2, unk: eighth / 2},
        # total 3: b 2 - 1, </s> 1 - 1/2, taken 3/2
        (a,): {a: fourth / 2, b: Fraction(1, 3) + fourth / 2, eos: Fraction(1, 6) + 3 * eighth / 2, unk: eighth / 2},
        # total 2: </s> 2 - 1
        (b,): {a: fourth / 2, b: fourth / 2, eos: Fraction(1, 2) + 3 * eighth / 2, unk: eighth / 2},
        (unk,): {a: fourth, b: fourth, eos: 3 * eighth, unk: eighth},
    }
    for history, probs in expected.items():
        found = np.exp(model.log_distribution(history))
        for word, prob in probs.items():
            assert found[word] == pytest.approx(float(prob), rel=1e-6), (history, word)


def test_discounts_follow_the_counts_of_counts():
    counts = np.repeat([1, 2, 3, 4, 5, 90], [100, 40, 20, 12, 9, 1])
    y = 100 / 180
    found, computed = discounts(counts)
    assert computed
    np.testing.assert_allclose(found, [1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.6])
    assert discounts(np.array([1, 1, 2, 3])) == (FALLBACK_DISCOUNTS, False)
    assert discounts(np.repeat([1, 2, 3, 4], [1, 1, 1, 90])) == (FALLBACK_DISCOUNTS, False)  # D3 below 0


def test_kept_n_grams_keep_their_parts():
    model = fit_ngram(random_sequences(), VOCAB, 4, bos_id=BOS, eos_id=EOS, prune=(0, 1, 2))
    raw = dictionaries(random_sequences(), 4)
    for n in (2, 3, 4):
        ids, _ = model.grams(n)
        assert {tuple(row) for row in ids.tolist()} == {g for g, c in raw[n].items() if c > (0, 1, 2, 2)[n - 1]}
    assert model.facts["num_grams"][1:] == [len(model.grams(n)[0]) for n in (2, 3, 4)]


@pytest.mark.parametrize("smoothing", ["kneser-ney", "add-k", "backoff", "ml"])
def test_keys_of_two_columns_give_the_same_model(smoothing):
    """What a vocabulary and contexts too large for one 64-bit key go through."""
    packed, wide = (
        fit_ngram(random_sequences(), VOCAB, 4, bos_id=BOS, eos_id=EOS, smoothing=smoothing, key_bits=bits)
        for bits in (64, 4)
    )
    assert {rows.shape[1] for rows in packed.tables} == {2}
    assert {rows.shape[1] for rows in wide.tables} == {3}
    for n in (1, 2, 3, 4):
        for a, b in zip(packed.grams(n), wide.grams(n), strict=True):
            np.testing.assert_array_equal(a, b)
    tokens = join_sequences(random_sequences(1), vocab_size=VOCAB, bos_id=BOS, eos_id=EOS)
    np.testing.assert_array_equal(packed.score(tokens), wide.score(tokens))


@pytest.mark.parametrize("smoothing", ["kneser-ney", "add-k", "backoff", "ml"])
@pytest.mark.parametrize("key_bits", [64, 4])
def test_orders_beyond_every_sequence_add_nothing(smoothing, key_bits):
    options = {"bos_id": BOS, "eos_id": EOS, "smoothing": smoothing}
    short, long = (fit_ngram([[3], [3], [4], [5]], VOCAB, n, key_bits=key_bits, **options) for n in (3, 7))
    tokens = join_sequences([[3, 4, 4, 4, 4, 4, 4, 4], [], [8]], vocab_size=VOCAB, bos_id=BOS, eos_id=EOS)
    assert long.facts["num_grams"][3:] == [0, 0, 0, 0]
    if smoothing == "backoff":  # each order given up costs, seen or not
        assert (short.score(tokens) >= long.score(tokens)).all()
    else:
        np.testing.assert_allclose(short.score(tokens), long.score(tokens), rtol=1e-6)


def test_large_ids_are_counted_in_two_columns():
    big = (1 << 20) - 2
    tokens = join_sequences([[big, 5, big], [5, big]], vocab_size=big + 1, bos_id=0, eos_id=None)
    grams = count_ngrams(tokens, order=2, vocab_size=big + 1, bos_id=0, key_bits=32)[1]
    triples = zip(grams.context.tolist(), grams.word.tolist(), grams.counts.tolist(), strict=True)
    assert list(triples) == [(0, 5, 1), (0, big, 1), (5, big, 2), (big, 5, 1)]


@pytest.mark.parametrize("smoothing", ["kneser-ney", "add-k", "backoff"])
def test_chunks_do_not_show(monkeypatch, smoothing):
    model = fit_ngram(random_sequences(), VOCAB, 4, bos_id=BOS, eos_id=EOS, smoothing=smoothing)
    tokens = join_sequences(random_sequences(2), vocab_size=VOCAB, bos_id=BOS, eos_id=EOS)
    whole = model.score(tokens)
    monkeypatch.setattr("jaxlm.models.ngram.CHUNK", 7)
    np.testing.assert_array_equal(model.score(tokens), whole)


def test_ids_of_any_tokenizer():
    """Without a start symbol of the tokenizer's own, the model has one; an end is predicted only where there is one."""
    sequences = [np.array([0, 1, 2, 1], np.int32), [2, 1], (1,)]
    model = fit_ngram(sequences, 3, 3)
    assert (model.vocab_size, model.bos_id, model.eos_id) == (4, 3, None)
    assert np.exp(model.log_distribution([3])).sum() == pytest.approx(1, abs=1e-6)
    assert model.log_distribution([3])[3] == -np.inf
    with_ends = fit_ngram([[0, 1, 2, 1, 4], [3, 2, 1, 4], [1]], 5, 3, bos_id=3, eos_id=4)  # some ends are there already
    again = fit_ngram([[0, 1, 2, 1], [2, 1], [1]], 5, 3, bos_id=3, eos_id=4)
    np.testing.assert_array_equal(with_ends.grams(3)[0], again.grams(3)[0])
    assert (with_ends.grams(2)[0] == 4).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_ngram([[3]], 3), r"ids 3..3: the vocabulary is 0..2"),
        (lambda: fit_ngram([[-1]], 3), "sequence 0 has ids -1"),
        (lambda: fit_ngram([[0, 1, 0]], 3, bos_id=1), "start symbol 1 inside"),
        (lambda: fit_ngram([np.array([0.5])], 3), "type float64"),
        (lambda: fit_ngram([], 3), "the text is empty"),
        (lambda: fit_ngram([[], []], 3), "the text is empty"),
        (lambda: fit_ngram([[1]], 0), "vocab_size=0"),
        (lambda: fit_ngram([[1]], 3, order=0), "order=0 is outside"),
        (lambda: fit_ngram([[1]], 3, smoothing="good-turing"), "smoothing='good-turing' is none of kneser-ney"),
        (lambda: fit_ngram([[1]], 3, prune=(1,)), "would drop words"),
        (lambda: fit_ngram([[1]], 3, prune=(0, 2, 1)), "decreases"),
        (lambda: fit_ngram([[1]], 3, k=0.0), "k=0.0"),
        (lambda: fit_ngram([[1]], 3, alpha=1.5), "alpha=1.5"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_cutoffs_go_on():
    config = NgramConfig(order=5, prune=(0, 0, 1))
    assert [config.cutoff(n) for n in range(1, 6)] == [0, 0, 1, 1, 1]
    assert math.isclose(NgramConfig().alpha, 0.4)
