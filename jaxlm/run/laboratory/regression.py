"""Linear functions in the context: how near do models of several widths come to ridge regression?"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.types import Array, Batch, Params, PyTree, Term, Terms
from jaxlm.data.puzzles.regressions import RegressionsConfig, regression_rows, ridge_guesses
from jaxlm.evals.intervals import ratio
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.numbers import NumberReader, make_number_reader
from jaxlm.run.laboratory.config import LaboratoryConfig, TrainingConfig, of_width
from jaxlm.run.laboratory.learning import Pupil, Record, Trial, learn, on_this_machine
from jaxlm.run.laboratory.scores import pool_scores, scored, trend_of
from jaxlm.train.step import Objective


def regression_trials(config: LaboratoryConfig) -> list[Trial]:
    """A model for each width and seed."""
    part, trials = config.regression, []
    for seed in range(config.seed, config.seed + part.num_seeds):
        for width in part.widths:
            name = f"regression-width{width}-seed{seed}"
            settings = (part.rows, of_width(part.model, width), part.training, part.num_test_rows, seed)
            trials.append(Trial(name, functools.partial(_run, *settings)))
    return trials


def as_inputs(x_bni: np.ndarray, y_bn: np.ndarray) -> np.ndarray:
    """x_1, y_1, x_2, ... as positions of dim + 3 numbers, f32 [b, 2n, dim + 3]: x or zeros, y or 0, and two that say
    which of both it is."""
    b, n, dim = x_bni.shape
    inputs = np.zeros((b, 2 * n, dim + 3), np.float32)
    inputs[:, ::2, :dim], inputs[:, ::2, dim + 1] = x_bni, 1
    inputs[:, 1::2, dim], inputs[:, 1::2, dim + 2] = y_bn, 1
    return inputs


def squared_error_objective(reader: NumberReader) -> Objective:
    """Mean squared error of what is said behind each x of its y. The batch: ``inputs`` of `as_inputs`, and ``y``."""

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen, key
        error_bn = reader.outputs(params, batch["inputs"])[:, ::2] - batch["y"]
        return {"squared_error": Term(jnp.sum(jnp.square(error_bn)), jnp.asarray(error_bn.size, jnp.float32))}, carry

    return Objective(terms, lambda batch: {"squared_error": jnp.asarray(batch["y"].size, jnp.float32)})


def _run(
    rows: RegressionsConfig, config: DecoderConfig, training: TrainingConfig, num_test_rows: int, seed: int
) -> Record:
    row_len = 2 * rows.num_pairs
    reader = make_number_reader(on_this_machine(dataclasses.replace(config, max_seq_len=row_len)), rows.dim + 3)
    test = regression_rows(rows, seed, 0, num_test_rows, for_test=True)
    test_inputs = as_inputs(test["x"], test["y"])
    ridge_bn = np.square(ridge_guesses(test["x"], test["y"], rows.penalty) - test["y"])
    outputs = jax.jit(reader.outputs)

    def batch(cursor: int) -> dict[str, np.ndarray]:
        drawn = regression_rows(rows, seed, cursor, training.num_rows(row_len))
        return {"inputs": as_inputs(drawn["x"], drawn["y"]), "y": drawn["y"]}

    def examine(params: Params) -> Record:
        error_bn = np.square(np.asarray(outputs(params, test_inputs), np.float64)[:, ::2] - test["y"])
        # From as many examples on as there are coordinates: before, nobody can know w.
        score = ratio(error_bn[:, rows.dim :].sum(axis=1), ridge_bn[:, rows.dim :].sum(axis=1))
        return {
            "error": error_bn.mean(axis=0).tolist(),
            "over_ridge": score.value,
            "lower": score.lower,
            "upper": score.upper,
        }

    pupil = Pupil(reader.init, squared_error_objective(reader), batch, examine, "over_ridge", row_len)
    _, record = learn(pupil, training, seed=seed)
    return record | {"layers": config.num_layers, "width": config.model_dim, "seed": seed}


def regression_results(config: LaboratoryConfig, records: Sequence[Record]) -> dict[str, Any]:
    """What the report shows: ``runs``, and the mean squared ``errors`` of the two that know how by examples seen."""
    part = config.regression
    test = regression_rows(part.rows, config.seed, 0, part.num_test_rows, for_test=True)
    guesses = {
        "least squares": ridge_guesses(test["x"], test["y"], 0.0),
        "ridge": ridge_guesses(test["x"], test["y"], part.rows.penalty),
    }
    errors = {name: np.square(guess - test["y"]).mean(axis=0).tolist() for name, guess in guesses.items()}
    scores = [scored(one["looks"][-1], "over_ridge") for one in records]
    names = [f"width {one['width']}, seed {one['seed']}, over ridge" for one in records]
    return {
        "runs": list(records),
        "errors": errors,
        "dim": part.rows.dim,
        "trend": trend_of(pool_scores([one["num_params"] for one in records], scores), seed=config.seed),
        "scores": dict(zip(names, scores, strict=True)),
        "checks": [],
    }
