"""Sums answered at once, and after steps that the model writes itself: over widths and over tokens read."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.core.types import Params
from jaxlm.data.puzzles.arithmetic import SYMBOLS, ArithmeticConfig, draw_questions, spell
from jaxlm.data.puzzles.draws import supervised
from jaxlm.evals.emergence import share_errors
from jaxlm.evals.intervals import share
from jaxlm.evals.paired import mcnemar, paired_difference
from jaxlm.io.agree import say
from jaxlm.models.decoder import make_decoder
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.run.laboratory.config import LaboratoryConfig, QuestionsConfig, TrainingConfig, of_width
from jaxlm.run.laboratory.learning import Check, Pupil, Record, Trial, learn, make_judge, make_writer, on_this_machine
from jaxlm.train.objectives import causal_objective

FORMS = ("direct", "steps")
TARGETS: dict[str, dict[str, tuple[float, float]]] = {
    "sum": {"direct": (0.0, 0.15), "steps": (0.98, 1.0)},
    "parity": {"direct": (0.45, 0.55), "steps": (0.98, 1.0)},
}
"""Where the share of right answers is to lie, of the widest model."""
SURE = 0.01
"""p of McNemar's test under which two forms differ."""


def arithmetic_trials(config: LaboratoryConfig) -> list[Trial]:
    """A model for each kind, form, width and seed."""
    part, trials = config.arithmetic, []
    for seed in range(config.seed, config.seed + part.num_seeds):
        for one in part.kinds:
            for form in FORMS:
                for width in part.widths:
                    name = f"arithmetic-{one.questions.kind}-{form}-width{width}-seed{seed}"
                    model = of_width(part.model, width)
                    settings = (one.questions, form, model, one.training, part.num_questions, seed)
                    trials.append(Trial(name, functools.partial(_run, *settings)))
    return trials


def _run(
    questions: ArithmeticConfig,
    form: str,
    config: DecoderConfig,
    training: TrainingConfig,
    num_questions: int,
    seed: int,
) -> Record:
    with_steps = form == "steps"
    asked = draw_questions(questions, seed, 0, num_questions, for_test=True)
    prompts, solved = asked.prompt(with_steps=with_steps), asked.rows(with_steps=with_steps)
    num_given, row_len = prompts.shape[1], solved.shape[1]
    model = make_decoder(on_this_machine(dataclasses.replace(config, vocab_size=len(SYMBOLS), max_seq_len=row_len)))
    judge, write = make_judge(model), make_writer(model, row_len - num_given)
    test = supervised(solved, num_given)

    def batch(cursor: int) -> dict[str, np.ndarray]:
        drawn = draw_questions(questions, seed, cursor, training.num_rows(row_len - 1))
        return supervised(drawn.rows(with_steps=with_steps), num_given)

    def right(params: Params) -> np.ndarray:
        """By the answer, whatever the steps before it."""
        written = write(params, prompts)[:, -asked.answer.shape[1] - with_steps :]
        return (written == solved[:, -written.shape[1] :]).all(axis=1)

    def examine(params: Params) -> Record:
        nats_b = np.asarray(judge(params, test).nats_b, np.float64)
        return {
            "right": float(np.mean(right(params))),
            "nats": float(nats_b.mean()),
            "nats_error": float(nats_b.std(ddof=1) / np.sqrt(len(nats_b))),
        }

    pupil = Pupil(model.init, causal_objective(model), batch, examine, "right", row_len - 1)
    params, record = learn(pupil, training, seed=seed)
    return record | {
        "kind": questions.kind,
        "length": questions.length,
        "form": form,
        "width": config.model_dim,
        "layers": config.num_layers,
        "seed": seed,
        "right": right(params).astype(int).tolist(),
        "example": {
            "prompt": spell(prompts[0]),
            "written": spell(write(params, prompts[:1])[0]),
            "solution": spell(solved[0, num_given:]),
        },
    }


def arithmetic_results(config: LaboratoryConfig, records: Sequence[Record]) -> dict[str, Any]:
    """What the report shows: ``runs`` without their items, what steps are worth to each kind of which a pair of runs is
    there, and ``checks``."""
    runs = [
        {key: value for key, value in one.items() if key != "right"} | {"final": share(one["right"]).record()}
        for one in records
    ]
    found = [_worth(one, config.arithmetic.widths[-1], records) for one in config.arithmetic.kinds]
    worth = [one for one in found if one is not None]
    checks = [check for one in worth for check in _checks(one)]
    scores = {f"{one['kind']}, {one['form']}, width {one['width']}, seed {one['seed']}": one["final"] for one in runs}
    return {"runs": runs, "worth": worth, "scores": scores, "ladder": _ladder(records), "checks": checks}


def _ladder(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Both metrics of every examination but the first, over tokens read: a table that ``tools.emergence`` judges."""
    rows = []
    for one in records:
        task = f"{one['kind']} {one['form']} width {one['width']} seed {one['seed']}"
        for look in one["looks"][1:]:
            error = float(share_errors([look["right"]], len(one["right"]))[0])
            metrics = {"exact_match": (look["right"], error), "nats": (look["nats"], look["nats_error"])}
            rows += [
                {"task": task, "tokens": look["tokens"], "metric": name, "score": score, "error": error}
                for name, (score, error) in metrics.items()
            ]
    return rows


def _worth(one: QuestionsConfig, width: int, records: Sequence[Record]) -> dict[str, Any] | None:
    """Of the widest model, all seeds together that have both forms: these on the same questions. None without any."""
    kind = one.questions.kind
    own = [record for record in records if record["kind"] == kind and record["width"] == width]
    answered = {form: {record["seed"]: record["right"] for record in own if record["form"] == form} for form in FORMS}
    seeds = [seed for seed in answered["steps"] if seed in answered["direct"]]
    if not seeds:
        say(f"{kind}: of width {width} no seed has both forms: what steps are worth is not known")
        return None
    right = {form: np.concatenate([answered[form][seed] for seed in seeds]) for form in FORMS}
    # Seeds are asked different questions, so items are independent; two forms of one seed the same ones.
    difference = paired_difference(right["steps"], right["direct"])
    p = mcnemar(right["steps"], right["direct"])
    word = "steps make no difference"
    if p < SURE:
        word = "steps help" if difference.difference > 0 else "steps hurt"
    return {
        "kind": kind,
        "length": one.questions.length,
        **{form: share(values).record() for form, values in right.items()},
        "difference": difference._asdict(),
        "p": p,
        "verdict": word,
    }


def _checks(worth: dict[str, Any]) -> list[dict[str, Any]]:
    checks = []
    for form, (low, high) in TARGETS.get(worth["kind"], {}).items():
        value = worth[form]["value"]
        target = f"{low:.0%} to {high:.0%}"
        if low == 0 or high == 1:
            target = f"at most {high:.0%}" if low == 0 else f"at least {low:.0%}"
        shown = f"{value:.1%} ({worth[form]['lower']:.1%} to {worth[form]['upper']:.1%})"
        what = f"{worth['kind']} of {worth['length']}, {'with steps' if form == 'steps' else 'at once'}"
        checks.append(Check(what, target, shown, low <= value <= high)._asdict())
    return checks
