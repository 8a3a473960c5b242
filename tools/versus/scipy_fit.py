"""``python -m tools.versus scipy_fit FILE``: our fit of Chinchilla's law against a loop over SciPy's L-BFGS-B.

FILE is ``chinchilla_epoch/svg_extracted_data.csv`` of the shared data. Ours: the grid of 4,500 starts and 4,000
resamples from the best fit, from the start of the fit to its end, compilation included. SciPy: the same objective
with its gradient written out in NumPy, on a part of the starts and resamples drawn evenly, in the same run, and scaled
to all of them.
One JSON line.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

from jaxlm.io.run_table import read_runs
from jaxlm.run.parsers import tool_parser
from jaxlm.scaling.chinchilla import fit_chinchilla
from jaxlm.scaling.fitting import resample_weights
from jaxlm.scaling.forms import CHINCHILLA

RESAMPLES = 4000
DELTA = 1e-3
DROPPED = 5


def objective(theta, x_kn, log_loss_n, weight_n):
    """Huber's function of log loss over delta, its weighted mean, and the gradient."""
    a, b, e, alpha, beta = theta
    parts = np.stack([a - alpha * x_kn[0], b - beta * x_kn[1], np.full(x_kn.shape[1], e)])
    top = parts.max(axis=0)
    shares = np.exp(parts - top)
    total = shares.sum(axis=0)
    shares /= total
    apart = top + np.log(total) - log_loss_n
    near = np.abs(apart) <= DELTA
    value = np.where(near, 0.5 * apart**2 / DELTA, np.abs(apart) - 0.5 * DELTA)
    slope = weight_n * np.where(near, apart / DELTA, np.sign(apart))
    pull = shares * slope
    grad = np.array(
        [pull[0].sum(), pull[1].sum(), pull[2].sum(), -(pull[0] * x_kn[0]).sum(), -(pull[1] * x_kn[1]).sum()]
    )
    return (weight_n * value).sum() / weight_n.sum(), grad / weight_n.sum()


def main(argv: list[str]) -> int:
    """Prints one JSON line."""
    from scipy import optimize

    parser = tool_parser("python -m tools.versus scipy_fit", __doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="svg_extracted_data.csv")
    parser.add_argument("--share", type=int, default=20, help="SciPy does one in so many; default %(default)s")
    args = parser.parse_args(argv)
    runs = read_runs(args.file, {"n": "Model Size", "flops": "Training FLOP", "loss": "loss"})
    kept = np.sort(np.argsort(runs["loss"], kind="stable")[:-DROPPED])
    n, d, loss = (runs[name][kept] for name in ("n", "d", "loss"))
    load_before = os.getloadavg()[0]

    start = time.perf_counter()
    fit = fit_chinchilla(n, d, loss, resamples=RESAMPLES)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    fit_chinchilla(n, d, loss, resamples=RESAMPLES, seed=1)
    again = time.perf_counter() - start

    x_kn = np.log(np.stack([n, d]))
    mean_k = x_kn.mean(axis=1)
    x_kn, log_loss_n = x_kn - mean_k[:, None], np.log(loss)
    starts = CHINCHILLA.centred(CHINCHILLA.starts(), mean_k)[:: args.share]
    weights = resample_weights(len(loss), RESAMPLES, 0)[:: args.share]
    best = CHINCHILLA.centred(fit.theta_p, mean_k)
    ones = np.ones(len(loss))
    values = []
    start = time.perf_counter()
    for one in starts:
        found = optimize.minimize(objective, one, (x_kn, log_loss_n, ones), method="L-BFGS-B", jac=True)
        values.append(found.fun)
    grid_seconds = (time.perf_counter() - start) * args.share
    start = time.perf_counter()
    for row in weights:
        optimize.minimize(objective, best, (x_kn, log_loss_n, row), method="L-BFGS-B", jac=True)
    resample_seconds = (time.perf_counter() - start) * args.share
    print(
        json.dumps(
            {
                "ours_seconds": ours,
                "ours_again_seconds": again,
                "scipy_seconds_scaled": grid_seconds + resample_seconds,
                "scipy_grid_seconds_scaled": grid_seconds,
                "scipy_resamples_seconds_scaled": resample_seconds,
                "scipy_done_one_in": args.share,
                "scipy_starts_at_the_minimum": float((np.array(values) < min(values) * (1 + 1e-4)).mean()),
                "load_before": load_before,
                "load_after": os.getloadavg()[0],
                "constants": fit.constants,
                "standard_errors": fit.standard_errors,
            }
        )
    )
    return 0
