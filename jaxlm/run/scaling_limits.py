"""``python -m experiments.scaling limits --csv FILE --columns task=..,n=..,score=..,error=..``: where size fails.

Of each task whether its score rises with size, falls (inverse scaling) or turns; with ``loss=..`` also the error of the
largest models predicted from the loss by the others.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.page import text_table
from jaxlm.io.run_dir import json_ready
from jaxlm.io.run_table import numbers, parse_roles, read_table
from jaxlm.run.generate import Parser
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
    found = {task: _task(task, rows, options) for task in dict.fromkeys(rows["task"])}
    adjusted = holm([one["trend"].p_never_falls for one in found.values()])
    shown = [_cells(task, one, p) for (task, one), p in zip(found.items(), adjusted, strict=True)]
    print(text_table(COLUMNS, shown), file=sys.stderr)
    for one in found.values():
        if "sentence" in one:
            print(one["sentence"], file=sys.stderr)
    inverse = [task for task, one in found.items() if one["trend"].inverse]
    # Each of the two hypotheses has half of what 95 % leaves.
    certain = [task for task, p in zip(found, adjusted, strict=True) if task in inverse and p < 0.025]
    figures = {
        "num_tasks": len(found),
        "inverse": inverse,
        "inverse_among_all_tasks": certain,
        "tasks": {
            task: {
                **one["trend"]._asdict(),
                "p_never_falls_among_all_tasks": p,
                "scatter": one["scatter"],
                **({"from_loss": one["from_loss"]} if "from_loss" in one else {}),
            }
            for (task, one), p in zip(found.items(), adjusted, strict=True)
        },
    }
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
        "--scatter", type=float, default=0.0, metavar="S",
        help="deviation between models of one size, where each size stands once; default %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--link", choices=tuple(EQUATIONS), default="exponential", help="error of loss; default %(default)s"
    )
    parser.add_argument(
        "--chance", type=float, metavar="P", help="error of a guess: 0.75 with four choices; else fitted"
    )
    parser.add_argument("--resamples", type=int, default=1000, metavar="B", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
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
    return rows


def _task(task: str, rows: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    here = rows["task"] == task
    n, score, error = (rows[role][here] for role in ("n", "score", "error"))
    try:
        ladder = pool_seeds(n, score, error)
        scatter = options.scatter if ladder.scatter is None else 0.0
        trend = size_trend(*ladder[:3], scatter=scatter, seed=options.seed)
    except ValueError as problem:
        raise UserError(f"task {task!r}: {problem}") from problem
    found: dict[str, Any] = {"trend": trend, "scatter": ladder.scatter if ladder.scatter is not None else scatter}
    if "loss" in rows:
        _from_loss(task, n, rows["loss"][here], score, options, found)
    return found


def _from_loss(
    task: str, n: np.ndarray, loss: np.ndarray, score: np.ndarray, options: argparse.Namespace, found: dict[str, Any]
) -> None:
    """The error of the largest size by the others' link; a task that has none says why and goes on."""
    error = -score if options.lower_is_better else 1 - score
    largest = n == n.max()
    link: Link = options.link
    try:
        fit = fit_error_of_loss(
            loss[~largest], error[~largest], link=link, chance=options.chance, resamples=options.resamples,
            seed=options.seed,
        )  # fmt: skip
    except ValueError as problem:
        found["sentence"] = f"{task}: no error from the loss: {problem}"
        return
    observed, at = float(error[largest].mean()), float(loss[largest].mean())
    low, high = fit.predict_interval(at, new_model=True)
    found["from_loss"] = {
        "link": link,
        "constants": fit.constants,
        "largest": float(n.max()),
        "loss": at,
        "predicted_error": fit.predict(at),
        "interval": [low, high],
        "observed_error": observed,
    }
    found["sentence"] = (
        f"{task}: error {fit.predict(at):.4f} ({low:.4f} to {high:.4f}) of the largest model predicted from its loss, "
        f"{at:.4f}, by the smaller ones; observed {observed:.4f}"
    )


def _cells(task: str, one: dict[str, Any], p: float) -> list[str]:
    trend: SizeTrend = one["trend"]
    return [
        task,
        f"{one['scatter']:.2g}",
        f"{trend.shape}{' (inverse)' if trend.inverse else ''}",
        f"{trend.slope:+.4f}",
        f"{trend.interval[0]:+.4f} to {trend.interval[1]:+.4f}",
        f"{trend.p_never_falls:.2g}",
        f"{p:.2g}",
        "-" if trend.turn is None else f"{trend.turn:.3g}",
    ]
