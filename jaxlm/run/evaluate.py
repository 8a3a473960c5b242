"""``jaxlm evaluate RUN --tasks lambada,blimp --data DIR``: published tasks on any model, every item kept on disk.

Repeating a command goes on where it stopped; finished items are never run again. The last line of stdout is one JSON
object of scores with intervals.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.evals.grading import Graded, Output, report
from jaxlm.evals.tasks.kinds import LIKELIHOOD_KINDS
from jaxlm.evals.tasks.task import Item, Likelihood, Task, choose_shots, direct_prompt
from jaxlm.io.agree import say
from jaxlm.io.eval_files.results import ItemResults
from jaxlm.io.eval_files.tasks import load_task
from jaxlm.io.run_dir import json_ready, write_json
from jaxlm.run.generate import Parser
from jaxlm.run.handle import load
from jaxlm.run.language_model import LanguageModel
from jaxlm.run.processes import require_single_process

CHUNK = 256
"""Items whose results are written together."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a task is put to a model: what its items' results depend on, besides the model."""

    num_shots: int = 0
    order: str = "given"
    seed: int = 0
    overlong: str = "truncate"
    limit: int | None = None


def main(argv: list[str]) -> int:
    """Prints the scores of every task."""
    require_single_process("jaxlm evaluate")
    args = _parser().parse_args(argv)
    names = [name for name in args.tasks.split(",") if name]
    settings = Settings(args.shots, args.order, args.seed, args.overlong, args.limit)
    if args.shots < 0 or (args.limit is not None and args.limit < 1):
        raise UserError(f"--shots {args.shots} must be at least 0, and --limit {args.limit} at least 1")
    tasks = [limited(load_task(name, args.data), settings.limit) for name in names]
    if not tasks:
        raise UserError("--tasks names no task: give one or more, with commas between")
    prompts = {task.name: make_prompts(task, settings) for task in tasks}
    lm = load(args.run, step=args.step, ema=args.ema, weights=args.weights)
    out = args.out or args.run / "evaluations" / f"step-{lm.step}"
    config = hashlib.sha256(json.dumps(lm.run_config, sort_keys=True, default=str).encode()).hexdigest()[:16]
    facts = {"family": lm.family, "step": lm.step, "is_ema": lm.is_ema, "weights": args.weights, "config": config}
    found: dict[str, Any] = {"run": str(args.run), **facts, "num_shots": args.shots, "tasks": {}, "items": {}}
    for task in tasks:
        record = {**facts, **dataclasses.asdict(settings), "items": fingerprint(task, prompts[task.name])}
        results = ItemResults(out, f"{task.name}-{args.shots}shot", record)
        found["tasks"][task.name] = evaluate(lm, task, prompts[task.name], results, settings)
        found["items"][task.name] = str(results.path)
    write_json(out / "scores.json", json_ready(found))
    print(json.dumps(json_ready(found)), flush=True)
    return 0


def limited(task: Task, limit: int | None) -> Task:
    """``limit`` items, evenly spread over the task; None: all."""
    if limit is None or limit >= len(task.items):
        return task
    places = np.linspace(0, len(task.items), limit, endpoint=False).astype(int)
    return dataclasses.replace(task, items=tuple(task.items[i] for i in places))


def make_prompts(task: Task, settings: Settings) -> list[str]:
    """What stands before each item's continuations; "" for pairs and whole texts, which stand alone.

    Raises UserError for a task that is not scored by likelihoods, and for too few examples.
    """
    if task.form.kind not in LIKELIHOOD_KINDS:
        raise UserError(f"task {task.name!r} is answered in words: grade its outputs with tools.score")
    if task.form.kind in ("pair", "text"):
        return [""] * len(task.items)
    order: Any = settings.order
    try:
        return [
            direct_prompt(task, item, choose_shots(task, item, settings.num_shots, seed=settings.seed, order=order))
            for item in task.items
        ]
    except ValueError as error:
        raise UserError(str(error)) from error


def fingerprint(task: Task, prompts: Sequence[str]) -> str:
    """Of all that a model is asked, and of the right answers."""
    digest = hashlib.sha256(repr(task.form).encode())
    for item, prompt in zip(task.items, prompts, strict=True):
        digest.update(repr((item, prompt)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def evaluate(
    lm: LanguageModel, task: Task, prompts: Sequence[str], results: ItemResults, settings: Settings
) -> dict[str, Any]:
    """Runs the items that are not finished, longest first, and returns the report of all (`grading.report`) with
    ``items_per_second`` of those run now and ``truncated``, the items whose prompt lost tokens for want of room.

    Raises UserError for a model that has no likelihoods, and for an overlong prompt where it is not to be cut.
    """
    kind = LIKELIHOOD_KINDS[task.form.kind]
    asked = [kind.requests(task, item, prompt) for item, prompt in zip(task.items, prompts, strict=True)]
    left = [i for i, item in enumerate(task.items) if item.name not in results.finished]
    left.sort(key=lambda i: -max(len(one.context) + len(one.continuation) for one in asked[i]))
    start = time.perf_counter()
    for first in range(0, len(left), CHUNK):
        chunk = left[first : first + CHUNK]
        flat = [one for i in chunk for one in asked[i]]
        replies = iter(lm.likelihoods(flat, truncate=settings.overlong == "truncate"))
        mine = [[next(replies) for _ in asked[i]] for i in chunk]
        scores = [kind.score(task.items[i], said) for i, said in zip(chunk, mine, strict=True)]
        results.add(
            [
                _record(task.items[i], prompts[i], [one.continuation for one in asked[i]], said, score)
                for i, said, score in zip(chunk, mine, scores, strict=True)
            ]
        )
        say(f"{task.name}: {len(results.finished):,} of {len(task.items):,} items")
    seconds = time.perf_counter() - start
    records = [results.finished[item.name] for item in task.items]
    graded = [
        Graded(item, Output(str(results.path), item.name), None, record["scores"])
        for item, record in zip(task.items, records, strict=True)
    ]
    return {
        **report(task, graded),
        "truncated": sum(any(record["truncated"]) for record in records),
        "num_run_now": len(left),
        "items_per_second": len(left) / seconds if left else None,
    }


def _record(
    item: Item, prompt: str, continuations: list[str], replies: Sequence[Likelihood], scores: dict[str, float]
) -> dict[str, Any]:
    """One item on disk; ``tools.score`` reads it as well."""
    return {
        "name": item.name,
        "prompt": prompt,
        "continuations": continuations,
        "gold": item.answer,
        "logprobs": [one.logprob for one in replies],
        "num_tokens": [one.num_tokens for one in replies],
        "num_bytes": [one.num_bytes for one in replies],
        "is_greedy": [one.is_greedy for one in replies],
        "truncated": [one.truncated for one in replies],
        "token_logprobs": [list(one.token_logprobs) for one in replies],
        "scores": scores,
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="jaxlm evaluate", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory of a trained model")
    parser.add_argument("--tasks", required=True, metavar="A,B", help="names, with commas between (docs/evaluate.md)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder that holds the task files")
    parser.add_argument("--shots", type=int, default=0, metavar="K", help="examples in front; default %(default)s")
    parser.add_argument(
        "--order",
        choices=("given", "drawn", "balanced"),
        default="given",
        help="which examples: the first, drawn by the seed, or with the answers in turn; default %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="of drawn examples; default %(default)s")
    parser.add_argument(
        "--overlong",
        choices=("truncate", "refuse"),
        default="truncate",
        help="prompts beyond the context: cut at their beginning and counted, or an error; default %(default)s",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="N items of each task, evenly spread; default all")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default RUN/evaluations/step-STEP")
    parser.add_argument("--step", type=int, help="which checkpoint; default the newest")
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="the averaged or the trained parameters; default averaged, if the run kept them",
    )
    parser.add_argument(
        "--weights", choices=("trained", "int8"), default="trained", help="int8: kernels in 8 bits; default %(default)s"
    )
    return parser
