"""N-gram models of words from the command line.

    python -m tools.ngram fit --order 5 --text train.txt --out runs/ngram
    python -m tools.ngram score runs/ngram --text valid.txt
    python -m tools.ngram generate runs/ngram --prompt "the city of" --seed 1
    python -m tools.ngram import model.arpa --out runs/imported
    python -m tools.ngram export runs/ngram --arpa model.arpa

A text holds one sentence a line, its words between spaces; lines without words are left out everywhere. ``<unk>`` in a
training text is an ordinary word (see --unk-word). The last line of stdout is one JSON object; the rest is on stderr.
"""

import argparse
import json
import sys

from jaxlm.core.errors import UserError
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import tool_parser


def _size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 500M or 2G")
    return size


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("python -m tools.ngram", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="fit a model to a text", allow_abbrev=False)
    fit.add_argument("--text", required=True, help="one sentence a line (.gz: unpacked)")
    fit.add_argument("--out", required=True, help="the run directory to make")
    fit.add_argument("--order", type=int, default=5, help="words of the longest n-grams; default %(default)s")
    fit.add_argument("--smoothing", default="kneser-ney", help="kneser-ney (default), add-k, backoff or ml")
    fit.add_argument("--k", type=float, default=1.0, help="add-k: what is added to each count; default %(default)s")
    fit.add_argument(
        "--alpha", type=float, default=0.4, help="backoff: the factor for each order given up; default %(default)s"
    )
    fit.add_argument(
        "--prune",
        type=int,
        nargs="+",
        default=(),
        help="leave out n-grams seen so often or less, for order 1, 2, ...; default none",
    )
    fit.add_argument(
        "--prune-entropy",
        type=float,
        default=0.0,
        help="leave out n-grams that change the perplexity by less than this, relative (1e-8 to 1e-6); default none",
    )
    fit.add_argument("--unk-word", default="UNKNOWNWORD", help="what <unk> in the text is read as; default %(default)s")
    fit.add_argument(
        "--memory", type=_size, help="what counting may hold (500M, 2G); beyond, it sorts on disk; default no bound"
    )
    fit.add_argument("--arpa", help="also write this ARPA file")
    fit.add_argument("--overwrite", action="store_true", help="replace an n-gram run at --out")
    score = commands.add_parser("score", help="perplexity of a text", allow_abbrev=False)
    score.add_argument("run", help="a run directory")
    score.add_argument("--text", required=True, help="one sentence a line (.gz: unpacked)")
    score.add_argument("--threads", type=int, help="default: the cores there are, at most 4")
    generate = commands.add_parser("generate", help="draw text", allow_abbrev=False)
    generate.add_argument("run", help="a run directory")
    generate.add_argument("--prompt", default="", help="words that the text goes on from; default none")
    generate.add_argument("--max-new-tokens", type=int, default=50, help="words at most; default %(default)s")
    generate.add_argument("--num-samples", type=int, default=1, help="texts; default %(default)s")
    generate.add_argument("--temperature", type=float, default=1.0, help="0 = the likeliest word; default %(default)s")
    generate.add_argument("--top-k", type=int, help="of the k likeliest words alone; default all")
    generate.add_argument("--top-p", type=float, help="of the likeliest words that hold this share; default all")
    generate.add_argument("--min-p", type=float, help="of words this times as likely as the likeliest; default all")
    generate.add_argument("--seed", type=int, default=0, help="of the draws; default %(default)s")
    take = commands.add_parser("import", help="a run from an ARPA file", allow_abbrev=False)
    take.add_argument("arpa", help="an ARPA file")
    take.add_argument("--out", required=True, help="the run directory to make")
    take.add_argument("--overwrite", action="store_true", help="replace an n-gram run at --out")
    give = commands.add_parser("export", help="an ARPA file from a run", allow_abbrev=False)
    give.add_argument("run", help="a run directory")
    give.add_argument("--arpa", required=True, help="the file to write")
    return parser


def main(argv: list[str]) -> int:
    """Runs one command."""
    args = _parser().parse_args(argv)
    from jaxlm.run import ngram_runs as runs

    if args.command == "fit":
        from jaxlm.models.ngram_estimate import NgramConfig

        try:
            config = NgramConfig(args.order, args.smoothing, args.k, args.alpha, tuple(args.prune), args.prune_entropy)
        except ValueError as error:
            raise UserError(str(error)) from error
        figures = runs.fit_text(
            args.text,
            args.out,
            config,
            arpa=args.arpa,
            unk_word=args.unk_word,
            memory_bytes=args.memory,
            overwrite=args.overwrite,
        )
    elif args.command == "score":
        figures = runs.score_text(args.run, args.text, num_threads=args.threads)
    elif args.command == "import":
        figures = runs.import_arpa(args.arpa, args.out, overwrite=args.overwrite)
    elif args.command == "export":
        figures = runs.export_arpa(args.run, args.arpa)
    else:
        figures = _generate(args)
    print(json.dumps(figures))
    return 0


def _generate(args: argparse.Namespace) -> dict:
    from jaxlm.run.handle import load

    found = load(args.run).generate(
        [args.prompt],
        max_new_tokens=args.max_new_tokens,
        num_samples=args.num_samples,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        seed=args.seed,
    )
    return {
        "completions": [
            {"text": one.text, "tokens": one.tokens, "logprobs": one.logprobs, "finish": one.finish} for one in found
        ]
    }


if __name__ == "__main__":
    sys.exit(run_main(main))
