"""``python -m tools.judge --answers FILE --reference FILE --judge RUN``: which of two systems answers better?

    python -m tools.judge --answers ours.jsonl --reference theirs.jsonl --judge runs/reward --out judged.json
    python -m tools.judge --answers ours.jsonl --reference theirs.jsonl --judge runs/chat
    python -m tools.score alpaca_eval --outputs judged.json

Files: an object for each answer with ``prompt`` (or ``instruction``) and ``output`` (or ``response``). RUN: of ``jaxlm
reward`` (or FILE.py:FUNCTION, as for ``jaxlm best-of``), whose higher number wins; or of a model that writes, which is
asked in both orders. Judgements are written in
AlpacaEval's form. The last line of stdout is one JSON object.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.length_controlled import length_controlled
from jaxlm.evals.pairwise import TEMPLATE, Judgement, Pair, report
from jaxlm.io.eval_files.judgements import pair_answers, read_answers, write_annotations
from jaxlm.io.run_dir import json_ready
from jaxlm.io.writing import check_new_file
from jaxlm.run.cli import run_main
from jaxlm.run.devices import use_compilation_cache
from jaxlm.run.judge_pairs import judge_pairs
from jaxlm.run.parsers import not_negative, seed_number, tool_parser


def main(argv: list[str]) -> int:
    """Judges the pairs and prints the figures."""
    parser = tool_parser("python -m tools.judge", __doc__)
    parser.add_argument("--answers", type=Path, required=True, metavar="FILE")
    parser.add_argument("--reference", type=Path, required=True, metavar="FILE", help="the other system's answers")
    parser.add_argument(
        "--judge", required=True, metavar="RUN", help="a reward model, one that writes, or FILE.py:FUNCTION"
    )
    parser.add_argument(
        "--margin", type=not_negative, default=0.0, help="of rewards that are draws; default %(default)s"
    )
    parser.add_argument("--template", type=Path, metavar="FILE", help="with {prompt}, {first} and {second} in it")
    parser.add_argument("--seed", type=seed_number, default=0, help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the judgements here")
    args = parser.parse_args(argv)
    if args.out is not None:
        check_new_file(args.out)
    try:
        template = TEMPLATE if args.template is None else args.template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read --template {args.template}: {error}") from error
    if lacking := [name for name in ("{prompt}", "{first}", "{second}") if name not in template]:
        raise UserError(f"{args.template} lacks {lacking[0]}: the judge would not see it")
    answers, references = read_answers(args.answers), read_answers(args.reference)
    pairs = pair_answers(answers, references)
    use_compilation_cache()
    judgements = judge_pairs(args.judge, pairs, margin=args.margin, template=template, seed=args.seed)
    if args.out is not None:
        write_annotations(args.out, pairs, judgements, (str(args.answers), str(args.reference)))
    try:
        found = figures(pairs, judgements)
    except ValueError as error:
        raise UserError(str(error)) from error
    found["num_without_a_pair"] = len(answers) + len(references) - 2 * len(pairs)
    print(json.dumps(json_ready(found)))
    return 0


def figures(pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> dict[str, Any]:
    """The win rate with its interval, as it is and at equal lengths, and what is to be known of the judge."""
    found = report(judgements, [pair.cluster for pair in pairs])
    figures = {
        "num_pairs": len(pairs),
        "win_rate": found.win_rate.record(),
        "wins": found.wins,
        "draws": found.draws,
        "losses": found.losses,
        "num_unjudged": found.num_unjudged,
        "chance": 0.5,
    }
    if found.consistent is not None and found.first_place is not None:
        figures["consistent_over_orders"] = found.consistent.record()
        figures["first_place_preferred"] = found.first_place.record()
    try:
        lengths = [[len(pair.answer) for pair in pairs], [len(pair.reference) for pair in pairs]]
        equal = length_controlled([one.preference for one in judgements], *lengths)
        figures["length_controlled"] = {**equal.rate.record(), "length_effect": equal.length_effect}
    except ValueError:
        # Too few pairs: the plain rate is all there is.
        figures["length_controlled"] = None
    return figures


if __name__ == "__main__":
    sys.exit(run_main(main))
