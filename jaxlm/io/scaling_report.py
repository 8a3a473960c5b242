"""Tables and pictures of scaling laws."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxlm.io.page import cards, escape, grid_table, pictures, render_page, text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import write_text
from jaxlm.scaling.chinchilla import ChinchillaFit
from jaxlm.scaling.fitting import Fit
from jaxlm.scaling.isoflop import IsoFlopFit

COLUMNS = ("law", "constant", "value", "standard error", "95 % interval")
_CURVES = 6
_COUNTED = {True: "N with embeddings", False: "N without embeddings"}


def count_of(embeddings: bool) -> str:
    """How N was counted, in words."""
    return _COUNTED[embeddings]


def number(value: float) -> str:
    """Three or four figures, with the letters of large numbers."""
    short = float(f"{value:.3g}")  # rounded first: 999,700 is 1M
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if size <= abs(short) < 1e3 * size:
            return f"{short / size:.3g}{letter}"
    return f"{value:.4g}"


def constants_table(fits: Sequence[Fit], intervals: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """The constants of every law, for a terminal."""
    return text_table(COLUMNS, _rows(fits, intervals))


def _rows(fits: Sequence[Fit], intervals: Mapping[str, Mapping[str, tuple[float, float]]]) -> list[list[str]]:
    rows = []
    for fit in fits:
        errors = fit.standard_errors
        for name, value in fit.constants.items():
            low, high = intervals[fit.form.name][name]
            rows.append([fit.form.name, name, f"{value:.5g}", f"{errors[name]:.3g}", f"{low:.4g} to {high:.4g}"])
    return rows


def write_scaling_report(
    path: Path,
    title: str,
    fits: Sequence[Fit],
    runs: Mapping[str, np.ndarray],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
    sentences: Sequence[str],
    isoflop: IsoFlopFit | None = None,
) -> None:
    """A page of the constants, what the runs can and cannot tell, and pictures."""
    shown = [] if isoflop is None else [("IsoFLOP parabolas", draw_isoflop(isoflop))]
    for fit in fits:
        shown.append((f"{fit.form.name}: loss", draw_losses(fit, runs)))
        shown.append((f"{fit.form.name}: residuals", draw_residuals(fit, runs["flops"])))
        if isinstance(fit, ChinchillaFit):
            shown.append((f"{fit.form.name}: best size", draw_optimum(fit, runs["flops"])))
    first = fits[0]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>{len(runs['loss'])} runs, {escape(count_of(first.embeddings))}; loss in nats a token</p>",
        cards({name: f"{value:.4g}" for name, value in first.constants.items()}),
        pictures(shown),
        "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences),
        grid_table(COLUMNS, _rows(fits, intervals)),
    ]
    write_text(path, render_page(title, body))


def draw_losses(fit: Fit, runs: Mapping[str, np.ndarray]) -> str:
    """Loss against tokens for some sizes: the runs as dots, the law as a line with its interval."""
    sizes = _spread_sizes(runs["n"])
    curves = []
    for colour, size in enumerate(sizes):
        here = np.abs(np.log(runs["n"] / size)) < 0.02
        tokens = np.geomspace(runs["d"][here].min() / 1.3, runs["d"][here].max() * 1.3, 40)
        law = np.asarray(fit.predict(size, tokens))
        band = fit.predict_interval(size, tokens)
        curves.append(Curve(f"N {number(size)}", tokens, law, band=band, colour=colour))
        curves.append(Curve("_runs", runs["d"][here], runs["loss"][here], points=True, colour=colour))
    return draw_curves(
        f"loss by tokens: {fit.form.name}", curves, x_label="tokens D", log_x=True, powers_of_ten=True
    )  # fmt: skip


def draw_isoflop(fit: IsoFlopFit) -> str:
    """Loss against N at each budget: the runs as dots, the parabola as a line; at most six budgets."""
    places = np.unique(np.linspace(0, len(fit.budgets) - 1, _CURVES).round().astype(int))
    curves = []
    for colour, budget in enumerate(fit.budgets[place] for place in places):
        n = np.geomspace(budget.num_params_r[0] / 1.1, budget.num_params_r[-1] * 1.1, 60)
        # About the mean logarithm, where a parabola's three numbers do not cancel.
        centre = np.log(budget.num_params_r).mean()
        parabola = np.polyfit(np.log(budget.num_params_r) - centre, budget.loss_r, 2)
        curves.append(Curve(f"C {budget.flops:.2g}", n, np.polyval(parabola, np.log(n) - centre), colour=colour))
        curves.append(Curve("_runs", budget.num_params_r, budget.loss_r, points=True, colour=colour))
    return draw_curves(
        f"loss by size at equal compute: N ~ C^{fit.params.exponent:.3f}", curves, x_label="parameters N", log_x=True,
        powers_of_ten=True,
    )  # fmt: skip


def draw_residuals(fit: Fit, flops: np.ndarray) -> str:
    """Observed over predicted loss, in per cent, against compute."""
    order = np.argsort(flops)
    values = 100 * np.expm1(fit.residual_n[order])
    curves = [
        Curve("_zero", flops[order][[0, -1]], np.zeros(2), colour=5),
        Curve("_runs", flops[order], values, points=True, colour=0),
    ]
    title = f"observed above predicted loss, %: {fit.form.name}"
    return draw_curves(title, curves, x_label="compute C, FLOPs", log_x=True, powers_of_ten=True)


def draw_optimum(fit: ChinchillaFit, flops: np.ndarray) -> str:
    """The best N by compute, to a hundred times beyond the runs."""
    budgets = np.geomspace(flops.min(), flops.max() * 100, 40)
    best = np.array([fit.optimal(c).num_params for c in budgets])
    ends = np.array([fit.optimal_intervals(c).num_params for c in budgets])
    curves = [
        Curve("_best N", budgets, best, band=(ends[:, 0], ends[:, 1])),
        Curve("_largest run", np.full(2, flops.max()), ends[[0, -1], [0, 1]], colour=5),
    ]
    return draw_curves(
        "best N by compute; grey: the largest run", curves, x_label="compute C, FLOPs", log_x=True, log_y=True,
        powers_of_ten=True,
    )  # fmt: skip


def _spread_sizes(sizes: np.ndarray) -> list[float]:
    """At most `_CURVES` sizes, spread over those with the most runs."""
    logs = np.round(np.log(sizes) / 0.02).astype(int)
    values, counts = np.unique(logs, return_counts=True)
    often = values[counts >= min(3, counts.max())]
    taken = often[np.unique(np.linspace(0, len(often) - 1, _CURVES).round().astype(int))]
    return [float(np.median(sizes[logs == value])) for value in taken]
