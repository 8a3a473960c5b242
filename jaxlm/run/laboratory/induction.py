"""Rows that repeat themselves: when does a model find out, and does it need two layers? And how does width matter?"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.types import Array, Params
from jaxlm.data.puzzles.repeats import RepeatsConfig, repeat_rows
from jaxlm.evals.changes import date_change
from jaxlm.evals.heads import head_scores
from jaxlm.evals.intervals import ratio
from jaxlm.losses.tokens import token_nll
from jaxlm.models.decoder import make_decoder
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.run.laboratory.config import LaboratoryConfig, TrainingConfig, of_width
from jaxlm.run.laboratory.learning import Check, Pupil, Record, Trial, learn, on_this_machine
from jaxlm.run.laboratory.scores import pool_scores, scored, trend_of
from jaxlm.train.objectives import causal_objective

REACHED, WITHIN_STEPS = 0.95, 1000
"""What two layers are to reach, and by when."""
UNDER = 0.25
"""What one layer is to stay under."""
NONE_LEFT = "every model diverged"


def induction_trials(config: LaboratoryConfig) -> list[Trial]:
    """A model for each depth and seed."""
    part = config.induction
    return [
        _trial(f"induction-{depth}-layers-seed{seed}", part, _of_depth(part.model, depth), seed)
        for seed in range(config.seed, config.seed + part.num_seeds)
        for depth in part.depths
    ]


def copying_trials(config: LaboratoryConfig) -> list[Trial]:
    """A model for each width and seed."""
    part = config.copying
    return [
        _trial(f"copying-width{width}-seed{seed}", part, of_width(part.model, width), seed)
        for seed in range(config.seed, config.seed + part.num_seeds)
        for width in part.widths
    ]


def _of_depth(model: DecoderConfig, depth: int) -> DecoderConfig:
    return dataclasses.replace(model, num_layers=depth)


def _trial(name: str, part: Any, model: DecoderConfig, seed: int) -> Trial:
    return Trial(name, functools.partial(_run, part.rows, model, part.training, part.num_test_rows, seed))


def _run(rows: RepeatsConfig, config: DecoderConfig, training: TrainingConfig, num_test_rows: int, seed: int) -> Record:
    config = on_this_machine(dataclasses.replace(config, vocab_size=rows.num_symbols, max_seq_len=rows.seq_len))
    model, num_rows = make_decoder(config), training.num_rows(rows.seq_len)
    test = repeat_rows(rows, seed, 0, num_test_rows, for_test=True)

    def batch(cursor: int) -> dict[str, np.ndarray]:
        found = repeat_rows(rows, seed, cursor, num_rows)
        return {key: found[key] for key in ("tokens", "targets", "loss_mask")}

    @jax.jit
    def examine(params: Params, test: Mapping[str, Array]) -> dict[str, Array]:
        logits_btv = model.apply_fn(params, test["tokens"])
        right_bt = (jnp.argmax(logits_btv, axis=-1) == test["targets"]) & test["known"]
        nll_bt, _ = token_nll(logits_btv, test["targets"])
        heads = head_scores(config, params, test["tokens"])
        return {
            "right_b": jnp.sum(right_bt, axis=1, dtype=jnp.float32),
            "nll_known": jnp.mean(nll_bt, where=test["known"]),
            "nll_new": jnp.mean(nll_bt, where=~test["known"]),
            "previous_token": heads.previous_token,
            "prefix_matching": heads.prefix_matching,
        }

    known_b = test["known"].sum(axis=1)

    def figures(params: Params) -> Record:
        found = jax.device_get(examine(params, test))
        score = ratio(found["right_b"], known_b)
        return {
            "repeats": score.value,
            "lower": max(0.0, score.lower),
            "upper": min(1.0, score.upper),
            "in_context": float(found["nll_new"] - found["nll_known"]),
            "previous_token": found["previous_token"].tolist(),
            "prefix_matching": found["prefix_matching"].tolist(),
        }

    pupil = Pupil(model.init, causal_objective(model), batch, figures, "repeats", rows.seq_len)
    _, record = learn(pupil, training, seed=seed)
    return record | {"layers": config.num_layers, "width": config.model_dim, "seed": seed}


def induction_results(config: LaboratoryConfig, records: Sequence[Record]) -> dict[str, Any]:
    """What the report shows of the depths: ``runs`` with their ``change``, and ``checks``."""
    runs: list[Record] = [record | {"change": _change(record)} for record in records]
    deep, flat = config.induction.depths[-1], config.induction.depths[0]
    scores = {
        f"layers {one['layers']}, seed {one['seed']}": scored(one["looks"][-1], "repeats")
        | {"change": one["change"] and one["change"]["step"]}
        for one in runs
    }
    checks = [_deep_check(deep, runs), _flat_check(flat, runs)] if deep > flat else []
    return {"runs": runs, "scores": scores, "checks": checks}


def _change(record: Record) -> dict[str, Any] | None:
    looks = record["looks"]
    change = date_change([one["step"] for one in looks], [one["repeats"] for one in looks])
    return None if change is None else change._asdict() | {"sharp": change.sharp}


def _deep_check(depth: int, runs: Sequence[Record]) -> dict[str, Any]:
    found, holds = [], []
    for run in runs:
        if run["layers"] != depth:
            continue
        reached = next((one["step"] for one in run["looks"] if one["repeats"] >= REACHED), None)
        change = run["change"]
        holds.append(reached is not None and reached <= WITHIN_STEPS and change is not None and change["sharp"])
        dated = "no change" if change is None else f"change at {change['step']:.0f}"
        found.append(f"{dated}, {f'{REACHED:.0%} at {reached}' if reached is not None else f'never {REACHED:.0%}'}")
    return Check(
        f"layers {depth}: learn to repeat",
        f"{REACHED:.0%} within {WITHIN_STEPS:,} steps through a phase change, all seeds",
        "; ".join(found) or NONE_LEFT,
        bool(holds) and all(holds),
    )._asdict()


def _flat_check(depth: int, runs: Sequence[Record]) -> dict[str, Any]:
    most = [max(one["repeats"] for one in run["looks"]) for run in runs if run["layers"] == depth]
    return Check(
        f"layers {depth}: do not",
        f"under {UNDER:.0%} at all times, all seeds",
        "at most " + "; ".join(f"{score:.1%}" for score in most) if most else NONE_LEFT,
        bool(most) and all(score < UNDER for score in most),
    )._asdict()


def copying_results(config: LaboratoryConfig, records: Sequence[Record]) -> dict[str, Any]:
    """What the report shows of the widths: ``runs``, and whether the share rises with size."""
    scores = [scored(one["looks"][-1], "repeats") for one in records]
    return {
        "runs": [record | {"change": _change(record)} for record in records],
        "trend": trend_of(pool_scores([one["num_params"] for one in records], scores), seed=config.seed),
        "scores": {
            f"width {one['width']}, seed {one['seed']}": score for one, score in zip(records, scores, strict=True)
        },
        "checks": [],
    }
