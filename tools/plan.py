"""``python -m tools.plan model NAME [--seq-len T]``: what a named shape costs, before anything is built.

A table goes to stderr, one JSON object to stdout. Names are those of ``jaxlm.models.presets``.
"""

import argparse
import json
import sys

from jaxlm.core.errors import UserError
from jaxlm.models.presets import PRESETS, preset
from jaxlm.plan.model import plan_model, plan_table


def main(argv: list[str]) -> int:
    """The exit code: 2 with one line on stderr where the name or the length is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.plan", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model", help="parameters, FLOPs and memory of a named shape")
    model.add_argument("name", metavar="NAME", help=", ".join(PRESETS))
    model.add_argument("--seq-len", type=int, help="tokens in a row; the model's longest context unless given")
    options = parser.parse_args(argv)
    try:
        config = preset(options.name)
        if options.seq_len is not None and not 1 <= options.seq_len <= config.max_seq_len:
            raise UserError(
                f"--seq-len {options.seq_len} is outside 1 to {config.max_seq_len}, the context of {options.name}: "
                "give one inside"
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures = plan_model(config, options.seq_len)
    print(plan_table(options.name, figures), file=sys.stderr)
    print(json.dumps({"model": options.name, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
