"""``python -m tools.instructions --out DIR``: writes made-up prompts whose following can be checked.

    python -m tools.instructions --count 200 --out prompts
    python -m experiments.evaluate RUN --tasks instructions --data prompts
    python -m tools.score instructions --outputs answers.jsonl --data prompts

DIR/instructions.jsonl: ``name``, ``prompt``, ``group`` (the language), ``constraints``; your own files have the same
form (docs/instructions.md). The last line of stdout is one JSON object.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.evals.instructions.made_up import made_up
from jaxlm.io.eval_files.instructions import write_instructions
from jaxlm.io.writing import check_directory
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import tool_parser


def main(argv: list[str]) -> int:
    """Writes the file and prints what is in it."""
    parser = tool_parser("python -m tools.instructions", __doc__)
    parser.add_argument("--count", type=int, default=200, metavar="N", help="prompts; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    if args.count < 1 or args.seed < 0:
        raise UserError(f"--count {args.count} must be at least 1 and --seed {args.seed} at least 0")
    check_directory(args.out)
    items = made_up(args.count, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "instructions.jsonl"
    write_instructions(path, items)
    kinds = Counter(one.name for item in items for one in item.constraints)
    print(json.dumps({"file": str(path), "num_prompts": len(items), "constraints": dict(sorted(kinds.items()))}))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
