"""``python -m tools.emergence --results DIR``: does an ability come at once with size, or only look so?

    python -m tools.emergence --results ../shared/data/scaling/pythia_evals --only lambada_openai --out emergence.html
    python -m tools.emergence --results DIR --along step
    python -m tools.emergence --table FILE --columns task=task,size=params,metric=metric,score=value,error=stderr
    python -m tools.emergence --items 1e6=small/evaluations/step-500/gsm8k-direct.jsonl 4e6=... (six or more)
    python -m tools.emergence --simulated 200

DIR: result files of lm-evaluation-harness, MODEL_stepN.json, a size like 70m in MODEL. FILE: CSV or Parquet, a row for
each task, size and metric. Items: files that ``jaxlm evaluate`` wrote, each behind its model's size. A table on stderr;
the last line of stdout is one JSON object. Verdicts: docs/emergence.md.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.evals.emergence import Scores, emergence, emergence_of_items
from jaxlm.evals.emergence_simulated import KINDS
from jaxlm.evals.intervals import wilson
from jaxlm.evals.ladder_metrics import DISCONTINUOUS, split_metrics
from jaxlm.io.emergence_report import COLUMNS, Judged, figures, rows, write_page
from jaxlm.io.eval_files.ladders import ROLES, Ladder, read_harness_ladders, read_item_ladder, read_ladder_table
from jaxlm.io.page import text_table
from jaxlm.io.run_dir import json_ready
from jaxlm.io.run_table import parse_roles
from jaxlm.io.writing import check_new_file
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import checked, not_negative, seed_number, tool_parser


def main(argv: list[str]) -> int:
    """Prints the verdicts."""
    args = _parser().parse_args(argv)
    if args.out is not None:
        check_new_file(args.out)
    if args.simulated is not None:
        if args.simulated < 1:
            raise UserError(f"--simulated {args.simulated} must be at least 1")
        print(json.dumps(json_ready(simulated(args.simulated, args.seed))))
        return 0
    try:
        if args.items:
            judged = judge_items(_rungs(args.items), args)
        else:
            ladders = read_ladders(args)
            wanted = args.only or list(ladders)
            if unknown := [name for name in wanted if name not in ladders]:
                raise UserError(f"--only {unknown[0]}: there are {', '.join(ladders)}")
            judged = {task: one for task in wanted if (one := judge(ladders[task], args)) is not None}
    except ValueError as error:
        raise UserError(str(error)) from error
    if not judged:
        raise UserError(f"no task has a discontinuous metric ({', '.join(DISCONTINUOUS)}) with its errors")
    print(text_table(COLUMNS, rows(judged)), file=sys.stderr)
    if args.out is not None:
        write_page(args.out, judged, x_label="step" if args.along == "step" else "parameters")
    print(json.dumps(json_ready(figures(judged))))
    return 0


def read_ladders(args: argparse.Namespace) -> dict[str, Ladder]:
    """Of a table or a folder of results."""
    if args.table is not None:
        if args.columns is None:
            raise UserError("--table needs --columns: which column is what")
        return read_ladder_table(args.table, parse_roles(args.columns, ROLES))
    if args.results is None:
        raise UserError("give one of --results, --table, --items and --simulated")
    return read_harness_ladders(args.results, args.along)


def judge(ladder: Ladder, args: argparse.Namespace) -> Judged | None:
    """A task's verdict; None where it has no discontinuous metric."""
    metric, continuous = split_metrics(ladder.scores)
    if metric is None:
        return None
    main_scores = ladder.scores[metric]
    found = emergence(
        ladder.sizes, main_scores, continuous, scatter=args.scatter, resamples=args.resamples, seed=args.seed
    )
    return Judged(ladder.sizes, metric, main_scores, continuous, found)


def judge_items(files: Mapping[float, Path], args: argparse.Namespace) -> dict[str, Judged]:
    """The verdict of one task from its items."""
    ladder = read_item_ladder(files)
    summed = {
        name: Scores(one.mean(axis=1), one.std(axis=1, ddof=1) / np.sqrt(one.shape[1]))
        for name, one in ladder.scores.items()
    }
    metric, continuous = split_metrics(summed)
    if metric is None:
        return {}
    found = emergence_of_items(
        ladder.sizes,
        ladder.scores[metric],
        {name: ladder.scores[name] for name in continuous},
        scatter=args.scatter,
        resamples=args.resamples,
        seed=args.seed,
    )
    return {"items": Judged(ladder.sizes, metric, summed[metric], continuous, found)}


def simulated(count: int, seed: int) -> dict[str, Any]:
    """How often the verdict on simulated ladders is the right one, by kind."""
    found = {}
    for name, (generate, right) in KINDS.items():
        said = []
        for number in range(count):
            ladder = generate(np.random.default_rng((seed, number)))
            verdict = emergence(
                ladder.sizes, ladder.exact_match, {"nats": ladder.nats}, resamples=0, seed=number
            ).verdict
            said.append(verdict)
        lower, upper = wilson(said.count(right) / count, count)
        verdicts = {verdict: said.count(verdict) for verdict in sorted(set(said))}
        found[name] = {
            "right": right,
            "error_rate": 1 - said.count(right) / count,
            "lower": 1 - upper,
            "upper": 1 - lower,
            "verdicts": verdicts,
        }
        print(f"{name}: {json.dumps(found[name])}", file=sys.stderr)
    return {"num_ladders": count, "kinds": found}


def _rungs(texts: Sequence[str]) -> dict[float, Path]:
    found: dict[float, Path] = {}
    for text in texts:
        size, _, path = text.partition("=")
        try:
            number = float(size)
        except ValueError:
            raise UserError(f"--items {text!r}: write SIZE=FILE") from None
        if number in found:
            raise UserError(f"--items has the size {size} twice: keep one file of it")
        found[number] = Path(path)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("python -m tools.emergence", __doc__)
    parser.add_argument("--results", type=Path, metavar="DIR", help="result files of lm-evaluation-harness")
    parser.add_argument("--along", choices=("size", "step"), default="size", help="of --results; default %(default)s")
    parser.add_argument("--table", type=Path, metavar="FILE", help="scores, CSV or Parquet")
    parser.add_argument("--columns", metavar="ROLE=COLUMN,..", help=f"of --table: {', '.join(ROLES)}")
    parser.add_argument("--items", nargs="+", metavar="SIZE=FILE", help="items that jaxlm evaluate kept")
    parser.add_argument("--simulated", type=int, metavar="N", help="error rates on N simulated ladders of each kind")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="of --results and --table; default all")
    parser.add_argument(
        "--scatter", type=not_negative, default=0.0, metavar="S",
        help="of models of one size, as a share of a metric's range, added to the errors; default %(default)s",
    )  # fmt: skip
    resamples = checked(int, lambda value: value >= 0, "a whole number of 0 or more")
    parser.add_argument("--resamples", type=resamples, default=200, metavar="B", help="default %(default)s")
    parser.add_argument("--seed", type=seed_number, default=0, help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write the curves as a page")
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main))
