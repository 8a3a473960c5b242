"""report.html of the best rates by width."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import escape, grid_table, pictures, render_page, text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import write_text

COLUMNS = ("parametrisation", "width", "best rate", "log2", "lowest of a parabola", "loss", "other rates: loss")
TITLES = {"standard": "standard parametrisation", "mup": "muP"}
_SHOWN_ABOVE = 1.0
"""Losses more than this above the best of a picture leave it."""


def write_transfer_report(path: Path, title: str, results: Mapping[str, Any]) -> None:
    """A page of the table and one picture for each parametrisation (``results``: see ``run.transfer``)."""
    about = (
        f"{len(results['seeds'])} seeds, {results['num_steps']} steps of "
        f"{results['tokens_per_step']:,} tokens; a loss is the mean over seeds, ± its standard error. Drift, in steps "
        "of a factor 2: " + ", ".join(f"{TITLES[name]} {_drift(one)}" for name, one in results["by"].items())
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>{escape(about)}</p>",
        pictures((TITLES[name], draw_transfer(results, name)) for name, one in results["by"].items() if _found(one)),
        grid_table(COLUMNS, _rows(results)),
    ]
    write_text(path, render_page(title, body))


def transfer_table(results: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    return text_table(COLUMNS, _rows(results))


def draw_transfer(results: Mapping[str, Any], name: str) -> str:
    """Loss against rate, one curve for each width that has a best rate, as an ``<svg>`` text."""
    rates, curves = np.asarray(results["by"][name]["rates"], np.float64), []
    for width in _found(results["by"][name]):
        means = _means(results["by"][name]["losses"][width])
        curves.append(Curve(f"width {width}", rates, means, markers=True))
    top = min(float(np.nanmin(curve.values)) for curve in curves) + _SHOWN_ABOVE
    curves = [curve._replace(values=np.where(curve.values <= top, curve.values, np.nan)) for curve in curves]
    return draw_curves(f"loss by rate: {TITLES[name]}", curves, x_label="peak rate", log_x=True)


def _found(one: Mapping[str, Any]) -> list[str]:
    """The widths that have a best rate: the others diverged at every one."""
    return [width for width, best in one["best"].items() if best is not None]


def _drift(one: Mapping[str, Any]) -> str:
    left_out = len(one["best"]) - len(_found(one))
    drift = "unknown" if one["drift_steps"] is None else str(one["drift_steps"])
    return f"{drift} ({left_out} of {len(one['best'])} widths diverged at every rate)" if left_out else drift


def _means(losses_rs: Any) -> np.ndarray:
    """Mean over seeds, NaN where one diverged."""
    return np.array([[np.nan if x is None else x for x in row] for row in losses_rs], np.float64).mean(axis=1)


def _rows(results: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, one in results["by"].items():
        for width in map(str, results["widths"]):
            best = one["best"][width]
            losses = ", ".join("-" if np.isnan(x) else f"{x:.3f}" for x in _means(one["losses"][width]))
            if best is None:
                rows.append([TITLES[name], width, "none: all diverged", "-", "-", "-", losses])
                continue
            edge = " (edge of the grid)" if best["at_edge"] else ""
            rows.append(
                [
                    TITLES[name],
                    width,
                    f"{best['rate']:.3g}{edge}",
                    f"{np.log2(best['rate']):.0f}",
                    f"{best['vertex']:.2f}",
                    f"{best['loss']:.4f} ± {best['standard_error']:.4f}",
                    losses,
                ]
            )
    return rows
