"""``jaxlm evaluate RUN --tasks lambada,blimp --data DIR``: published tasks on any model, every item kept on disk.

Repeating a command goes on where it stopped; finished items are never run again. The last line of stdout is one JSON
object of scores with intervals.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.evals.flags import flagged_items, with_known_words
from jaxlm.evals.grading import report
from jaxlm.evals.tasks.task import Order, Task
from jaxlm.evals.text import vocabulary
from jaxlm.io.agree import say
from jaxlm.io.corpora.documents import read_documents
from jaxlm.io.eval_files.records import as_json
from jaxlm.io.eval_files.results import ItemResults
from jaxlm.io.eval_files.tasks import load_task
from jaxlm.io.run_dir import write_json
from jaxlm.run.devices import use_compilation_cache
from jaxlm.run.evaluate_items import Scorer, Settings, StrategyName, make_scorer
from jaxlm.run.handle import load
from jaxlm.run.language_model import LanguageModel
from jaxlm.run.opening import stored_digest
from jaxlm.run.parsers import Parser, add_checkpoint_options, seed_number
from jaxlm.run.processes import require_single_process

CHUNK = 256
"""Items whose results are written together."""


def main(argv: list[str]) -> int:
    """Prints the scores of every task."""
    require_single_process("jaxlm evaluate")
    args = _parser().parse_args(argv)
    try:
        settings = Settings(
            args.shots,
            args.order,
            args.seed,
            args.overlong,
            args.limit,
            args.strategy,
            args.samples,
            args.temperature,
            args.chat,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    names = list(dict.fromkeys(name for name in args.tasks.split(",") if name))
    tasks = [load_task(name, args.data) for name in names]
    twice = next((task.name for task in tasks if sum(task.name == other.name for other in tasks) > 1), None)
    if twice is not None:
        raise UserError(f"--tasks names two files of the task {twice!r}: rename one, results are kept by it")
    for task in tasks:
        if task.split:
            say(f"{task.name}: {len(task.items):,} items, those of its {task.split} split")
        if settings.num_shots and not {one.name for one in task.shots}.isdisjoint(one.name for one in task.items):
            say(f"{task.name}: its files have no training examples: an item's are other items of the same set")
    if args.words is not None:
        known = vocabulary(read_documents(args.words))
        tasks = [with_known_words(task, known) for task in tasks]
    tasks = [limited(task, settings.limit) for task in tasks]
    if not tasks:
        raise UserError("--tasks names no task: give one or more, with commas between")
    scorers = [make_scorer(task, settings) for task in tasks]
    for task, scorer in zip(tasks, scorers, strict=True):
        if scorer.settings.num_shots < settings.num_shots:
            say(f"{task.name}: takes no examples: 0 shots, not {settings.num_shots}")
    texts = None if args.corpus is None else read_documents(args.corpus)
    use_compilation_cache()
    lm = load(args.run, step=args.step, ema=args.ema, weights=args.weights)
    out = args.out or args.run / "evaluations" / f"step-{lm.step}"
    config = hashlib.sha256(json.dumps(lm.run_config, sort_keys=True, default=str).encode()).hexdigest()[:16]
    facts = {
        "family": lm.family,
        "step": lm.step,
        "is_ema": lm.is_ema,
        "weights": args.weights,
        "config": config,
        "stored": stored_digest(args.run, lm.step)[:16],
    }
    found: dict[str, Any] = {"run": str(args.run), **facts, "num_shots": args.shots, "tasks": {}, "items": {}}
    kept = []
    for task, scorer in zip(tasks, scorers, strict=True):
        how = dataclasses.asdict(scorer.settings) | {"chat": scorer.chats(lm)}
        if how["chat"] and settings.chat is None:
            say(f"{task.name}: asked in conversations, in the model's chat template (--no-chat: as plain text)")
        record = {**facts, **how, "items": fingerprint(task, scorer.prompts())}
        kept.append(ItemResults(out, f"{task.name}-{scorer.name}", record, args.shard, check=scorer.check))
    for task, scorer, results in zip(tasks, scorers, kept, strict=True):
        flagged = None if texts is None else flagged_items(task, texts)
        scores = evaluate(lm, task, scorer, results, flagged=flagged, shard=args.shard)
        found["tasks"][task.name] = {**scores, "num_shots": scorer.settings.num_shots, "chat": scorer.chats(lm)}
        found["items"][task.name] = str(results.path)
    if args.shard is None:
        write_scores(out / "scores.json", found, facts)
    print(json.dumps(as_json(found)), flush=True)
    return 0


def write_scores(path: Path, found: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes the scores of a command's tasks to ``path``, beside those that it holds of other tasks; those of another
    model (by its ``facts``) make way, and stderr says so."""
    merged = dict(found)
    if path.exists():
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            if any(held[name] != value for name, value in facts.items()):
                raise ValueError("another model")
            merged |= {part: {**held[part], **found[part]} for part in ("tasks", "items")}
        except (ValueError, TypeError, KeyError):
            say(f"{path} held no scores of this model: it is written anew")
    write_json(path, as_json(merged))


def shard(text: str) -> tuple[int, int]:
    """``"0/4"`` -> (0, 4)."""
    first, _, of = text.partition("/")
    if not (first.isdecimal() and of.isdecimal() and int(first) < int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write I/N with I from 0 to N - 1")
    return int(first), int(of)


def limited(task: Task, limit: int | None) -> Task:
    """``limit`` items, evenly spread over the task; None: all."""
    if limit is None or limit >= len(task.items):
        return task
    places = np.linspace(0, len(task.items), limit, endpoint=False).astype(int)
    return dataclasses.replace(task, items=tuple(task.items[i] for i in places))


def fingerprint(task: Task, prompts: Sequence[str]) -> str:
    """Of all that a model is asked, and of the right answers."""
    digest = hashlib.sha256(repr(task.form).encode())
    for item, prompt in zip(task.items, prompts, strict=True):
        digest.update(repr((item, prompt)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def evaluate(
    lm: LanguageModel,
    task: Task,
    scorer: Scorer,
    results: ItemResults,
    *,
    flagged: set[str] | None = None,
    shard: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Runs the items that are not finished, longest first, and returns the report of all that are (`grading.report`),
    with ``items_per_second`` of those run now and ``truncated``, the items whose prompt lost tokens for want of room.

    Raises UserError for a model that cannot do what is asked, and for an overlong prompt where it is not to be cut.
    """
    prompts = scorer.prompts()
    first, of = shard or (0, 1)
    mine = range(first, len(task.items), of)
    left = [i for i in mine if task.items[i].name not in results.finished]
    left.sort(key=lambda i: -(len(prompts[i]) + max(map(len, task.items[i].choices), default=0)))
    start = time.perf_counter()
    for done in range(0, len(left), CHUNK):
        results.add(scorer.run(lm, left[done : done + CHUNK]))
        say(f"{task.name}: {len(results.finished):,} of {len(task.items):,} items")
    seconds = time.perf_counter() - start
    records = {
        i: results.finished[task.items[i].name]
        for i in range(len(task.items))
        if task.items[i].name in results.finished
    }
    if not records:
        raise UserError(f"task {task.name!r} has {len(task.items)} items, none for this share: take fewer shares")
    return {
        **report(task, [scorer.graded(i, record) for i, record in records.items()], flagged=flagged),
        "truncated": sum(record["truncated"] > 0 for record in records.values()),
        "num_run_now": len(left),
        "items_per_second": len(left) / seconds if left else None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="jaxlm evaluate", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory of a trained model")
    parser.add_argument(
        "--tasks",
        required=True,
        metavar="A,B",
        help="names, or files FILE.jsonl of your own, with commas between (docs/evaluate.md)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder that holds the files of published tasks")
    parser.add_argument("--shots", type=int, default=0, metavar="K", help="examples in front; default %(default)s")
    parser.add_argument(
        "--strategy",
        choices=get_args(StrategyName),
        help="let the model write its answers, in this way; default: by likelihood, where a task has it",
    )
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="of a written answer; the commonest counts")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="of written answers; default 0")
    parser.add_argument(
        "--chat",
        action=argparse.BooleanOptionalAction,
        help="written tasks as conversations in the model's chat template, or not; default: instructions, of a model "
        "that was taught one",
    )
    parser.add_argument(
        "--order",
        choices=get_args(Order),
        default="given",
        help="which examples: the first, drawn by the seed, or with the answers in turn; default %(default)s",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="of drawn examples and samples; default %(default)s"
    )
    parser.add_argument(
        "--overlong",
        choices=("truncate", "refuse"),
        default="truncate",
        help="prompts beyond the context: cut at their beginning and counted, or an error; default %(default)s",
    )
    parser.add_argument(
        "--corpus", nargs="+", metavar="FILE", help="training text: items that stand in it are scored apart as well"
    )
    parser.add_argument(
        "--words", nargs="+", metavar="FILE", help="training text: only items all of whose words stand in it are asked"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="N items of each task, evenly spread; default all")
    parser.add_argument(
        "--shard", type=shard, metavar="I/N", help="every Nth item from I on, for N processes; then once without"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default RUN/evaluations/step-STEP")
    add_checkpoint_options(parser)
    return parser
