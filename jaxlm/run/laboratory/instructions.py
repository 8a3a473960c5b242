"""Unseen instructions: how many are followed, by the number of instructions learnt from."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.core.types import Params
from jaxlm.data.puzzles.draws import supervised
from jaxlm.data.puzzles.instructions import NUM_GIVEN, VOCAB_SIZE, InstructionsConfig, instruction_rows, spell
from jaxlm.evals.intervals import Interval, share
from jaxlm.models.decoder import make_decoder
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.run.laboratory.config import LaboratoryConfig, TrainingConfig
from jaxlm.run.laboratory.learning import Check, Pupil, Record, Trial, learn, make_judge, on_this_machine
from jaxlm.run.laboratory.scores import over_sizes, pool_scores, scored, trend_of
from jaxlm.train.objectives import causal_objective

SETS = ("seen", "unseen")


def instruction_trials(config: LaboratoryConfig) -> list[Trial]:
    """A model for each number of templates and seed."""
    part, trials = config.instructions, []
    for seed in range(config.seed, config.seed + part.num_seeds):
        for count in part.num_templates:
            name = f"instructions-{count}-templates-seed{seed}"
            settings = (part.data(count), part.model, part.training, part.num_questions, seed)
            trials.append(Trial(name, functools.partial(_run, *settings)))
    return trials


def _run(
    data: InstructionsConfig,
    config: DecoderConfig,
    training: TrainingConfig,
    num_questions: int,
    seed: int,
) -> Record:
    asked = {
        which: instruction_rows(data, seed, 0, num_questions, unseen=which == "unseen", for_test=True) for which in SETS
    }
    row_len = asked["seen"][0].shape[1] - 1
    model = make_decoder(on_this_machine(dataclasses.replace(config, vocab_size=VOCAB_SIZE, max_seq_len=row_len)))
    judge = make_judge(model)

    def batch(cursor: int) -> dict[str, np.ndarray]:
        rows, _ = instruction_rows(data, seed, cursor, training.num_rows(row_len))
        return supervised(rows, NUM_GIVEN)

    def examine(params: Params) -> Record:
        found: Record = {}
        for which, (rows, templates) in asked.items():
            judged = judge(params, supervised(rows, NUM_GIVEN))
            score = _by_template(np.asarray(judged.right_b, np.float64), templates)
            found[which] = score.value
            found[f"{which}_lower"], found[f"{which}_upper"] = score.lower, score.upper
            found[f"{which}_nats"] = float(np.mean(np.asarray(judged.nats_b)))
        return found

    pupil = Pupil(model.init, causal_objective(model), batch, examine, "unseen", row_len)
    _, record = learn(pupil, training, seed=seed)
    return record | {
        "num_templates": data.num_templates,
        "seed": seed,
        "layers": config.num_layers,
        "width": config.model_dim,
        "examples": [spell(row) for row in asked["unseen"][0][:4]],
    }


def _by_template(right: np.ndarray, templates: np.ndarray) -> Interval:
    """Questions of one template are right or wrong together."""
    return share(right, [str(i) for i in templates])


def instruction_results(config: LaboratoryConfig, records: Sequence[Record]) -> dict[str, Any]:
    """What the report shows: ``runs``, both scores over the number of templates, and whether the unseen ones rise."""
    counts = [record["num_templates"] for record in records]
    last = [record["looks"][-1] for record in records]
    scores = {which: [scored(look, which, f"{which}_") for look in last] for which in SETS}
    curves = {which: over_sizes(counts, one) for which, one in scores.items()}
    shape, unseen = trend_of(pool_scores(counts, scores["unseen"]), seed=config.seed), curves["unseen"]
    found = ", ".join(f"{count:.0f}: {value:.1%}" for count, value in zip(unseen["size"], unseen["value"], strict=True))
    check = Check(
        "unseen templates are followed, by the number learnt from", "rises", f"{shape}; {found}", shape == "rises"
    )
    return {
        "runs": list(records),
        "curves": curves,
        "trend": shape,
        "scores": {
            f"{which}, {count:.0f} templates": {end: curve[end][i] for end in ("value", "lower", "upper")}
            for which, curve in curves.items()
            for i, count in enumerate(curve["size"])
        },
        "checks": [check._asdict()],
    }
