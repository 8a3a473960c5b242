"""Scores of labels against values worked out by hand, scipy's correlations, and their own laws."""

import numpy as np
import pytest
from scipy import stats

from jaxlm.evals.classification import (
    accuracy,
    average_ranks,
    binary_f1,
    confusion,
    f1_of_each,
    macro_f1,
    matthews,
    pearson,
    spearman,
)

LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
PREDICTIONS = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0])  # tp 3, fn 1, fp 1, tn 5


def test_two_classes_by_hand():
    assert confusion(LABELS, PREDICTIONS, 2).tolist() == [[5, 1], [1, 3]]
    assert accuracy(LABELS, PREDICTIONS) == 0.8
    assert binary_f1(LABELS, PREDICTIONS) == 2 * 3 / (2 * 3 + 1 + 1)
    assert macro_f1(LABELS, PREDICTIONS, 2) == pytest.approx((0.75 + 10 / 12) / 2)
    # (tp tn - fp fn) / sqrt((tp + fp)(tp + fn)(tn + fp)(tn + fn))
    assert matthews(LABELS, PREDICTIONS, 2) == pytest.approx((15 - 1) / np.sqrt(4 * 4 * 6 * 6))


def test_matthews_is_pearson_of_two_classes(rng):
    labels, predictions = rng.integers(0, 2, (2, 50))
    assert matthews(labels, predictions, 2) == pytest.approx(stats.pearsonr(labels, predictions)[0])


def test_several_classes_by_hand_and_their_order_does_not_matter(rng):
    labels, predictions = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    np.testing.assert_allclose(f1_of_each(labels, predictions, 4), [0.5, 0.8, 0.0, np.nan])
    assert macro_f1(labels, predictions, 4) == pytest.approx(1.3 / 3)  # the fourth class occurs nowhere
    order = rng.permutation(4)
    for score in (macro_f1, matthews):
        assert score(order[labels], order[predictions], 4) == pytest.approx(score(labels, predictions, 4))
    assert matthews(labels, labels, 4) == pytest.approx(1.0)
    assert matthews(labels, np.zeros(5, np.int64), 4) == 0.0
    assert binary_f1(np.zeros(3, np.int64), np.zeros(3, np.int64)) == 0.0


def test_rank_correlation_is_scipys_with_ties(rng):
    assert average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    for _ in range(5):
        a, b = rng.integers(0, 6, (2, 40)).astype(np.float64)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0])
        assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b)[0])
        assert spearman(np.exp(a), b) == pytest.approx(spearman(a, b))
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="one length"):
        accuracy(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="at least 1"):
        accuracy(np.zeros(0), np.zeros(0))
