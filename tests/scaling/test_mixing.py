"""Mixing laws: what is planted comes out, the choice is by left-out runs, and the best mixture is the best."""

import numpy as np
import pytest

from jaxlm.scaling.mixing import (
    MixingLaw,
    best_mixture,
    choose_law,
    design_mixtures,
    fit_mixing,
    leave_one_out,
    num_needed,
)

SLOPES = np.array([[-1.2, 0.4, 0.3], [0.5, -0.9, 0.2], [0.4, 0.1, -2.0]])
PLANTED = MixingLaw("mixing law", np.array([1.1, 0.9, 0.7]), SLOPES)


@pytest.mark.parametrize(("floor", "kind"), [(0.0, "log-linear"), (1.0, "mixing law")])
def test_a_planted_law_comes_out_and_is_chosen(floor, kind):
    share_ms = design_mixtures(3, 10, seed=0)
    planted = PLANTED._replace(floor_d=PLANTED.floor_d * floor)
    loss_md = planted.predict(share_ms)
    choice = choose_law(share_ms, loss_md)
    assert choice.law.kind == kind
    assert choice.errors[kind] < 2e-3
    probe = np.random.default_rng(1).dirichlet(np.ones(3), 50)
    assert np.allclose(choice.law.predict(probe), planted.predict(probe), rtol=5e-3)


def test_left_out_errors_grow_with_noise():
    share_ms = design_mixtures(3, 12, seed=0)
    noise = np.random.default_rng(0).normal(size=(12, 3))
    errors = [
        np.abs(leave_one_out(share_ms, PLANTED.predict(share_ms) + size * noise, "mixing law")).mean()
        for size in (0.001, 0.01, 0.05)
    ]
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 0.0, 0.0)])
def test_no_other_mixture_is_better_than_the_best(weights):
    weight_d = np.array(weights)
    best_s = best_mixture(PLANTED, weight_d)
    assert best_s.sum() == pytest.approx(1)
    assert (best_s >= 0).all()
    others = np.random.default_rng(2).dirichlet(np.ones(3), 20_000)
    least = (PLANTED.predict(others) @ weight_d).min()
    assert float((PLANTED.predict(best_s[None]) @ weight_d)[0]) <= least * (1 + 1e-5)


def test_the_design_covers_the_simplex():
    share_ms = design_mixtures(4, 9, seed=3)
    assert share_ms.shape == (9, 4)
    assert np.allclose(share_ms.sum(1), 1, atol=1e-3)
    assert (share_ms > 0).all()
    assert (share_ms[1:5].argmax(1) == np.arange(4)).all()
    assert (design_mixtures(4, 9, seed=3) == share_ms).all()


def test_what_cannot_be_fitted_is_refused():
    share_ms = design_mixtures(2, 3, seed=0)
    assert num_needed(2, "log-linear") == 3
    with pytest.raises(ValueError, match="a law needs 3"):
        choose_law(share_ms[:2], np.ones((2, 2)))
    with pytest.raises(ValueError, match="not above 0"):
        fit_mixing(share_ms, np.zeros((3, 2)), "log-linear")
    with pytest.raises(ValueError, match="at least 3"):
        design_mixtures(2, 2, seed=0)
