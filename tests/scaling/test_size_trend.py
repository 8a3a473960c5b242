"""Trends over size: rises, falls, turns; how often chance is accused."""

import numpy as np
import pytest

from jaxlm.scaling.size_trend import Ladder, SeedErrors, holm, pool_seeds, rising_fit, size_trend, size_trend_of_items

SIZES = np.geomspace(1e7, 1e10, 8)
ERRORS = np.full(8, 0.01)
RISING = np.array([0.25, 0.25, 0.26, 0.3, 0.4, 0.55, 0.63, 0.65])
VALLEY = np.array([0.5, 0.44, 0.4, 0.36, 0.35, 0.4, 0.5, 0.6])


@pytest.mark.parametrize(
    ("scores", "shape", "turn"),
    [
        (RISING, "rises", None),
        (RISING[::-1], "falls", None),
        (VALLEY, "U", SIZES[4]),
        (1 - VALLEY, "inverted U", SIZES[4]),
        (np.full(8, 0.25), "no trend", None),
        (np.array([0.5, 0.3, 0.5, 0.3, 0.5, 0.3, 0.5, 0.3]), "irregular", None),
    ],
)
def test_shapes_are_told_apart(scores: np.ndarray, shape: str, turn: float | None):
    found = size_trend(SIZES, scores, ERRORS)
    assert found.shape == shape
    assert found.inverse is (shape == "falls")  # and JSON can say it
    assert found.turn == pytest.approx(turn)


def test_a_line_gives_its_slope_and_the_interval_covers_it():
    line = 0.3 + 0.05 * np.log10(SIZES / 1e7)
    assert size_trend(SIZES, line, ERRORS).slope == pytest.approx(0.05)
    noise = np.random.default_rng(0).standard_normal((400, 8)) * 0.01
    held = [np.prod(np.subtract(size_trend(SIZES, line + n, ERRORS, draws=1).interval, 0.05)) < 0 for n in noise]
    assert 0.92 < np.mean(held) < 0.98


def test_chance_is_accused_as_often_as_the_level_says_and_a_rise_never():
    noise = np.random.default_rng(1).standard_normal((400, 8)) * 0.01
    flat = [size_trend(SIZES, 0.25 + n, ERRORS, draws=2000).shape for n in noise]
    # 2.5 % for each of the two hypotheses.
    assert np.mean([shape == "falls" for shape in flat]) < 0.045
    assert np.mean([shape != "no trend" for shape in flat]) < 0.08
    rising = [size_trend(SIZES, RISING + n, ERRORS, draws=2000).shape for n in noise[:100]]
    assert np.mean([shape == "rises" for shape in rising]) > 0.97


def test_scatter_from_model_to_model_is_no_trend():
    jagged = np.array([0.25, 0.3, 0.2, 0.29, 0.22, 0.3, 0.21, 0.27])
    assert size_trend(SIZES, jagged, ERRORS).shape != "no trend"
    assert size_trend(SIZES, jagged, ERRORS, scatter=0.05).shape == "no trend"


def test_the_same_questions_cancel():
    rng = np.random.default_rng(2)
    hard = rng.standard_normal(60)
    scores = hard + np.linspace(0, -0.3, 5)[:, None] + 0.1 * rng.standard_normal((5, 60))
    sizes = SIZES[:5]
    paired = size_trend_of_items(sizes, scores)
    apart = size_trend(sizes, scores.mean(axis=1), scores.std(axis=1, ddof=1) / np.sqrt(60))
    assert (paired.shape, apart.shape) == ("falls", "no trend")
    # The slope of means is the mean of the questions' slopes, and so is its error.
    slopes = np.polyfit(np.log10(sizes), scores, 1)[0]
    assert np.ptp(paired.interval) / 2 == pytest.approx(1.96 * slopes.std(ddof=1) / np.sqrt(60), rel=0.05)


def test_isotonic_regression():
    fit = rising_fit(np.array([1.0, 3.0, 2.0, 4.0, 0.0]), np.array([1.0, 1.0, 3.0, 1.0, 1.0]))
    np.testing.assert_allclose(fit, [1.0, *[13 / 6] * 4])
    np.testing.assert_allclose(rising_fit(RISING, np.ones(8)), RISING)


def test_seeds_are_pooled():
    ladder = pool_seeds([1e6, 1e6, 1e7, 1e7, 1e8], [0.1, 0.3, 0.4, 0.6, 0.7], np.full(5, 0.05))
    np.testing.assert_allclose(ladder.scores, [0.2, 0.5, 0.7])
    assert ladder.scatter == pytest.approx(np.sqrt(0.02))
    np.testing.assert_allclose(ladder.errors**2, 0.0025 + 0.02 / np.array([2, 2, 1]))
    assert ladder.seed_errors is not None
    assert ladder.seed_errors.spare == 2
    alone = pool_seeds(SIZES[::-1], RISING[::-1], ERRORS)
    assert alone.scatter is None
    np.testing.assert_array_equal(alone.scores, RISING)


@pytest.mark.parametrize(("seeds", "sizes"), [(2, 3), (2, 4)])
def test_with_few_seeds_the_interval_is_students(seeds, sizes):
    """Nearly all of the errors is what seeds differ by, and no score depends on size: 95 % of the intervals hold that,
    and no more than chance allows are called a fall. With normal errors 85 and 88 % did."""
    rng = np.random.default_rng(3)
    size_n = np.repeat(np.geomspace(1e6, 1e8, sizes), seeds)
    held, falls, trials = 0, 0, 400
    for _ in range(trials):
        ladder = pool_seeds(size_n, 0.5 + 0.05 * rng.standard_normal(len(size_n)), np.full(len(size_n), 1e-3))
        trend = size_trend(*ladder[:3], seed_errors=ladder.seed_errors, draws=500)
        held += trend.interval[0] <= 0 <= trend.interval[1]
        falls += trend.inverse
    assert 0.92 < held / trials < 0.98
    assert falls / trials < 0.025 + 3 * np.sqrt(0.025 / trials)


def test_students_quantile_counts_only_what_seeds_told():
    errors, seeds = np.full(3, 0.1), SeedErrors(np.full(3, 0.1), 2)
    ladder = Ladder(SIZES[:3], RISING[:3], errors, 0.1, seeds)
    np.testing.assert_allclose(ladder.half_widths(), 0.4303, rtol=1e-3)
    known = ladder._replace(seed_errors=SeedErrors(np.full(3, 1e-4), 2))
    np.testing.assert_allclose(known.half_widths(), 0.196, rtol=1e-3)


def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


@pytest.mark.parametrize(
    ("sizes", "scores", "errors", "message"),
    [
        (SIZES[:2], RISING[:2], ERRORS[:2], "at least 3 sizes"),
        (np.r_[SIZES[:7], SIZES[6]], RISING, ERRORS, "each once"),
        (SIZES, np.r_[RISING[:7], np.nan], ERRORS, "not NaN"),
        (SIZES, RISING, np.zeros(8), "errors must be above 0"),
        (-SIZES, RISING, ERRORS, "above 0"),
        (SIZES, RISING, ERRORS[:7], "one of each"),
    ],
)
def test_bad_input_is_said(sizes, scores, errors, message):
    with pytest.raises(ValueError, match=message):
        size_trend(sizes, scores, errors)
    with pytest.raises(ValueError, match="more questions than models"):
        size_trend_of_items(SIZES, np.ones((8, 3)))
