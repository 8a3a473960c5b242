"""``python -m tools.published_scores SHARED_DATA``: published outputs and judgements, scored anew, beside the figures.

SHARED_DATA is ``../shared/data`` (its licences allow no copy here). A line on stderr for each comparison; one JSON
object on stdout. In per cent.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.grading import grade, pair_up, report
from jaxlm.evals.win_rates import win_rate
from jaxlm.io.eval_files.blimp_table import MODELS, read_table
from jaxlm.io.eval_files.judgements import read_preferences
from jaxlm.io.eval_files.outputs import read_outputs
from jaxlm.io.eval_files.tasks import load_task
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import tool_parser
from tools.score import tabled

TRANSCRIPTS = {"multiarith": (17.7, 78.7), "coin_flip": (12.8, 91.4), "aqua": (22.4, 33.5)}
"""Zero-shot and zero-shot chain of thought, last lines of the published logs."""
BBH = {"direct": 51.8, "cot": 73.5}
"""Means over 18 subtasks, recomputed by who gathered the data."""
JUDGED = {"alpaca-7b": 26.40, "text_davinci_001": 15.04, "claude": 92.59}
BLIMP = {"ngram": 61.2, "lstm": 69.8, "txl": 69.6, "gpt2": 83.0}
BLIMP_HERE = {"ngram": 63.3, "lstm": 69.9, "txl": 70.1, "gpt2": 82.9}
"""Over the 67 paradigms of the paper, and over the 45 that are here."""
PARADIGMS = {
    "anaphor_agreement": 2, "argument_structure": 9, "binding": 7, "control_raising": 5, "determiner_noun_agreement": 8,
    "ellipsis": 2, "filler_gap_dependency": 7, "irregular_forms": 2, "island_effects": 8, "npi_licensing": 7,
    "quantifiers": 4, "subject_verb_agreement": 6,
}  # fmt: skip
"""Of BLiMP, by group."""


def main(argv: list[str]) -> int:
    """Prints every comparison."""
    parser = tool_parser("python -m tools.published_scores", __doc__)
    parser.add_argument("shared_data", type=Path, metavar="SHARED_DATA", help="the folder of the shared data")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(COMPARISONS), default=tuple(COMPARISONS), metavar="NAME",
        help=f"of {', '.join(COMPARISONS)}; default all",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if not (args.shared_data / "reasoning").is_dir():
        raise UserError(f"{args.shared_data / 'reasoning'} is not there: give the folder of the shared data")
    found = {}
    for name in args.only:
        found[name] = COMPARISONS[name](args.shared_data)
        print(f"{name}: {json.dumps(found[name])}", file=sys.stderr)
    print(json.dumps(found))
    return 0


def transcripts(data: Path) -> dict[str, Any]:
    """Answers read off the logs of zero-shot chain of thought against the task files' right answers."""
    found = {}
    for name, published in TRANSCRIPTS.items():
        task = load_task(name, data)
        for how, figure in zip(("zero_shot", "zero_shot_cot"), published, strict=True):
            outputs = read_outputs(data / "reasoning" / "zero_shot_cot" / "log" / f"{name}_{how}.log.gz")
            found[f"{name} {how}"] = _compared(report(task, grade(task, pair_up(task, outputs))), figure)
    return found


def bbh(data: Path) -> dict[str, Any]:
    """Codex's outputs: the mean over subtasks, as it is and of figures to one decimal (as tables print them)."""
    task, found = load_task("bbh", data), {}
    for how, figure in BBH.items():
        outputs = read_outputs(data / "icl" / "bbh" / f"code-davinci-002-{how}")
        summary = report(task, grade(task, pair_up(task, outputs)))
        each = {name: _percent(one["accuracy"]["value"]) for name, one in summary["groups"].items()}
        printed = [round(one, 1) for one in each.values()]
        found[how] = {
            "published": figure,
            "mean": _percent(summary["group_mean"]["value"]),
            "mean_of_printed": round(sum(printed) / len(printed), 2),
            "interval": [_percent(summary["group_mean"][end]) for end in ("lower", "upper")],
            "subtasks": each,
        }
    return found


def alpaca_eval(data: Path) -> dict[str, Any]:
    """Win rates of GPT-4's judgements."""
    found = {}
    for name, figure in JUDGED.items():
        rate = win_rate(read_preferences(data / "preference" / "alpaca_eval" / f"{name}.annotations.json.gz"))
        found[name] = {
            "published": figure,
            "win_rate": _percent(rate.value),
            "interval": [_percent(rate.lower), _percent(rate.upper)],
            "judged": rate.num_items,
        }
    return found


def blimp(data: Path) -> dict[str, Any]:
    """The published accuracies of paradigms, averaged; and the published means of groups, averaged over all 67."""
    path = data / "icl" / "blimp" / "published" / "models_summary.shared.jsonl"
    rows = read_table(path)
    models = tabled(path)["models"]
    means = {row.group: row.accuracy for row in rows if row.paradigm == "overall"}
    found = {}
    for model, name in MODELS.items():
        summary = models[model]
        groups = {group: one["accuracy"]["value"] for group, one in summary["groups"].items()}
        all_67 = sum(means[group][model] * size for group, size in PARADIGMS.items()) / sum(PARADIGMS.values())
        found[name] = {
            "published_45": BLIMP_HERE[model],
            "mean_45": _percent(summary["accuracy"]["value"]),
            "published_67": BLIMP[model],
            "mean_67": _percent(all_67),
            "groups": {group: _percent(value) for group, value in groups.items()},
        }
    return {"paradigms": models["gpt2"]["num_items"], **found}


def _compared(summary: dict[str, Any], published: float) -> dict[str, Any]:
    one = summary["accuracy"]
    return {
        "published": published,
        "accuracy": _percent(one["value"]),
        "interval": [_percent(one["lower"]), _percent(one["upper"])],
        "num_items": summary["num_items"],
        "unanswered": _percent(1 - summary["answered"]["value"]),
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)


COMPARISONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "transcripts": transcripts,
    "bbh": bbh,
    "alpaca_eval": alpaca_eval,
    "blimp": blimp,
}


if __name__ == "__main__":
    sys.exit(run_main(main))
