"""``python -m tools.lora merge RUN NEW_RUN``, ``export RUN PEFT_DIR``, ``import PEFT_DIR NEW_RUN --base RUN``: runs of
adapters (docs/lora.md).

merge: the adapters of RUN and their base become one plain model. export, import: to and from Hugging Face's PEFT.
Progress goes to stderr; the last line on stdout is one JSON object.
"""

import json
import sys
from pathlib import Path

from jaxlm.run.cli import run_main
from jaxlm.run.parsers import Parser


def make_parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="python -m tools.lora", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{merge,export,import}")
    merging = commands.add_parser("merge", help="adapters and their base become one plain run")
    merging.add_argument("source", type=Path, metavar="RUN", help="a run that was tuned with adapters")
    merging.add_argument("target", type=Path, metavar="NEW_RUN", help="a run directory that is not there yet")
    merging.add_argument("--step", type=int, help="which checkpoint; default the newest")
    writing = commands.add_parser("export", help="the adapters as a directory that PEFT opens")
    writing.add_argument("source", type=Path, metavar="RUN", help="a run that was tuned with adapters")
    writing.add_argument("target", type=Path, metavar="PEFT_DIR", help="a directory that is not there yet")
    writing.add_argument("--step", type=int, help="which checkpoint; default the newest")
    writing.add_argument("--base-name", metavar="NAME", help="under which PEFT shall look for the base")
    reading = commands.add_parser("import", help="adapters that PEFT wrote become a run beside its base")
    reading.add_argument("source", type=Path, metavar="PEFT_DIR", help="adapter_config.json, adapter_model.safetensors")
    reading.add_argument("target", type=Path, metavar="NEW_RUN", help="a run directory that is not there yet")
    reading.add_argument("--base", type=Path, required=True, metavar="RUN", help="the run of their model")
    return parser


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    args = make_parser().parse_args(argv)
    from jaxlm.run.align.adapter_runs import export_adapters, import_adapters, merge_run

    if args.command == "merge":
        figures = merge_run(args.source, args.target, step=args.step)
    elif args.command == "export":
        figures = export_adapters(args.source, args.target, step=args.step, base=args.base_name)
    else:
        figures = import_adapters(args.source, args.target, base=args.base)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
