"""Scores of rewards against rankings, by hand and by what they mean."""

import numpy as np
import pytest

from jaxlm.evals import preferences as scores


def test_pairs_of_different_rank_alone():
    rewards = np.array([[3.0, 1.0, 2.0], [5.0, 4.0, 9.0]])
    ranks, mask = np.array([[0, 1, 1], [0, 1, 2]]), np.array([[1, 1, 1], [1, 1, 0]])
    lengths = np.array([[4, 6, 4], [1, 2, 0]])
    pairs = scores.ranked_pairs(rewards, ranks, mask, lengths)
    assert pairs.row.tolist() == [0, 0, 1]
    assert pairs.difference.tolist() == [2, 1, 1]
    assert pairs.longer.tolist() == [-2, 0, -1]
    found = scores.by_source(pairs, ["x", "y"])
    assert (found["all"]["accuracy"], found["all"]["num_pairs"]) == (1, 3)
    assert found["x"]["longer_wins"] == 0.25  # of equal length: a half
    assert scores.by_source(pairs, ["", ""]).keys() == {"all"}
    named = scores.by_source(pairs, ["all", "x"])
    assert (named["all"], named.keys()) == (found["all"], {"all", "(source) all", "x"})


def test_wilsons_interval_is_the_published_one():
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662, 0 of 20 is 0 to 0.1611."""
    one = scores.share_with_interval(np.repeat([1, 0], [81, 182]))
    assert one["lower"] == pytest.approx(0.2553, abs=5e-5)
    assert one["upper"] == pytest.approx(0.3662, abs=5e-5)
    none = scores.share_with_interval(np.zeros(20))
    assert none["lower"] == pytest.approx(0)
    assert none["upper"] == pytest.approx(0.1611, abs=5e-5)
    assert np.isnan(scores.share_with_interval(np.zeros(0))["accuracy"])


def test_a_model_that_knows_its_odds_is_calibrated():
    rng = np.random.default_rng(0)
    true = rng.normal(size=40_000) * 2
    observed = np.where(rng.random(40_000) < 1 / (1 + np.exp(-true)), true, -true)
    assert scores.calibration(observed)["error"] < 0.01
    boastful = scores.calibration(observed * 3)
    assert boastful["error"] > 0.05
    assert all(one["stated"] >= one["right"] - 0.02 for one in boastful["bins"])
    assert scores.calibration(np.array([0.0, 0.0]))["bins"] == [{"stated": 0.5, "right": 0.5, "count": 2}]


def test_a_reward_that_is_length_is_seen_through():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 50, (200, 2)).astype(float)
    ranks, mask = np.tile([0, 1], (200, 1)), np.ones((200, 2))
    pairs = scores.ranked_pairs(lengths * 0.1, ranks, mask, lengths)
    bias = scores.length_bias(pairs, lengths * 0.1, mask, lengths)
    assert bias["longer_is_preferred"] == 1
    assert bias["correlation"] == pytest.approx(1)
    assert bias["accuracy_where_longer_is_better"] == 1
    assert bias["accuracy_where_shorter_is_better"] == 0
    other = rng.normal(size=(200, 2))
    fair = scores.length_bias(scores.ranked_pairs(other, ranks, mask, lengths), other, mask, lengths)
    assert abs(fair["correlation"]) < 0.15
