"""``python -m tools.plan model NAME [--seq-len T]``: what a named shape costs, before anything is built.
``python -m tools.plan run CONFIG --topology NAME``: what a run needs on a machine, and the mesh to run it on.
``python -m tools.plan scaling --flops C``: what to spend compute on, by each scaling law, or what a wanted loss costs.
``python -m tools.plan align NAME``: what each stage from text to an aligned model costs, pretraining to PPO.
``python -m tools.plan calibrate [--compile]``: the memory model against the compiler, and its constants fitted again.

A table goes to stderr, one JSON object to stdout. Exit codes: 0, 1 nothing fits, 2 bad input. See docs/plan.md
and docs/scaling.md.
"""

import json
import sys

from jaxlm.core.errors import UserError
from jaxlm.models.presets import ENCODERS, PRESETS, any_preset
from jaxlm.plan.model import plan_model, plan_table
from jaxlm.run import plan_align, plan_grid, plan_run, plan_scaling
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import Parser


def model_main(argv: list[str]) -> int:
    """``NAME [--seq-len T]``. Raises UserError where the name or the length is wrong."""
    parser = Parser(prog="python -m tools.plan model", description="what a named shape costs")
    parser.add_argument("name", metavar="NAME", help=", ".join(PRESETS | ENCODERS))
    parser.add_argument("--seq-len", type=int, help="tokens in a row; the model's longest context unless given")
    options = parser.parse_args(argv)
    config = any_preset(options.name)
    if options.seq_len is not None and not 1 <= options.seq_len <= config.max_seq_len:
        raise UserError(
            f"--seq-len {options.seq_len} is outside 1 to {config.max_seq_len}, the context of {options.name}: "
            "give one inside"
        )
    figures = plan_model(config, options.seq_len)
    print(plan_table(options.name, figures), file=sys.stderr)
    print(json.dumps({"model": options.name, **figures}))
    return 0


COMMANDS = {
    "model": model_main,
    "run": plan_run.main,
    "scaling": plan_scaling.main,
    "align": plan_align.main,
    "calibrate": plan_grid.main,
}


def dispatch(argv: list[str]) -> int:
    """The command that comes first."""
    if argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if not argv or argv[0] not in COMMANDS:
        given = f"unknown command {argv[0]!r}" if argv else "no command given"
        raise UserError(f"{given}: there are {', '.join(COMMANDS)}")
    return COMMANDS[argv[0]](argv[1:])


def main(argv: list[str]) -> int:
    """The exit code: 2 with one line on stderr for bad input."""
    return run_main(dispatch, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
