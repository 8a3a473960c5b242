"""``python -m tools.hf import HF_DIR RUN`` and ``python -m tools.hf export RUN HF_DIR``: to and from Hugging Face.

Progress goes to stderr; the last line on stdout is one JSON object. See docs/huggingface.md.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.io.run_dir import RunDir
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import Parser

DTYPES = ("float32", "bfloat16", "float16")


def make_parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="python -m tools.hf", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{import,export}")
    reading = commands.add_parser("import", help="a Hugging Face directory becomes a run directory")
    reading.add_argument("source", type=Path, metavar="HF_DIR", help="config.json, *.safetensors, tokenizer.json")
    reading.add_argument("target", type=Path, metavar="RUN", help="a run directory that is not there yet")
    reading.add_argument("--dtype", choices=DTYPES, help="of the parameters; default as in the files")
    reading.add_argument("--tokenizer", type=Path, metavar="DIR", help="where tokenizer.json is; default HF_DIR")
    writing = commands.add_parser("export", help="a run directory becomes a Hugging Face directory")
    writing.add_argument("source", type=Path, metavar="RUN", help="the run directory of a trained or imported model")
    writing.add_argument("target", type=Path, metavar="HF_DIR", help="a directory that is not there yet")
    writing.add_argument("--dtype", choices=DTYPES, help="of the tensors; default as saved")
    writing.add_argument("--step", type=int, help="which checkpoint; default the newest")
    writing.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="of a file: 5GB, 500MB; default 5GB")
    writing.add_argument("--ema", action="store_true", default=None, help="the averaged parameters (default, if kept)")
    writing.add_argument("--no-ema", dest="ema", action="store_false", help="the trained parameters")
    return parser


def parse_size(text: str) -> int:
    """``'5GB'`` -> 5,000,000,000; KB, MB, GB, or plain bytes."""
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.strip().upper())
    if not match or not int(match[1]):
        raise UserError(f"--max-shard-size={text} is no size: write 5GB, 500MB or a number of bytes")
    return int(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2]]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def make_tick(every: float = 2.0) -> Callable[[str, int, int], None]:
    """Prints where the conversion is, every so many seconds and at its end."""
    shown = 0.0

    def tick(tensor: str, done: int, total: int) -> None:
        nonlocal shown
        if done < total and time.monotonic() - shown < every:
            return
        shown = time.monotonic()
        say(f"{done / 1e9:.2f} of {total / 1e9:.2f} GB  {tensor}")

    return tick


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    args = make_parser().parse_args(argv)
    start = time.monotonic()
    if args.command == "import":
        from jaxlm.io.hf.importing import import_hf

        figures = import_hf(
            args.source, args.target, dtype=args.dtype, tokenizer_from=args.tokenizer, say=say, tick=make_tick()
        )
    else:
        from jaxlm.io.hf.exporting import export_hf

        max_file_bytes = parse_size(args.max_shard_size)
        if RunDir(args.source).read_config()["config"].get("model", {}).get("family") == "ngram":
            raise UserError(f"{args.source} is an n-gram model: no family of Hugging Face's computes it")

        figures = export_hf(
            args.source,
            args.target,
            dtype=args.dtype,
            step=args.step,
            ema=args.ema,
            max_file_bytes=max_file_bytes,
            say=say,
            tick=make_tick(),
        )
    print(json.dumps(figures | {"seconds": round(time.monotonic() - start, 2)}))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
