"""``python -m tools.plan scaling --flops C``: what to spend a budget on, or what a wanted loss costs, by each law.

A table goes to stderr, one JSON object to stdout. See docs/scaling.md.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.page import text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import json_ready, write_text
from jaxlm.io.scaling_report import count_of, number
from jaxlm.io.writing import check_new_file
from jaxlm.plan.scaling import (
    LEAST_FLOPS,
    OWN,
    Row,
    by_exponents_alone,
    costs,
    flops_for_loss,
    kaplan_explained,
    laws_at,
    overtraining,
    serving,
    with_unique_tokens,
)
from jaxlm.plan.topology import CHIPS
from jaxlm.run.parsers import Parser
from jaxlm.scaling.chinchilla import ChinchillaFit
from jaxlm.scaling.fitting import fit_from_json
from jaxlm.scaling.kaplan import KaplanFit

PROG = "python -m tools.plan scaling"
DAY = 86400.0
COLUMNS = ("law", "embeddings", "N", "95 %", "D", "95 %", "D / N", "loss", "95 %", "twice C buys")
RATIOS = (20.0, 100.0, 500.0)
_COUNTED_ALIKE = 0.02
"""Compute over 6ND, or its inverse, is 1 as near as this."""


def main(argv: list[str]) -> int:
    """``--flops C``, or ``--chip KIND --chips N --days D``, or ``--loss L``."""
    options = _parser().parse_args(argv)
    runs = NO_RUNS if options.fit is None else read_fit(options.fit)
    own = runs.fit
    flops, cost_interval = _budget(options, own)
    rows = laws_at(flops, own, runs.other)
    figures: dict[str, Any] = {"flops": flops}
    if own is not None:
        figures["own"] = runs.figures
    if options.loss is not None:
        by_law = costs(options.loss, own, runs.other)
        figures |= {"loss": options.loss, "flops_interval": cost_interval, "cost_by_law": by_law}
    figures["laws"] = [{**row._asdict(), "tokens_per_param": row.tokens_per_param} for row in rows]
    figures["by_exponents_alone"] = by_exponents_alone(flops)
    figures["over_training"] = overtraining(flops, RATIOS, own)
    if options.inference_tokens is not None:
        figures["inference"] = serving(flops, options.inference_tokens, own)
    if options.unique_tokens is not None:
        figures["repeated"] = with_unique_tokens(flops, options.unique_tokens, own)
    figures["kaplan_exponent"] = kaplan_explained()
    print(plan_text(figures, rows), file=sys.stderr)
    if options.picture is not None:
        write_text(options.picture, draw_plan(flops, own, runs.other))
        print(f"wrote {options.picture}", file=sys.stderr)
    print(json.dumps(json_ready(figures), allow_nan=False))
    return 0


def _parser() -> Parser:
    parser = Parser(prog=PROG, description="what to spend compute on, by each scaling law")
    parser.add_argument("--flops", type=float, metavar="C", help="training compute, C = 6 N D")
    parser.add_argument(
        "--chip", default="v5p", help=f"with --chips and --days: {', '.join(CHIPS)}; default %(default)s"
    )
    parser.add_argument("--chips", type=int, metavar="N", help="in place of --flops, with --days")
    parser.add_argument("--days", type=float, metavar="D", help="how long the chips are there")
    parser.add_argument(
        "--mfu", type=float, default=0.4, help="share of the chips' peak that is reached; default %(default)s"
    )
    parser.add_argument("--loss", type=float, metavar="L", help="the loss that is wanted, nats a token: what it costs")
    parser.add_argument("--inference-tokens", type=float, metavar="T", help="tokens that the model will read and write")
    parser.add_argument("--unique-tokens", type=float, metavar="U", help="text there is, to be read again past that")
    parser.add_argument("--fit", type=Path, metavar="FILE", help="fit.json of experiments.scaling fit --out")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write best N by compute as .svg")
    return parser


class OwnRuns(NamedTuple):
    """One's own runs, as a fit.json has them."""

    fit: ChinchillaFit | None
    other: KaplanFit | None
    """In Kaplan's form, where they speak for it."""
    figures: dict[str, Any]
    """``form`` of the fit and what the runs say of it: the form ``preferred``, Vuong's ``z`` and the ``held_out``
    errors of both, and compute in the table over 6ND (``flops_over_6nd``)."""


NO_RUNS = OwnRuns(None, None, {})


def read_fit(path: Path) -> OwnRuns:
    """The law of one's own runs. Raises UserError for a file that holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        fit = fit_from_json(ChinchillaFit, found["fit"])
        # Files of before `preferred`, `other_fits` and `flops_over_6nd` have the verdicts at the most.
        against = [one for one in found.get("verdicts", ()) if one["better"] not in (None, fit.form.name)]
        figures = {"form": fit.form.name, "preferred": fit.form.name, "flops_over_6nd": found.get("flops_over_6nd")}
        other = None
        if against:
            better = against[0]["better"]
            laws = {name: found["laws"][name]["leave_largest_out"] for name in (fit.form.name, better)}
            held_out = {name: None if one is None else one["mean_error"] for name, one in laws.items()}
            figures |= {"preferred": better, "z": against[0]["z"], "held_out": held_out}
            kept = found.get("other_fits", {}).get(better)
            other = None if kept is None else fit_from_json(KaplanFit, kept)
    except OSError as error:
        raise UserError(f"--fit {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--fit {path}: {error}: give the fit.json that experiments.scaling fit --out wrote") from error
    return OwnRuns(fit, other, figures)


def own_lines(figures: dict[str, Any]) -> list[str]:
    """What a plan by one's own runs must say of them."""
    form, better = figures["form"], figures["preferred"]
    lines = ["losses of published laws are of their authors' texts and tokens: compare N and D, not losses"]
    if better != form:
        errors = [
            f"{100 * error:.2g} % off by {name}" for name, error in figures["held_out"].items() if error is not None
        ]
        beyond = f"; the largest runs, predicted by the others: {', '.join(errors)}" if errors else ""
        lines.append(
            f"your runs speak for {better} against {form} (z = {figures['z']:.1f}{beyond}), and '{OWN}' is {form}: "
            f"trust it within your runs' sizes alone"
        )
    times = figures["flops_over_6nd"]
    if times is not None and max(abs(one - 1) for one in times.values()) > _COUNTED_ALIKE:
        lines.append(
            f"C here is 6 N D, and your table counts {times['smallest']:.3g} times that at its smallest N and "
            f"{times['largest']:.3g} at its largest: by its count a run costs more, or less"
        )
    return lines


def _budget(options: Any, own: ChinchillaFit | None) -> tuple[float, tuple[float, float] | None]:
    machine = options.chips is not None or options.days is not None
    if (options.flops is not None) + machine + (options.loss is not None) != 1:
        raise UserError(f"give one of --flops C, --chips N with --days D, and --loss L: {PROG} --flops 5.76e23")
    for name in ("flops", "chips", "days", "mfu", "loss", "inference_tokens", "unique_tokens"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name.replace('_', '-')} {value:g} must be above 0")
    if options.picture is not None:
        check_new_file(options.picture)
    if options.loss is not None:
        return flops_for_loss(options.loss, own)
    if options.flops is not None:
        return options.flops, None
    if options.chips is None or options.days is None:
        raise UserError("--chips and --days go together: give both")
    if options.chip not in CHIPS:
        raise UserError(f"--chip {options.chip!r} is not known: there are {', '.join(CHIPS)}")
    if options.mfu > 1:
        raise UserError(f"--mfu {options.mfu:g} is a share of the peak: at most 1")
    return CHIPS[options.chip].peak_flops * options.mfu * options.chips * options.days * DAY, None


def plan_text(figures: dict[str, Any], rows: list[Row]) -> str:
    """What a person reads."""
    lines = []
    if "loss" in figures:
        low, high = figures["flops_interval"]
        lines.append(f"loss {figures['loss']:g} takes {figures['flops']:.3g} FLOPs (95 %: {low:.3g} to {high:.3g})")
        by_law = (f"{name} {'no budget' if x is None else f'{x:.3g}'}" for name, x in figures["cost_by_law"].items())
        lines.append(f"  by law: {'; '.join(by_law)}")
    lines.append(f"C = 6 N D = {figures['flops']:.4g} FLOPs, N with or without embeddings as each law counts it")
    lines.append(text_table(COLUMNS, map(_cells, rows)))
    lines += [f"  {line}" for line in (own_lines(figures["own"]) if "own" in figures else ())]
    for name, one in figures["by_exponents_alone"].items():
        (low, high), (least, most) = one["exponent"], one["num_params"]
        lines.append(
            f"  {name}: exponent of N {low:g} to {high:g} ({one['percentiles'][0]}th to {one['percentiles'][1]}th "
            f"percentile), by which alone N {number(least)} to {number(most)}"
        )
    lines.append(f"  by the first, {count_of(rows[0].embeddings)}:")
    for one in figures["over_training"]:
        lines.append(
            f"  at {one['tokens_per_param']:g} tokens a parameter: N {number(one['num_params'])}, "
            f"D {number(one['num_tokens'])}, loss {one['loss']:.4f} ({ends_of(one['loss_interval'])})"
        )
    if "inference" in figures:
        one = figures["inference"]
        same, within = one["same_loss"], one["within_budget"]
        low, high = one["same_loss_intervals"]["num_params"]
        lines.append(
            f"  {number(one['served_tokens'])} tokens served: the same loss with N {number(same['num_params'])} "
            f"({number(low)} to {number(high)}), D {number(same['num_tokens'])} costs {100 * one['saved']:.1f} % less "
            f"in all; all within C: N {number(within['num_params'])}, D {number(within['num_tokens'])}, loss "
            f"{within['loss']:.4f} ({ends_of(one['loss_interval'])})"
        )
    if "repeated" in figures:
        one = figures["repeated"]
        lines.append(
            f"  {number(one['unique_tokens'])} unique tokens: N {number(one['num_params'])}, {one['epochs']:.3g} "
            f"epochs, loss {one['loss']:.4f} by {one['law']}"
        )
    explained = figures["kaplan_exponent"]
    said = ", ".join(
        f"{name} {one['total']:.2f} becomes {one['non_embedding']:.2f}"
        for name, one in explained.items()
        if isinstance(one, dict)
    )
    lines.append(
        f"  exponent of the best N: {said} without embeddings at Kaplan's sizes; he found {explained['kaplan']}"
    )
    return "\n".join(lines)


def ends_of(pair: tuple[float, float]) -> str:
    """An interval of a loss."""
    return "{:.3f} to {:.3f}".format(*pair)


def _cells(row: Row) -> list[str]:
    def ends(pair: tuple[float, float] | None) -> str:
        return "-" if pair is None else f"{number(pair[0])} to {number(pair[1])}"

    loss_ends = "-" if row.loss_interval is None else ends_of(row.loss_interval)
    return [
        row.law,
        "with" if row.embeddings else "without",
        number(row.num_params),
        ends(row.num_params_interval),
        number(row.num_tokens),
        ends(row.num_tokens_interval),
        f"{row.tokens_per_param:.3g}",
        "-" if row.loss is None else f"{row.loss:.4f}",
        loss_ends,
        "-" if row.doubling is None else f"{row.doubling:.4f}",
    ]


def draw_plan(flops: float, own: ChinchillaFit | None = None, other: KaplanFit | None = None) -> str:
    """Best N by compute, by each law, a thousandfold about the budget: an ``<svg>`` text."""
    budgets = np.geomspace(max(flops / 1e3, 1.001 * LEAST_FLOPS), flops * 1e3, 31)
    tables = [laws_at(c, own, other) for c in budgets]
    curves = []
    for place, row in enumerate(tables[0]):
        if row.law.endswith("unrounded"):
            continue
        column = [table[place] for table in tables]
        n = np.array([one.num_params for one in column])
        ends = np.array([one.num_params_interval or (one.num_params,) * 2 for one in column])
        label = row.law if row.embeddings else f"{row.law}, without embeddings"
        curves.append(Curve(label, budgets, n, band=(ends[:, 0], ends[:, 1])))
    every = np.concatenate([[curve.values, *(curve.band or ())] for curve in curves])
    curves.append(Curve("_budget", np.full(2, flops), np.array([every.min(), every.max()]), colour=5))
    return draw_curves(
        "best N (with embeddings unless said) by compute", curves, x_label="compute C, FLOPs; grey: the budget",
        log_x=True, log_y=True, powers_of_ten=True,
    )  # fmt: skip
