"""report.html of a study of quality: one ladder on several texts."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import cards, escape, grid_table, pictures, render_page, text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import write_text

Results = Mapping[str, Any]
"""What ``run.ladder_quality.study_quality`` returns."""
COLUMNS = ("text", "FLOPs", "loss above", "95 %", "compute for the same loss", "95 %")


def write_quality_report(path: Path, title: str, results: Results) -> None:
    """A page of losses by compute, gaps and what they are in compute."""
    noise = results["noise"]
    about = (
        f"{results['num_runs']} runs; the best of each budget, mean of its seeds; nats a byte over "
        f"{results['held_out_tokens']:,} held-out bytes; seeds differ by {100 * noise['deviation']:.2g} % of the loss "
        f"(standard deviation, {noise['spare']} degrees of freedom), and intervals are of that alone"
    )
    last = {name: one["against"]["budgets"][-1] for name, one in _others(results).items()}
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>{escape(about)}</p>",
        cards({f"compute that {name} needs for the same loss": _times(one) for name, one in last.items()}),
        pictures(draw_quality(results)),
        "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(results)),
        grid_table(*_losses(results)),
        grid_table(COLUMNS, _gaps(results)),
    ]
    write_text(path, render_page(title, body))


def quality_tables(results: Results) -> str:
    """Both tables and a sentence a text, for a terminal."""
    return "\n\n".join(
        [text_table(*_losses(results)), text_table(COLUMNS, _gaps(results)), "\n".join(sentences(results))]
    )


def sentences(results: Results) -> list[str]:
    """What each text is worth beside the first, in words."""
    first, found = results["reference"], []
    for name, one in _others(results).items():
        against = one["against"]
        last = against["budgets"][-1]
        low, high = (100 * math.expm1(end) for end in against["slope_interval"])
        side = "above" if last["gap"] > 0 else "below"
        trend = {"widens": "widens", "closes": "closes", "cannot tell": "neither widens nor closes for certain"}
        found.append(
            f"{name}: at {last['flops']:.2g} FLOPs the loss is {100 * abs(last['gap']):.2f} % {side} that of {first} "
            f"({_span(last['gap_interval'], 100)} %); for the same loss it takes {_times(last)} the compute "
            f"({_times_span(last)}); the gap {trend[against['trend']]} with compute "
            f"({low:+.2f} to {high:+.2f} % of the loss a tenfold)"
        )
    return found


def draw_quality(results: Results) -> list[tuple[str, str]]:
    """(title, svg): losses by compute; gaps by compute."""
    losses, gaps = [], []
    for colour, (name, one) in enumerate(results["texts"].items()):
        flops, loss, error = (
            np.array([point[key] for point in one["frontier"]]) for key in ("flops", "loss", "standard_error")
        )
        losses.append(Curve(name, flops, loss, markers=True, band=(loss - 2 * error, loss + 2 * error), colour=colour))
        if one["against"] is None:
            gaps.append(Curve(name, flops, np.zeros(len(flops)), colour=colour))
            continue
        budgets = one["against"]["budgets"]
        band = np.array([budget["gap_interval"] for budget in budgets])
        gap, at = (np.array([budget[key] for budget in budgets]) for key in ("gap", "flops"))
        ends = (100 * band[:, 0], 100 * band[:, 1])
        gaps.append(Curve(name, at, 100 * gap, markers=True, band=ends, colour=colour))
    drawn = ("loss at equal compute", losses), (f"loss above that of {results['reference']}, %", gaps)
    return [
        (title, draw_curves(title, curves, x_label="compute C, FLOPs", log_x=True, powers_of_ten=True))
        for title, curves in drawn
    ]


def _others(results: Results) -> dict[str, Any]:
    return {name: one for name, one in results["texts"].items() if one["against"] is not None}


def _losses(results: Results) -> tuple[list[str], list[list[str]]]:
    first = results["texts"][results["reference"]]["frontier"]
    columns = ["text", "different bytes", *(f"loss at {point['flops']:.2g} (width)" for point in first)]
    rows = [
        [name, f"{one['different_tokens']:,}", *(f"{p['loss']:.4f} ({p['width']})" for p in one["frontier"])]
        for name, one in results["texts"].items()
    ]
    return columns, rows


def _gaps(results: Results) -> list[list[str]]:
    return [
        [
            name,
            f"{one['flops']:.2g}",
            f"{100 * one['gap']:+.2f} %",
            _span(one["gap_interval"], 100),
            _times(one),
            _times_span(one),
        ]
        for name, text in _others(results).items()
        for one in text["against"]["budgets"]
    ]


def _times(one: Mapping[str, Any]) -> str:
    if one["bound"] == 1 and (math.isinf(one["times"]) or one["times"] == 0):
        return "-"  # of the smallest budget nothing is known
    if math.isinf(one["times"]) or one["times"] == 0:
        return f"{'more' if one['times'] else 'less'} than {one['bound']:.2f}x"
    return f"{one['times']:.2f}x"


def _times_span(one: Mapping[str, Any]) -> str:
    low, high = one["times_interval"]
    if low > 0 and math.isfinite(high):
        return _span((low, high))
    if low > 0 and math.isfinite(low):
        return f"above {low:.2f}"
    return f"below {high:.2f}" if 0 < high < math.inf else "-"


def _span(ends: tuple[float, float], factor: float = 1.0) -> str:
    low, high = (factor * end for end in ends)
    return f"{low:.2f} to {high:.2f}"
