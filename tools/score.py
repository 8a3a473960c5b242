"""``python -m tools.score TASK --outputs FILE``: grades what some system wrote, or how likely it finds things.

    python -m tools.score multiarith --outputs answers.jsonl --data DIR
    python -m tools.score bbh --outputs code-davinci-002-cot
    python -m tools.score blimp --outputs ours.jsonl --against theirs.jsonl --data DIR
    python -m tools.score ifeval --outputs responses.jsonl --data DIR
    python -m tools.score alpaca_eval --outputs claude.annotations.json.gz
    python -m tools.score blimp_table --outputs models_summary.jsonl

FILE: an object for each item (``name``, ``question`` or ``prompt``; ``output``, ``response``, ``outputs`` or
``logprobs``; ``target`` where no --data is given; docs/evaluate.md), outputs as BIG-Bench Hard published them, a log of
zero-shot chain of thought, or AlpacaEval's annotations; packed (.gz) or not; or a folder of such. The last line of
stdout is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.flags import flagged_items, has_known_words, with_known_words
from jaxlm.evals.grading import Graded, compare, grade, metrics_of, pair_up, report, task_of_outputs
from jaxlm.evals.length_controlled import length_controlled
from jaxlm.evals.summary import Metric, summarise
from jaxlm.evals.tasks.forms import FORMS
from jaxlm.evals.tasks.task import Task
from jaxlm.evals.text import vocabulary
from jaxlm.evals.win_rates import win_rate
from jaxlm.io.agree import say
from jaxlm.io.config_json import near_names
from jaxlm.io.corpora.documents import read_documents
from jaxlm.io.eval_files.blimp_table import MODELS, read_table
from jaxlm.io.eval_files.judgements import Annotation, as_share, read_annotations
from jaxlm.io.eval_files.outputs import read_outputs
from jaxlm.io.eval_files.own import is_own
from jaxlm.io.eval_files.records import as_json
from jaxlm.io.eval_files.tasks import load_task
from jaxlm.io.writing import check_new_file
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import share, tool_parser

JUDGED, TABLE = "alpaca_eval", "blimp_table"


def main(argv: list[str]) -> int:
    """Prints the figures of one file of outputs."""
    args = _parser().parse_args(argv)
    known = (*FORMS, JUDGED, TABLE)
    if args.task not in known and not is_own(args.task):
        raise UserError(f"unknown task {args.task!r}{near_names(args.task, known)} (there are {', '.join(known)})")
    try:
        whole = {JUDGED: judged, TABLE: tabled}.get(args.task)
        if whole is not None:
            _check_alone(args)
        found = scored(args) if whole is None else whole(args.outputs, args.confidence)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(json.dumps(as_json({**found, "outputs": str(args.outputs)})))
    return 0


def _check_alone(args: argparse.Namespace) -> None:
    for name in ("data", "against", "partial", "items", "corpus", "words"):
        if getattr(args, name):
            raise UserError(f"--{name} is of tasks with items, and {args.task} reads one finished table: leave it out")


def judged(path: Path, confidence: float = 0.95) -> dict[str, Any]:
    """The win rate of annotations, and how many judgements there are."""
    annotations = read_annotations(path)
    preferences = [one.preference for one in annotations]
    found = win_rate(preferences, confidence=confidence)
    return {
        "task": JUDGED,
        "win_rate": found.record(),
        "length_controlled": _at_equal_length(annotations, confidence),
        "num_items": found.num_items,
        "num_unjudged": preferences.count(None),
        "chance": 0.5,
    }


def _at_equal_length(annotations: Sequence[Annotation], confidence: float) -> dict[str, Any] | None:
    """None where answers are not in the file, or pairs are too few."""
    told = [one for one in annotations if one.length is not None and one.reference_length is not None]
    if len(told) < len(annotations):
        return None
    try:
        found = length_controlled(
            [as_share(one.preference) for one in told],
            [one.length or 0 for one in told],
            [one.reference_length or 0 for one in told],
            confidence=confidence,
        )
    except ValueError:
        return None
    return {**found.rate.record(), "length_effect": found.length_effect, "penalty": found.penalty}


def tabled(path: Path, confidence: float = 0.95) -> dict[str, Any]:
    """BLiMP's accuracies by paradigm and model: the means over paradigms, all and by group; a paradigm is an item."""
    rows = [row for row in read_table(path) if row.paradigm != "overall"]
    metric = {"accuracy": Metric("accuracy", share=True)}
    models = {
        name: summarise(metric, rows, [{"accuracy": row.accuracy[name]} for row in rows], confidence=confidence)
        for name in MODELS
    }
    return {"task": TABLE, "models": models, "chance": 0.5}


def scored(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of outputs by their task, and the difference from others' where they are given."""
    if args.items is not None:
        check_new_file(args.items)
    task = None if args.data is None and not is_own(args.task) else load_task(args.task, args.data)
    if task is not None and task.split:
        say(f"{task.name}: {len(task.items):,} items, those of its {task.split} split")
    known = None if args.words is None else vocabulary(read_documents(args.words))
    whole, graded = graded_file(args.task, args.outputs, task, args.partial, known)
    task = whole if known is None else with_known_words(whole, known)
    flagged = None if args.corpus is None else flagged_items(task, read_documents(args.corpus))
    found = report(task, graded, confidence=args.confidence, flagged=flagged)
    if args.against is not None:
        _, others = graded_file(args.task, args.against, whole, args.partial, known)
        shared = metrics_of(task, [*graded, *others])
        if not shared:
            raise UserError(f"{args.outputs} and {args.against} have no figure in common: compare files of one kind")
        first = next(iter(shared.values())).of
        found["against"] = {"of": first, **compare(first, graded, others, confidence=args.confidence)}
    if args.items is not None:
        args.items.write_text("".join(f"{json.dumps(as_json(_item(one)))}\n" for one in graded), encoding="utf-8")
    return found


def graded_file(
    name: str, path: Path, task: Task | None, partial: bool, known: frozenset[str] | None
) -> tuple[Task, list[Graded]]:
    """(the task, or one made of the outputs' own right answers; every item with its output and scores, of the ``known``
    words alone where they are given)."""
    outputs = read_outputs(path)
    if task is None:
        task = task_of_outputs(name, FORMS[name], outputs)
        pairs = list(zip(task.items, outputs, strict=True))
    else:
        pairs = pair_up(task, outputs)
    wanted = task
    if known is not None:
        wanted, pairs = with_known_words(task, known), [pair for pair in pairs if has_known_words(pair[0], known)]
    if len(pairs) < len(wanted.items) and not partial:
        missing = len(wanted.items) - len(pairs)
        raise UserError(
            f"{path} lacks {missing:,} of the {len(wanted.items):,} items of {name}: finish it, or score what is there "
            "with --partial"
        )
    return task, grade(wanted, pairs)


def _item(one: Graded) -> dict[str, Any]:
    return {
        "name": one.item.name,
        "outputs": None if one.output.written is None else list(one.output.written.texts),
        "answer": one.answer,
        "gold": one.item.answer,
        "scores": one.scores,
    }


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("python -m tools.score", __doc__)
    parser.add_argument("task", help=f"{', '.join(FORMS)}, {JUDGED}, {TABLE}, or FILE.jsonl of your own")
    parser.add_argument("--outputs", type=Path, required=True, metavar="FILE", help="a file or folder of outputs")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the task's files; default: what the outputs say")
    parser.add_argument("--against", type=Path, metavar="FILE", help="another system's outputs: the paired difference")
    parser.add_argument("--partial", action="store_true", help="score what is there where items have no output")
    parser.add_argument("--items", type=Path, metavar="FILE", help="write every item's answer and scores here (JSONL)")
    parser.add_argument(
        "--corpus", nargs="+", metavar="FILE", help="training text: items that stand in it are scored apart as well"
    )
    parser.add_argument(
        "--words", nargs="+", metavar="FILE", help="training text: only items all of whose words stand in it count"
    )
    parser.add_argument("--confidence", type=share, default=0.95, help="of the intervals; default %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main))
