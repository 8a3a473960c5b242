"""``python -m experiments.scaling fit --csv FILE --columns n=..,d=..,loss=..``: scaling laws fitted to finished runs.
``python -m experiments.scaling recover``: whether the intervals hold what they say, on runs made from known constants.
``python -m experiments.scaling limits --csv FILE --columns task=..,n=..,...``: scores that fall with size.
``python -m experiments.scaling sweep CONFIG``: the runs of a ladder; ``predict CONFIG``: one run beyond it.
``python -m experiments.scaling quality CONFIG``: a ladder on several texts; ``align CONFIG``: the road of `run.align`
for several sizes.

Tables go to stderr; the last line on stdout is one JSON object. See docs/scaling.md.
"""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.run_dir import json_ready, write_json
from jaxlm.io.run_table import naming_runs, parse_columns, read_runs
from jaxlm.io.scaling_report import constants_table, count_of, write_scaling_report
from jaxlm.io.writing import check_directory
from jaxlm.run.ladder import sweep_main
from jaxlm.run.ladder_ahead import predict_main
from jaxlm.run.ladder_quality import quality_main
from jaxlm.run.parsers import Parser, positive, seed_number
from jaxlm.run.scaling_limits import limits_main
from jaxlm.scaling.checks import check_runs
from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN, allocate, fit_chinchilla
from jaxlm.scaling.compare import HeldOut, leave_largest_out, preferred, tell_apart
from jaxlm.scaling.fitting import Fit, check_followed, fit_form
from jaxlm.scaling.forms import CHINCHILLA, EQUAL_EXPONENTS
from jaxlm.scaling.isoflop import IsoFlopFit, between_budgets, fit_envelope, fit_isoflop
from jaxlm.scaling.kaplan import fit_kaplan

PROG = "python -m experiments.scaling"
PARABOLAS = "approach 2, IsoFLOP parabolas"
AHEAD = (10.0, 100.0)
"""Times the most compute of a run, at which laws are compared."""


def main(argv: list[str]) -> int:
    """One of `COMMANDS`; each has its own ``--help``."""
    if argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if not argv or argv[0] not in COMMANDS:
        given = f"unknown command {argv[0]!r}" if argv else "no command given"
        raise UserError(f"{given}: there are {', '.join(COMMANDS)}")
    try:
        return COMMANDS[argv[0]](argv[1:])
    except ValueError as error:
        raise UserError(str(error)) from error


def fit_main(argv: list[str]) -> int:
    """Fits Chinchilla's law and Kaplan's, and says what the runs can tell."""
    options = _fit_parser().parse_args(argv)
    if options.resamples < 100:
        raise UserError(f"--resamples {options.resamples} is too few for intervals: use at least 100")
    if options.out is not None:
        check_directory(options.out)
    runs = read_runs(options.csv, parse_columns(options.columns))
    runs = _without_highest(runs, options.drop_highest)
    embeddings = options.params == "total"
    table = (runs["n"], runs["d"], runs["loss"])
    how: dict[str, Any] = {
        "delta": None if options.least_squares else options.delta,
        "scale": options.scale,
        "resamples": options.resamples,
        "seed": options.seed,
        "embeddings": embeddings,
    }
    form = EQUAL_EXPONENTS if options.equal_exponents else CHINCHILLA
    with naming_runs(options.csv, runs["places"]):
        check_runs({"N": runs["n"], "D": runs["d"]}, runs["loss"], num_constants=form.num_constants)
        first = fit_chinchilla(*table, equal_exponents=options.equal_exponents, **how)
    check_followed(first)  # before the budgets, of which runs that follow no law say something odd
    by_budget, left_out = _approaches(runs, options, embeddings)
    fits: list[Fit] = [first]
    if not options.equal_exponents:
        others = (("kaplan", fit_kaplan), ("equal exponents", functools.partial(fit_chinchilla, equal_exponents=True)))
        for name, fit_fn in others:
            try:
                with naming_runs(options.csv, runs["places"]):
                    fits.append(fit_fn(*table, **how))
            except ValueError as error:  # a form that these runs do not follow at all
                left_out.append(f"{name} is left out: {error}")
    intervals = {fit.form.name: fit.intervals for fit in fits}
    held_out = {fit.form.name: _held_out(fit, options.csv, runs, how) for fit in fits}
    ahead = allocate(first.constants, np.asarray(AHEAD) * runs["flops"].max())[:2]
    verdicts = [tell_apart(first, other, ahead) for other in fits[1:]]
    sentences = [
        f"{name}: N ~ C^{one.params.exponent:.3f} ({one.params.exponent_interval[0]:.3f} to "
        f"{one.params.exponent_interval[1]:.3f}), D ~ C^{one.tokens.exponent:.3f}, from {len(one.budgets)} budgets, "
        f"{100 * one.share_kept:.1f} % of the resamples"
        for name, one in by_budget.items()
    ]
    low, high = first.exponent_interval
    told = "held at that" if options.equal_exponents else f"{low:.3f} to {high:.3f}"
    sentences += [f"approach 3, parametric: N ~ C^{first.exponent:.3f} ({told})"]
    sentences += [one.sentence() for one in verdicts] + [_sentence(name, one) for name, one in held_out.items()]
    sentences += left_out

    print(f"{len(runs['loss'])} runs, {count_of(embeddings)}; loss in nats a token", file=sys.stderr)
    print(constants_table(fits, intervals), file=sys.stderr)
    print("\n".join(sentences), file=sys.stderr)
    figures = {
        "num_runs": len(runs["loss"]),
        "params": options.params,
        **first.constants,
        "exponent": first.exponent,
        "exponent_interval": first.exponent_interval,
        "laws": {
            fit.form.name: {
                "constants": fit.constants,
                "standard_errors": fit.standard_errors,
                "intervals": intervals[fit.form.name],
                "interval_kind": "bootstrap" if fit.profile is None else "profile",
                "prediction_interval_kind": "bootstrap",
                "mean_error": fit.mean_error,
                "leave_largest_out": None if isinstance(one := held_out[fit.form.name], str) else one._asdict(),
                "converged": fit.converged,
            }
            for fit in fits
        },
        "approaches": {
            name: {
                "exponent_n": one.params.exponent,
                "exponent_n_interval": one.params.exponent_interval,
                "exponent_d": one.tokens.exponent,
                "exponent_d_interval": one.tokens.exponent_interval,
                "share_kept": one.share_kept,
                "budgets": [{"flops": b.flops, "num_params": b.best_params, "loss": b.best_loss} for b in one.budgets],
            }
            for name, one in by_budget.items()
        },
        "left_out": left_out,
        "verdicts": [
            {
                "laws": [one.first, one.second],
                "better": one.better,
                "z": one.z,
                "exponents_apart": one.exponents_apart,
                "apart": one.apart_at,
            }
            for one in verdicts
        ],
        "preferred": preferred(first.form.name, verdicts),
        "flops_over_6nd": _over_6nd(runs),
    }
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        kept = {"fit": first.as_json(), "other_fits": {fit.form.name: fit.as_json() for fit in fits[1:]}}
        write_json(options.out / "fit.json", json_ready({**figures, **kept}))
        write_scaling_report(
            options.out / "report.html", options.csv.stem, fits, runs, intervals, sentences, by_budget.get(PARABOLAS)
        )
        print(f"wrote {options.out / 'fit.json'} and report.html", file=sys.stderr)
    print(json.dumps(json_ready(figures), allow_nan=False))
    return 0


def _fit_parser() -> Parser:
    parser = Parser(prog=f"{PROG} fit", description="scaling laws of finished runs")
    parser.add_argument("--csv", type=Path, required=True, metavar="FILE", help="a table of runs, CSV or .parquet")
    parser.add_argument(
        "--columns", required=True, metavar="n=..,d=..,loss=..",
        help="which column is which: two of n, d and flops, and loss; COLUMN*1e9 multiplies",
    )  # fmt: skip
    parser.add_argument(
        "--params", choices=("total", "non-embedding"), default="total", help="how N is counted; default %(default)s"
    )
    parser.add_argument("--drop-highest", type=int, default=0, metavar="K", help="leave out the K highest losses")
    parser.add_argument("--delta", type=positive, default=1e-3, help="of Huber's function; default %(default)s")
    parser.add_argument(
        "--scale", choices=("fitted", "fixed"), default="fitted",
        help="delta in units of the residuals' own scale, fitted too (Besiroglu), or of log loss (Hoffmann)",
    )  # fmt: skip
    parser.add_argument("--least-squares", action="store_true", help="in place of Huber's, with profile intervals")
    parser.add_argument("--equal-exponents", action="store_true", help="alpha = beta: for few runs")
    parser.add_argument("--resamples", type=int, default=4000, metavar="B", help="default %(default)s")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the resamples; default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write fit.json (for tools.plan) and report.html there")
    return parser


def _without_highest(runs: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    if count < 0 or count >= len(runs["loss"]):
        raise UserError(f"--drop-highest {count} of {len(runs['loss'])} runs: give a number from 0 to less than that")
    kept = np.sort(np.argsort(runs["loss"], kind="stable")[: len(runs["loss"]) - count])
    return {name: values[kept] for name, values in runs.items()}


def _over_6nd(runs: dict[str, np.ndarray]) -> dict[str, float]:
    """Compute as the table counts it over 6ND, which plans take, at its smallest and its largest N."""
    n, times = runs["n"], runs["flops"] / (FLOPS_PER_PARAM_TOKEN * runs["n"] * runs["d"])
    return {name: float(np.median(times[n == end])) for name, end in (("smallest", n.min()), ("largest", n.max()))}


def _approaches(runs: dict[str, np.ndarray], options: Any, embeddings: bool) -> tuple[dict[str, IsoFlopFit], list[str]]:
    """Approaches 1 and 2, where the runs tell them, and why one is left out: the law stands without them."""
    found: dict[str, IsoFlopFit] = {}
    left_out: list[str] = []
    how = {"resamples": options.resamples, "seed": options.seed, "embeddings": embeddings}
    n, d, loss, flops = (runs[name] for name in ("n", "d", "loss", "flops"))
    # A bin of the envelope is a budget where there are budgets: else it would hold one run here and none there, and a
    # border that falls among the runs of one would take the lowest of each side.
    between = between_budgets(flops)
    bins = between if 2 <= len(between) < len(flops) / 2 else min(max(len(between) + 1, 10), 30)
    approaches = {
        "approach 1, envelope of final losses": lambda: fit_envelope(flops, n, d, loss, bins=bins, **how),
        PARABOLAS: lambda: fit_isoflop(n, d, loss, flops=flops, **how),
    }
    for name, fit_fn in approaches.items():
        try:
            found[name] = fit_fn()
        except ValueError as error:
            left_out.append(f"{name} is left out: {error}")
    return found, left_out


def _held_out(fit: Fit, path: Path, runs: dict[str, np.ndarray], how: dict[str, Any]) -> HeldOut | str:
    """The law of the smaller runs on the largest; why not, where those that are left have none."""
    table = (runs["n"], runs["d"], runs["loss"])
    places = dict(zip(zip(*table, strict=True), runs["places"], strict=True))  # no run stands twice

    def again(n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> Fit:
        # From the grid: the fit of all runs has seen those that are held out.
        again_how = {**how, "resamples": 0}
        with naming_runs(path, [places[one] for one in zip(n, d, loss, strict=True)]):
            return fit_form(fit.form, {"N": n, "D": d}, loss, kind=type(fit), **again_how)

    try:
        return leave_largest_out(again, *table, flops=runs["flops"])
    except ValueError as error:
        return str(error)


def _sentence(name: str, one: HeldOut | str) -> str:
    if isinstance(one, str):
        return f"{name}: not judged on the runs of most compute: without them {one}"
    return (
        f"{name}: the {one.num_left_out} runs of most compute, predicted by the others (up to {one.largest_used:.3g} "
        f"FLOPs): {100 * one.mean_error:.2f} % off on average, {100 * one.bias:+.2f} % with sign"
    )


def recover_main(argv: list[str]) -> int:
    """Coverage of the intervals over many made-up sets of runs."""
    from jaxlm.scaling.recovery import recover, recover_by_bootstrap

    parser = Parser(prog=f"{PROG} recover", description="whether 95 % intervals cover 95 % of the time")
    parser.add_argument("--trials", type=int, help="default 2000, or 300 by bootstrap")
    parser.add_argument(
        "--noise", type=positive, default=0.005, help="standard deviation of log loss; default %(default)s"
    )
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument(
        "--way", choices=("profile", "bootstrap"), default="profile",
        help="least squares with profile likelihood, or Huber's function with resamples (seconds a trial)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    trials = options.trials if options.trials is not None else {"profile": 2000, "bootstrap": 300}[options.way]
    if trials < 1:
        raise UserError(f"--trials {trials} must be above 0")
    study = recover if options.way == "profile" else recover_by_bootstrap
    found = study(trials, noise=options.noise, seed=options.seed)
    for name, share in found.coverage.items():
        print(f"  {name:<6} {100 * share:.2f} % of {found.num_trials} intervals hold it", file=sys.stderr)
    print(json.dumps(found._asdict()))
    return 0


def align_main(argv: list[str]) -> int:
    """The road for several sizes; the stages of tuning are read in for it alone."""
    from jaxlm.run.align.road_sizes import sizes_main

    return sizes_main(argv)


COMMANDS = {
    "fit": fit_main,
    "recover": recover_main,
    "limits": limits_main,
    "sweep": sweep_main,
    "predict": predict_main,
    "quality": quality_main,
    "align": align_main,
}
