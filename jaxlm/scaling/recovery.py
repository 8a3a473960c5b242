"""Do the intervals hold what they say? Runs made from known constants, fitted again, many times."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN, ChinchillaFit, allocate
from jaxlm.scaling.fitting import fit_form
from jaxlm.scaling.forms import CHINCHILLA, Form
from jaxlm.scaling.minimise import Objective, minimise
from jaxlm.scaling.profile import coverage, profile_bounds
from jaxlm.scaling.published import BESIROGLU

TRUTH = np.array([*np.log([BESIROGLU[name] for name in ("A", "B", "E")]), BESIROGLU["alpha"], BESIROGLU["beta"]])
"""Besiroglu et al. (2024): log A, log B, log E, alpha, beta."""


class Recovery(NamedTuple):
    """What a study found."""

    coverage: dict[str, float]
    """Share of the 95 % intervals that hold the constant."""
    unbounded: float
    """Share of all ends that the likelihood does not bound."""
    num_trials: int
    num_runs: int


def design(num_budgets: int = 8, sizes: int = 9, low: float = 1e18, high: float = 3e21) -> dict[str, np.ndarray]:
    """N and D of a sweep: budgets evenly spread in logarithms, sizes within a factor 4 of the best at each."""
    constants = CHINCHILLA.read(TRUTH)
    n, d = [], []
    for flops in np.geomspace(low, high, num_budgets):
        here = float(allocate(constants, flops).num_params) * np.geomspace(0.25, 4.0, sizes)
        n.append(here)
        d.append(flops / FLOPS_PER_PARAM_TOKEN / here)
    return {"N": np.concatenate(n), "D": np.concatenate(d)}


@functools.cache
def _squares(form: Form) -> Objective:
    def objective(theta: jax.Array, log_loss_n: jax.Array, x_kn: Any) -> jax.Array:
        return ((form.log_loss(theta, x_kn) - log_loss_n) ** 2).sum()

    return objective


def fit_tables(form: Form, start_p: np.ndarray, inputs: Mapping[str, np.ndarray], loss_bn: np.ndarray) -> np.ndarray:
    """Least squares of log loss for b tables of runs at the same inputs, all searches from one start: theta [b, p]."""
    x_kn = np.log(np.stack([inputs[name] for name in form.inputs]))
    mean_k = x_kn.mean(axis=1)
    starts = np.repeat(form.centred(start_p, mean_k)[None], len(loss_bn), axis=0)
    # What stands for the weights are here the observations: they are what differs from search to search.
    found = minimise(_squares(form), starts, np.log(loss_bn), x_kn - mean_k[:, None], tolerance=1e-13)
    return form.centred(found.theta_bp, mean_k, -1.0)


def recover(num_trials: int = 2000, *, noise: float = 0.005, seed: int = 0, form: Form = CHINCHILLA) -> Recovery:
    """Coverage of profile intervals where log losses scatter by ``noise`` (normal) about the law of `TRUTH`.

    Half a per cent is what runs of one size differ by in Hoffmann's figures (0.47 % on average).
    """
    inputs = design()
    clean_n = form.predict(TRUTH, *inputs.values())
    loss_bn = _noisy(clean_n, num_trials, noise, seed)
    ends = profile_bounds(form, fit_tables(form, TRUTH, inputs, loss_bn), inputs, loss_bn)
    unbounded = float((~np.isfinite(ends) | (ends == 0)).mean())
    return Recovery(coverage(form, TRUTH, ends), unbounded, num_trials, len(clean_n))


def recover_by_bootstrap(
    num_trials: int = 300, *, noise: float = 0.005, seed: int = 0, resamples: int = 500, ahead: float = 100.0
) -> Recovery:
    """The same of the default fit, Huber's function with resamples; its predictions too, ``ahead`` times the largest
    budget: the loss of the best model there, and its N."""
    inputs = design()
    truth = {name: float(value) for name, value in CHINCHILLA.read(TRUTH).items()}
    flops = ahead * FLOPS_PER_PARAM_TOKEN * float((inputs["N"] * inputs["D"]).max())
    best = allocate(truth, flops)
    clean_n = CHINCHILLA.predict(TRUTH, *inputs.values())
    held = dict.fromkeys([*truth, "loss ahead", "N ahead"], 0)
    for trial, loss_n in enumerate(_noisy(clean_n, num_trials, noise, seed)):
        fit = fit_form(
            CHINCHILLA, inputs, loss_n, resamples=resamples, seed=trial, starts_sp=TRUTH[None], kind=ChinchillaFit
        )
        ends = {
            **fit.intervals,
            "loss ahead": fit.predict_interval(best.num_params, best.num_tokens),
            "N ahead": fit.optimal_intervals(flops).num_params,
        }
        for name, value in {**truth, "loss ahead": float(best.loss), "N ahead": float(best.num_params)}.items():
            held[name] += ends[name][0] <= value <= ends[name][1]
    return Recovery({name: count / num_trials for name, count in held.items()}, 0.0, num_trials, len(clean_n))


def _noisy(clean_n: np.ndarray, num_trials: int, noise: float, seed: int) -> np.ndarray:
    return clean_n * np.exp(noise * np.random.default_rng(seed).standard_normal((num_trials, len(clean_n))))
