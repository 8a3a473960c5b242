"""Scores to filter a corpus by: fit one, then look at what it says before a threshold is chosen.

    python -m tools.text_scores quality --good good.jsonl --bad bad.txt --out runs/quality
    python -m tools.text_scores perplexity --good good.jsonl --out runs/ngram
    python -m tools.text_scores show runs/quality --text web.jsonl

Files are .jsonl (a field "text"), else text with a blank line between documents; either may be .gz. A config then says
``late_recipe=(Scored("quality", QualityScore("runs/quality"), minimum=0.3),)`` or, for bits per byte under the n-gram,
``Scored("perplexity", BitsPerByte("runs/ngram"), maximum=3.0)``. The last line of stdout is one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.corpora.documents import read_documents
from jaxlm.io.quality import DEFINITION_FILE, QualityScore, save_quality
from jaxlm.io.writing import is_taken
from jaxlm.models.quality import fit_quality
from jaxlm.run.cli import run_main
from jaxlm.run.devices import use_compilation_cache
from jaxlm.run.parsers import tool_parser
from jaxlm.run.text_scores import BitsPerByte, fit_ngram_run

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def main(argv: list[str]) -> int:
    """``quality | perplexity | show``: each has its own ``--help``."""
    args = _parser().parse_args(argv)
    if args.command != "show" and is_taken(args.out):
        raise UserError(f"{args.out} is there already: name a new directory")
    if args.command == "quality":
        model = fit_quality(read_documents(args.good), read_documents(args.bad))
        save_quality(args.out, model)
        figures: dict[str, Any] = {"out": args.out, **model.facts}
    elif args.command == "perplexity":
        figures = fit_ngram_run(read_documents(args.good), args.out)
    else:
        use_compilation_cache()
        figures = show(args.score, read_documents(args.text), args.examples)
    print(json.dumps(figures))
    return 0


def show(directory: str, texts: list[str], examples: int) -> dict[str, Any]:
    """Quantiles of the score over ``texts``, with the lowest and the highest of them on stderr."""
    score = QualityScore(directory) if (Path(directory) / DEFINITION_FILE).exists() else BitsPerByte(directory)
    values = score(texts)
    order = np.argsort(values, kind="stable").tolist()
    for title, places in (("lowest", order[:examples]), ("highest", order[::-1][:examples])):
        print(title, file=sys.stderr)
        for place in places:
            print(f"  {values[place]:8.4f}  {' '.join(texts[place].split())[:100]}", file=sys.stderr)
    found = np.nanquantile(values, QUANTILES)
    quantiles = {f"{q:g}": round(float(v), 4) for q, v in zip(QUANTILES, found, strict=True)}
    return {"num_texts": len(texts), "quantiles": quantiles, "undefined": int(np.isnan(values).sum())}


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("python -m tools.text_scores", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    quality = commands.add_parser("quality", help="a classifier of good and bad samples", allow_abbrev=False)
    perplexity = commands.add_parser("perplexity", help="an n-gram model of good text", allow_abbrev=False)
    for one in (quality, perplexity):
        one.add_argument("--good", nargs="+", required=True, help="files of good documents")
        one.add_argument("--out", required=True, help="the directory to make")
    quality.add_argument("--bad", nargs="+", required=True, help="files of bad documents")
    show_ = commands.add_parser("show", help="what a score says of a text", allow_abbrev=False)
    show_.add_argument("score", help="the directory that quality or perplexity made")
    show_.add_argument("--text", nargs="+", required=True, help="files of documents")
    show_.add_argument("--examples", type=int, default=5, help="documents shown at each end")
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main))
