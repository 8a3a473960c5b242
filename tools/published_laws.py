"""``python -m tools.published_laws SHARED_DATA``: laws fitted to published runs, beside what was published.

SHARED_DATA is ``../shared/data`` (its licences allow no copy here). A line on stderr for each comparison; one JSON
object on stdout.
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.run_table import read_runs
from jaxlm.plan.scaling import kaplan_explained
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import tool_parser
from jaxlm.scaling import step_law
from jaxlm.scaling.chinchilla import ChinchillaFit, allocate, fit_chinchilla
from jaxlm.scaling.compare import leave_largest_out, tell_apart
from jaxlm.scaling.fitting import fit_form
from jaxlm.scaling.forms import CHINCHILLA
from jaxlm.scaling.isoflop import fit_envelope, fit_isoflop, leave_largest_budget_out
from jaxlm.scaling.published import APPROACH_1, APPROACH_2, BESIROGLU, GOPHER_FLOPS, HOFFMANN, HOFFMANN_UNROUNDED
from tools._published_limits import inverse_scaling, pythia_trends, pythia_two_steps

PUBLISHED_ERRORS = {"A": 124.5, "B": 1293.3, "E": 0.026, "alpha": 0.015, "beta": 0.021}
PUBLISHED_DRAWS = (42, 4000)
"""Seed of NumPy's global generator and number of the resamples behind those."""
LARGE = ("open_lm_1b", "open_lm_7b")
SEQ_LEN = 2048
"""Of Step Law's runs: their batch sizes count rows."""


def main(argv: list[str]) -> int:
    """Prints every comparison."""
    parser = tool_parser("python -m tools.published_laws", __doc__)
    parser.add_argument("shared_data", type=Path, metavar="SHARED_DATA", help="the folder of the shared data")
    parser.add_argument("--resamples", type=int, default=4000, metavar="B", help="default %(default)s")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(COMPARISONS), default=tuple(COMPARISONS), metavar="NAME",
        help=f"of {', '.join(COMPARISONS)}; default all",
    )  # fmt: skip
    args = parser.parse_args(argv)
    folder = args.shared_data / "scaling"
    if not folder.is_dir():
        raise UserError(f"{folder} is not there: give the folder of the shared data")
    found = {}
    for name in args.only:
        try:
            found[name] = COMPARISONS[name](folder, args.resamples)
        except (OSError, ValueError) as error:
            raise UserError(f"{name}: {error}") from error
        print(f"{name}: {json.dumps(rounded(found[name]))}", file=sys.stderr)
    print(json.dumps(found))
    return 0


def rounded(value: Any) -> Any:
    """Four figures, for reading."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def epoch(folder: Path, resamples: int) -> dict[str, Any]:
    """Besiroglu et al.: constants by the likelihood, standard errors by Huber's function with its delta in log loss."""
    path = folder / "chinchilla_epoch" / "svg_extracted_data.csv"
    runs = read_runs(path, {"n": "Model Size", "flops": "Training FLOP", "loss": "loss"})
    kept = np.argsort(runs["loss"], kind="stable")[:-5]
    table = [runs[name][np.sort(kept)] for name in ("n", "d", "loss")]
    fit = fit_chinchilla(*table, resamples=resamples)
    plain = fit_chinchilla(*table, resamples=resamples, scale="fixed")
    theirs: ChinchillaFit = fit_form(
        CHINCHILLA, dict(zip("ND", table[:2], strict=True)), table[2], scale="fixed",
        weights_bn=published_draws(len(kept)), kind=ChinchillaFit,
    )  # fmt: skip
    mean_logs, mean, root = spread_of(fit, table)
    envelope = fit_envelope(6 * table[0] * table[1], *table, bins=30)
    return {
        "num_runs": len(kept),
        "constants": fit.constants,
        "off_published": {name: fit.constants[name] / value - 1 for name, value in BESIROGLU.items()},
        "standard_errors": fit.standard_errors,
        "published_errors": PUBLISHED_ERRORS,
        "exponent": fit.exponent,
        "delta_in_log_loss": {"constants": plain.constants, "standard_errors": plain.standard_errors},
        "standard_errors_on_their_draws": theirs.standard_errors,
        "spread": {"mean_logs": mean_logs.tolist(), "mean": mean.tolist(), "root": root.tolist()},
        "envelope_of_final_losses": [envelope.params.exponent, *envelope.params.exponent_interval],
    }


def published_draws(num_runs: int) -> np.ndarray:
    """How often each run stands in each resample of Besiroglu et al. [b, n]."""
    seed, resamples = PUBLISHED_DRAWS
    rng = np.random.RandomState(seed)
    picks = (rng.choice(num_runs, size=num_runs) for _ in range(resamples))
    return np.stack([np.bincount(pick, minlength=num_runs) for pick in picks]) * 1.0


def spread_of(fit: ChinchillaFit, table: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What stands in `scaling.published` of these runs: means of log N and log D, the constants about those means, and
    the Cholesky root of their covariance over the resamples."""
    mean_logs = np.array([np.log(column).mean() for column in table[:2]])
    draws_bp = CHINCHILLA.centred(fit.draws_bp, mean_logs)
    root = np.linalg.cholesky(np.cov(draws_bp, rowvar=False))
    return mean_logs, CHINCHILLA.centred(fit.theta_p, mean_logs), root


def hoffmann(folder: Path, resamples: int) -> dict[str, Any]:
    """What the three approaches call best at Gopher's compute."""
    del folder, resamples
    best = {
        "1 envelope": APPROACH_1.at(GOPHER_FLOPS),
        "2 isoflop": APPROACH_2.at(GOPHER_FLOPS),
        "3 rounded": allocate(HOFFMANN, GOPHER_FLOPS)[:2],
        "3 unrounded": allocate(HOFFMANN_UNROUNDED, GOPHER_FLOPS)[:2],
        "3 fitted again": allocate(BESIROGLU, GOPHER_FLOPS)[:2],
    }
    return {
        "flops": GOPHER_FLOPS,
        "best": {name: [float(x) for x in pair] for name, pair in best.items()},
        "kaplan": kaplan_explained(),
    }


def mlfoundations(folder: Path, resamples: int) -> dict[str, Any]:
    """Gadre et al.: five small runs of each corpus predict the large ones' loss on C4."""
    found: dict[str, Any] = {}
    for corpus in ("rpj", "c4_original"):
        runs = [run for run in _openlm(folder / "mlfoundations" / "models") if run["corpus"] == corpus]
        small = [run for run in runs if run["shape"] not in LARGE]
        five = [run for run in small if run["times"] == 1 or (run["times"] == 16 and run["shape"] == "d=96_l=8_h=4")]
        ways: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
            "published: 5 runs, least squares": (five, {"delta": None, "error": "loss"}),
            "5 runs, Huber": (five, {}),
            "all small runs, Huber": (small, {}),
        }
        for name, (used, how) in ways.items():
            table = [np.array([run[key] for run in used]) for key in ("n", "d", "loss")]
            fit = fit_chinchilla(*table, equal_exponents=True, resamples=min(resamples, 1000), **how)
            errors = {
                f"{run['shape']} M={20 * run['times']:g}": fit.predict(run["n"], run["d"]) / run["loss"] - 1
                for run in runs
                if run["shape"] in LARGE
            }
            found[f"{corpus}, {name}"] = {"num_runs": len(used), "errors": errors, "constants": fit.constants}
    return found


def _openlm(folder: Path) -> list[dict[str, Any]]:
    runs = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        how = record["hyperparameters"]
        (loss,) = (one["loss"] for one in record["results"] if one["val_data"][0].split("/")[-2] == "c4_val")
        runs.append(
            {
                "corpus": record["dataset_name"],
                "shape": how["model"].rpartition("/")[2].removesuffix(".json"),
                "times": float(how["chinchilla_multiplier"]),
                "n": float(how["params"]),
                "d": float(how["tokens"]),
                "loss": float(loss),
            }
        )
    return runs


def steps(folder: Path, resamples: int) -> dict[str, Any]:
    """Step Law: rate and batch refitted; each size left out in turn and predicted by the others."""
    with open(folder / "steplaw" / "dense_lr_bs_loss.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {key: np.array([float(row[key]) for row in rows]) for key in ("N", "D", "lr", "bs", "smooth loss")}
    table = [*(columns[key] for key in ("N", "D", "lr")), columns["bs"] * SEQ_LEN, columns["smooth loss"]]
    fit = step_law.fit_step_law(*table, resamples=resamples)
    left_out = {}
    for size in np.unique(table[0]):
        here = table[0] == size
        law = step_law.fit_step_law(*(column[~here] for column in table), resamples=0)
        left_out[f"{size:.3g}"] = step_law.excess_loss(law, *(column[here] for column in table))
    published = step_law.StepLawFit(step_law.PUBLISHED_LR, step_law.PUBLISHED_BATCH, 0, False)
    return {
        "num_runs": len(rows),
        "near_best": fit.num_near_best,
        "share_kept": fit.share_kept,
        "lr": {"c": float(np.exp(fit.lr.intercept)), "n": fit.lr.slope_n, "d": fit.lr.slope_d, **fit.lr.intervals},
        "batch": {
            "c": float(np.exp(fit.batch_tokens.intercept)), "d": fit.batch_tokens.slope_d, **fit.batch_tokens.intervals,
        },
        "excess_loss": step_law.excess_loss(fit, *table),
        "excess_loss_by_the_published_law": step_law.excess_loss(published, *table),
        "excess_loss_of_the_size_left_out": left_out,
    }  # fmt: skip


def isoflops(folder: Path, resamples: int) -> dict[str, Any]:
    """Parabolas at each budget, and the parametric fit of the same runs."""
    found = {}
    for name in ("comma", "dclm"):
        columns = {
            "n": "parameter_count", "d": "throughput/total_tokens", "loss": "eval/paloma/macro_loss",
            "flops": "throughput/total_gflops*1e9",
        }  # fmt: skip
        runs = read_runs(folder / "isoflop" / f"isoflop-{name}.csv", columns)
        table = [runs[key] for key in ("n", "d", "loss")]
        fit = fit_isoflop(*table, flops=runs["flops"], resamples=resamples)
        parametric = fit_chinchilla(*table, resamples=min(resamples, 1000))
        held_out = leave_largest_out(lambda *some: fit_chinchilla(*some, resamples=0), *table, flops=runs["flops"])
        tied = fit_chinchilla(*table, equal_exponents=True, resamples=0)
        ratio, excess = leave_largest_budget_out(fit.budgets)
        found[name] = {
            "num_runs": len(runs["loss"]),
            "budgets": len(fit.budgets),
            "exponent_n": [fit.params.exponent, *fit.params.exponent_interval],
            "share_kept": fit.share_kept,
            "exponent_d": [fit.tokens.exponent, *fit.tokens.exponent_interval],
            "largest_budget_left_out": {"predicted_over_best_n": ratio, "excess_loss": excess},
            "parametric_exponent_n": [parametric.exponent, *parametric.exponent_interval],
            "parametric": parametric.constants,
            "parametric_or_equal_exponents": tell_apart(parametric, tied).sentence(),
            "parametric_mean_error": float(np.abs(parametric.residual_n).mean()),
            "parametric_largest_left_out": held_out._asdict(),
        }
    return found


COMPARISONS = {
    "epoch": epoch,
    "hoffmann": hoffmann,
    "mlfoundations": mlfoundations,
    "steplaw": steps,
    "isoflop": isoflops,
    "inverse_scaling": inverse_scaling,
    "pythia_trends": pythia_trends,
    "pythia_two_steps": pythia_two_steps,
}

if __name__ == "__main__":
    sys.exit(run_main(main))
