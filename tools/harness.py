"""``python -m tools.harness RUN --tasks A,B``: tasks of lm-evaluation-harness on any run of ours.

    python -m tools.harness runs/quickstart --tasks my_task --include-path tasks --out scores
    python -m tools.harness --read scores/results.json

Needs ``pip install 'jaxlm[eval]'`` (for --read nothing). DIR of --out gets results.json and samples_TASK.jsonl, in the
harness's form. The last line of stdout is one JSON object: figures with their standard errors, and how
many requests were cut (``truncated``).
"""

import json
import sys
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.agree import say
from jaxlm.io.eval_files.harness_results import HarnessResults, read_results, results_of
from jaxlm.io.run_dir import json_ready, write_json, write_text
from jaxlm.io.writing import check_directory
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import add_checkpoint_options, tool_parser


def main(argv: list[str]) -> int:
    """Prints the figures."""
    parser = tool_parser("python -m tools.harness", __doc__)
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN")
    parser.add_argument("--tasks", metavar="A,B", help="names, with commas between")
    parser.add_argument("--include-path", metavar="DIR", help="a folder with task files (.yaml) of your own")
    parser.add_argument("--shots", type=int, metavar="K", help="examples in front; default the task's own number")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N items of each task; default all")
    parser.add_argument("--seed", type=int, default=0, help="of examples and samples; default %(default)s")
    parser.add_argument(
        "--overlong",
        choices=("truncate", "refuse"),
        default="truncate",
        help="prompts beyond the context: cut and counted, or an error",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="results and every item, in the harness's form")
    parser.add_argument("--read", type=Path, metavar="FILE", help="show a result file; nothing is run")
    add_checkpoint_options(parser)
    args = parser.parse_args(argv)
    if args.read is not None:
        print(json.dumps(figures(read_results(args.read))))
        return 0
    if args.run is None or not args.tasks:
        raise UserError("give RUN and --tasks, or --read FILE")
    if args.out is not None:
        check_directory(args.out)
    # Here and not above: without the extra --read works, and a missing extra is said before a model is opened.
    from jaxlm.run.devices import use_compilation_cache
    from jaxlm.run.handle import load
    from jaxlm.run.harness import run_harness

    names = [name for name in args.tasks.split(",") if name]
    use_compilation_cache()
    lm = load(args.run, step=args.step, ema=args.ema, weights=args.weights)
    record = run_harness(
        lm,
        names,
        include_path=args.include_path,
        num_shots=args.shots,
        limit=args.limit,
        seed=args.seed,
        truncate=args.overlong == "truncate",
    )
    samples = record.pop("samples", {})
    record["model_name"] = str(args.run)
    plain = json.loads(json.dumps(json_ready(record), default=str))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(args.out / "results.json", plain)
        for task, items in samples.items():
            lines = (json.dumps(json_ready(one), default=str, ensure_ascii=False) + "\n" for one in items)
            write_text(args.out / f"samples_{task}.jsonl", "".join(lines))
    if record["truncated"]:
        say(f"{record['truncated']:,} requests were cut at their beginning: they exceed the context of {lm.context}")
    print(json.dumps(figures(results_of(plain, "the harness"))))
    return 0


def figures(found: HarnessResults) -> dict[str, Any]:
    """Task -> metric -> value and standard error."""
    return {
        "model": found.model,
        "num_items": found.num_items,
        **({} if found.truncated is None else {"truncated": found.truncated}),
        "tasks": {
            task: {
                metric: {"value": one.value} | ({} if one.error is None else {"standard_error": one.error})
                for metric, one in metrics.items()
            }
            for task, metrics in found.tasks.items()
        },
    }


if __name__ == "__main__":
    sys.exit(run_main(main))
