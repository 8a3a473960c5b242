"""``jaxlm generate RUN``: completions of prompts. Texts go to stderr; the last line on stdout is one JSON object."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.run.parsers import Parser, add_checkpoint_options


def add_sampling_options(parser: argparse.ArgumentParser, *, default_new_tokens: str) -> None:
    """The options that ``generate`` and ``chat`` share."""
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help=f"default {default_new_tokens}")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0 is greedy; default %(default)s")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K most likely tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw from the smallest set of tokens of mass P")
    parser.add_argument("--min-p", type=float, metavar="P", help="drop tokens less than P times as likely as the best")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R", help="over 1 repeats less")
    parser.add_argument("--seed", type=int, default=0, help="the same seed writes the same text; default %(default)s")
    add_checkpoint_options(parser)


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = Parser(prog="jaxlm generate", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory of a trained model")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    parser.add_argument(
        "--prompts-file", type=Path, metavar="FILE", help='a prompt a line, or (.jsonl) {"prompt": "..."} a line'
    )
    add_sampling_options(parser, default_new_tokens="what the context leaves, at most 128")
    parser.add_argument("--num-samples", type=int, default=1, metavar="N", help="completions of each prompt")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end at this text; may be repeated")
    parser.add_argument(
        "--slide", action="store_true", help="write past the context: go on from its newest half when it is full"
    )
    parser.add_argument("--json", action="store_true", help="only the JSON line, tokens and log-probabilities in it")
    return parser


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, empty lines left out. Raises UserError naming file and line."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"prompts file {path} cannot be read: {error.strerror}") from error
    prompts = []
    for number, raw in enumerate(lines, start=1):
        try:
            line = raw.decode("utf-8").removesuffix("\r")
            if not line.strip():
                continue
            if path.suffix == ".jsonl":
                record = json.loads(line)
                line = record.get("prompt") if isinstance(record, dict) else None
                if not isinstance(line, str):
                    raise ValueError('no text under "prompt"')
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise UserError(f"{path} line {number}: {error}") from error
        prompts.append(line)
    if not prompts:
        raise UserError(f"prompts file {path} holds no prompt: put one on each line")
    return prompts


def generate_command(args: argparse.Namespace) -> dict[str, Any]:
    """Run the command of parsed ``args``; returns the JSON object that it printed. Raises UserError for bad input."""
    # Imported here so that --help and bad options answer at once.
    from jaxlm.run.causal_lm import make_sampling
    from jaxlm.run.devices import use_compilation_cache
    from jaxlm.run.handle import load
    from jaxlm.run.language_model import check_seed

    make_sampling(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty)
    check_seed(args.seed)
    prompts = [*args.prompt, *(read_prompts(args.prompts_file) if args.prompts_file else [])] or [""]
    use_compilation_cache()
    model = load(args.run, step=args.step, ema=args.ema, weights=args.weights)
    start = time.perf_counter()
    generations = model.generate(
        prompts,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        num_samples=args.num_samples,
        stop=tuple(args.stop),
        slide=args.slide,
    )
    seconds = time.perf_counter() - start
    if not args.json:
        for generation in generations:
            print(f"--- {generation.prompt!r}\n{generation.prompt}{generation.text}", file=sys.stderr)
    record = {
        "run": str(args.run),
        "step": model.step,
        "num_tokens": sum(len(generation.tokens) for generation in generations),
        "seconds": round(seconds, 3),
        "completions": [
            {
                "prompt": generation.prompt,
                "text": generation.text,
                "finish": generation.finish,
                "num_tokens": len(generation.tokens),
                "logprob": sum(generation.logprobs),
                **({"tokens": generation.tokens, "logprobs": generation.logprobs} if args.json else {}),
            }
            for generation in generations
        ],
    }
    sys.stderr.flush()
    print(json.dumps(record), flush=True)
    return record


def main(argv: list[str]) -> int:
    """``jaxlm generate``. Raises UserError for bad input."""
    generate_command(make_parser().parse_args(argv))
    return 0
