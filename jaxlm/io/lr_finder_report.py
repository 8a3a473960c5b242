"""report.html of the learning-rate finder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import cards, escape, pictures, render_page
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import write_text

_NAMES = {
    "suggested_lr": "suggested peak rate",
    "steepest_lr": "steepest fall",
    "lowest_loss_lr": "lowest loss",
    "diverged_lr": "diverged",
}


def write_lr_finder_report(path: Path, title: str, figures: Mapping[str, Any], curve: Mapping[str, Any]) -> None:
    """A page of the rates and the curve they were read off (``run.lr_finder``)."""
    shown = {label: "no" if figures[key] is None else f"{figures[key]:.3g}" for key, label in _NAMES.items()}
    note = "Loss of the batch after a step at each rate, raised from step to step; a short run prefers higher rates."
    body = [
        f"<h1>{escape(title)}</h1>",
        cards(shown),
        pictures([("loss by rate", draw_rates(figures, curve))]),
        f"<p class=quiet>{escape(note)}</p>",
    ]
    write_text(path, render_page(title, body))


def draw_rates(figures: Mapping[str, Any], curve: Mapping[str, Any]) -> str:
    """Loss, smoothed loss and the rates that were read off, against rate: an ``<svg>`` text."""
    rates = np.asarray(curve["rates"], np.float64)
    losses, smoothed = (
        np.array([np.nan if x is None else x for x in curve[name]], np.float64) for name in ("losses", "smoothed")
    )
    top = smoothed[0] + 0.5 * (smoothed[0] - np.nanmin(smoothed))
    curves = [
        Curve("smoothed", rates, np.where(smoothed <= top, smoothed, np.nan)),
        Curve("loss", rates, np.where(losses <= top, losses, np.nan)),
    ]
    for key in ("suggested_lr", "diverged_lr"):
        if figures[key] is not None:
            at = np.array([figures[key]])
            height = np.interp(np.log(at), np.log(rates), np.nan_to_num(smoothed, nan=top))
            curves.append(Curve(_NAMES[key], at, np.minimum(height, top), markers=True))
    return draw_curves("loss by rate", curves, x_label="rate", log_x=True)
