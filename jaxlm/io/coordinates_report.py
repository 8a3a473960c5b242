"""report.html of the coordinate check."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import escape, grid_table, pictures, render_page, text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import write_text
from jaxlm.io.transfer_report import TITLES

COLUMNS = ("coordinate", "parametrisation", "change by width", "slope of the change", "slope at the start")


def write_coordinates_report(path: Path, title: str, results: Mapping[str, Any]) -> None:
    """A page of one picture for each parametrisation and the table (``results``: see ``run.coordinates``)."""
    about = (
        f"mean |change| of each coordinate after {results['steps']} steps at rate {results['lr']:.3g}, against width, "
        "averaged over layers and seeds; slopes of logarithms: 0 is flat, 1 is proportional to width"
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>{escape(about)}</p>",
        pictures((TITLES[name], draw_coordinates(results, name)) for name in results["by"]),
        grid_table(COLUMNS, _rows(results)),
    ]
    write_text(path, render_page(title, body))


def coordinates_table(results: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    return text_table(COLUMNS, _rows(results))


def draw_coordinates(results: Mapping[str, Any], name: str) -> str:
    """Change against width, one curve for each coordinate, as an ``<svg>`` text."""
    widths = np.asarray(results["widths"], np.float64)
    changes = results["sizes"][name]["change"]
    curves = [Curve(label, widths, _with_gaps(values), markers=True) for label, values in changes.items()]
    title = f"coordinates after {results['steps']} steps: {TITLES[name]}"
    return draw_curves(title, curves, x_label="width", log_x=True, log_y=True)


def _with_gaps(values: Sequence[float]) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _rows(results: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, one in results["by"].items():
        for coordinate, values in results["sizes"][name]["change"].items():
            shown = ", ".join(f"{value:.3g}" if np.isfinite(value) else "diverged" for value in values)
            slopes = (f"{one[key][coordinate]:+.2f}" for key in ("slopes", "start_slopes"))
            rows.append([coordinate, TITLES[name], shown, *slopes])
    return rows
