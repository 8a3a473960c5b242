"""``python -m experiments.scaling limits --csv FILE --columns task=..,n=..,score=..,error=..``: where size fails.

Of each task whether its score rises with size, falls (inverse scaling) or turns; with ``loss=..`` also the error of the
largest models predicted from the loss by the others.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.page import text_table
from jaxlm.io.run_dir import json_ready
from jaxlm.io.run_table import numbers, parse_roles, read_table
from jaxlm.run.parsers import Parser, checked, not_negative, seed_number
from jaxlm.scaling.downstream import EQUATIONS, Link, fit_error_of_loss
from jaxlm.scaling.size_trend import SizeTrend, holm, pool_seeds, size_trend

ROLES = {
    "task": "its name", "n": "parameters", "score": "higher is better", "error": "standard error of the score",
    "loss": "nats a token",
}  # fmt: skip
_LEAST_RESAMPLES = 100
COLUMNS = ("task", "scatter", "shape", "a tenfold size", "95 % interval", "p never falls", "all tasks", "turn")


def limits_main(argv: list[str]) -> int:
    """Tables on stderr, one JSON object on stdout."""
    options = _parser().parse_args(argv)
    if options.resamples < _LEAST_RESAMPLES:
        raise UserError(f"--resamples {options.resamples} is too few for intervals: use at least {_LEAST_RESAMPLES}")
    columns = parse_roles(options.columns, ROLES)
    if missing := [role for role in ("n", "score", "error") if role not in columns]:
        raise UserError(f"--columns has no {missing[0]}=COLUMN")
    rows = _read(options.csv, columns)
    if options.lower_is_better:
        rows["score"] = -rows["score"]
    judged = judge_tasks(rows, scatter=options.scatter, seed=options.seed)
    figures = trend_figures(judged)
    print(text_table(COLUMNS, trend_rows(judged)), file=sys.stderr)
    if "loss" in rows:
        for task in judged:
            sentence, from_loss = _from_loss(task, rows, options)
            print(sentence, file=sys.stderr)
            figures["tasks"][task] |= from_loss
    print(json.dumps(json_ready(figures), allow_nan=False))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.scaling limits", description="scores over sizes: which fall, which turn"
    )
    parser.add_argument("--csv", type=Path, required=True, metavar="FILE", help="scores of models, CSV or .parquet")
    parser.add_argument(
        "--columns", required=True, metavar="task=..,n=..,score=..,error=..",
        help="task may be left out; models of one size are seeds; loss=.. for the second step; COLUMN*0.01 multiplies",
    )  # fmt: skip
    parser.add_argument("--lower-is-better", action="store_true", help="the score is an error or a bias")
    parser.add_argument(
        "--scatter", type=not_negative, default=0.0, metavar="S",
        help="deviation between models of one size, where each size stands once; default %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--link", choices=tuple(EQUATIONS), default="exponential", help="error of loss; default %(default)s"
    )
    parser.add_argument(
        "--chance",
        type=checked(float, lambda p: 0 < p <= 1, "above 0 and at most 1"),
        metavar="P",
        help="error of a guess: 0.75 with four choices; else fitted",
    )
    parser.add_argument("--resamples", type=int, default=1000, metavar="B", help="default %(default)s")
    parser.add_argument("--seed", type=seed_number, default=0, help="default %(default)s")
    return parser


def _read(path: Path, columns: dict[str, str]) -> dict[str, Any]:
    table = read_table(path)
    rows: dict[str, Any] = {role: numbers(path, table, name) for role, name in columns.items() if role != "task"}
    if "task" not in columns:
        rows["task"] = np.array(["all"] * len(rows["n"]))
    elif columns["task"] not in table.columns:
        raise UserError(f"{path} has no column {columns['task']!r}: there are {', '.join(map(repr, table.columns))}")
    else:
        rows["task"] = np.array(list(map(str, table.columns[columns["task"]])), object)
    for role in ("n", "score", "error", "loss"):
        values = rows.get(role, np.ones(1))
        bad = np.flatnonzero(~(np.isfinite(values) & ((values > 0) | (role == "score"))))
        if len(bad):
            raise UserError(
                f"{path} {table.places[bad[0]]}: {columns[role]} is {values[bad[0]]:g}, which is no "
                f"{'number' if role == 'score' else 'number above 0'}: mend it or leave the model out"
            )
    seen = set()
    # Columns that are not read count too: two seeds may score the same, and differ in one that names them.
    others = [column for name, column in table.columns.items() if name not in columns.values()]
    for place, *row in zip(table.places, *rows.values(), *others, strict=True):
        if (known := tuple(map(str, row))) in seen:
            raise UserError(
                f"{path} {place} is a row that was there before: leave it out, or where it is a second seed with the "
                "same score, add a column that names the seed"
            )
        seen.add(known)
    return rows


class Judged(NamedTuple):
    """What the scores of one task say over sizes."""

    trend: SizeTrend
    scatter: float
    """Standard deviation between models of one size."""
    p_among_all: float
    """Of never falling, adjusted for the number of tasks."""


def judge_tasks(rows: Mapping[str, Any], *, scatter: float = 0.0, seed: int = 0) -> dict[str, Judged]:
    """Task -> its trend.

    Args:
      rows: ``task``, ``n``, ``score`` (higher is better) and ``error`` of each model and task [n]. Several models of
        one size are seeds.
      scatter: deviation between models of one size, where each size stands once.
      seed: of the draws of the tests.

    Raises:
      UserError: that names the task, for fewer than 3 sizes and what is no number.
    """
    found: dict[str, tuple[SizeTrend, float]] = {}
    for task in dict.fromkeys(rows["task"]):
        here = rows["task"] == task
        try:
            ladder = pool_seeds(*(rows[role][here] for role in ("n", "score", "error")))
            more = scatter if ladder.scatter is None else 0.0
            trend = size_trend(*ladder[:3], scatter=more, seed_errors=ladder.seed_errors, seed=seed)
        except ValueError as problem:
            raise UserError(f"task {task!r}: {problem}") from problem
        found[task] = trend, ladder.scatter if ladder.scatter is not None else more
    adjusted = holm([trend.p_never_falls for trend, _ in found.values()])
    return {task: Judged(*one, p) for (task, one), p in zip(found.items(), adjusted.tolist(), strict=True)}


def trend_figures(judged: Mapping[str, Judged]) -> dict[str, Any]:
    """The trends of all tasks for a line of JSON."""
    inverse = [task for task, one in judged.items() if one.trend.inverse]
    return {
        "num_tasks": len(judged),
        "inverse": inverse,
        # Each of the two hypotheses has half of what 95 % leaves.
        "inverse_among_all_tasks": [task for task in inverse if judged[task].p_among_all < 0.025],
        "tasks": {
            task: {
                **one.trend._asdict(),
                "p_never_falls_among_all_tasks": one.p_among_all,
                "scatter": one.scatter,
            }
            for task, one in judged.items()
        },
    }


def trend_rows(judged: Mapping[str, Judged]) -> list[list[str]]:
    """The same as rows under `COLUMNS`."""
    return [
        [
            task,
            f"{one.scatter:.2g}",
            f"{one.trend.shape}{' (inverse)' if one.trend.inverse else ''}",
            f"{one.trend.slope:+.4f}",
            f"{one.trend.interval[0]:+.4f} to {one.trend.interval[1]:+.4f}",
            f"{one.trend.p_never_falls:.2g}",
            f"{one.p_among_all:.2g}",
            "-" if one.trend.turn is None else f"{one.trend.turn:.3g}",
        ]
        for task, one in judged.items()
    ]


def _from_loss(task: str, rows: Mapping[str, Any], options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The error of the largest size by the others' link, in words and as ``from_loss``; a task without one says why."""
    here = rows["task"] == task
    n, loss, score = (rows[role][here] for role in ("n", "loss", "score"))
    error = -score if options.lower_is_better else 1 - score
    largest = n == n.max()
    link: Link = options.link
    try:
        fit = fit_error_of_loss(
            loss[~largest], error[~largest], link=link, chance=options.chance, resamples=options.resamples,
            seed=options.seed,
        )  # fmt: skip
    except ValueError as problem:
        return f"{task}: no error from the loss: {problem}", {}
    observed, at = float(error[largest].mean()), float(loss[largest].mean())
    low, high = fit.predict_interval(at, new_model=True)
    sentence = (
        f"{task}: error {fit.predict(at):.4f} ({low:.4f} to {high:.4f}) of the largest model predicted from its loss, "
        f"{at:.4f}, by the smaller ones; observed {observed:.4f}"
    )
    figures = {
        "link": link,
        "constants": fit.constants,
        "largest": float(n.max()),
        "loss": at,
        "predicted_error": fit.predict(at),
        "interval": [low, high],
        "observed_error": observed,
    }
    return sentence, {"from_loss": figures}
