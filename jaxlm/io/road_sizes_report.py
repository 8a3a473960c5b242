"""report.html of roads of several sizes: helpfulness, harmlessness and honesty by parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import escape, grid_table, pictures, render_page, text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import write_text
from jaxlm.io.scaling_report import number

Results = Mapping[str, Any]
"""What ``run.align.road_sizes.align_sizes`` writes."""


def write_sizes_report(path: Path, title: str, results: Results) -> None:
    """A page of scores by size and their trends."""
    about = (
        "greedy answers to held-out questions, judged by the gold checker; N with embeddings; intervals of 95 %, "
        + ("Wilson's" if results["num_seeds"] == 1 else f"of {results['num_seeds']} seeds a size")
    )
    trends = results["trend_table"]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>{escape(about)}</p>",
        pictures(draw_sizes(results)),
        grid_table(*_scores(results)),
        "<h2>Trends <small>docs/scaling.md says what is tested</small></h2>",
        grid_table(trends["columns"], trends["rows"]),
    ]
    write_text(path, render_page(title, body))


def sizes_table(results: Results) -> str:
    """Both tables for a terminal."""
    trends = results["trend_table"]
    return f"{text_table(*_scores(results))}\n\n{text_table(trends['columns'], trends['rows'])}"


def draw_sizes(results: Results) -> list[tuple[str, str]]:
    """(title, svg) for each tuned model: what it was tuned for, over N."""
    by_model: dict[str, list[Curve]] = {}
    for task, one in results["scores"].items():
        model, _, aspect = task.partition(": ")
        n, score, low, high = (np.array(one[name]) for name in ("n", "score", "lower", "upper"))
        by_model.setdefault(model, []).append(Curve(aspect, n, score, markers=True, band=(low, high)))
    return [
        (title, draw_curves(title, curves, x_label="parameters N", log_x=True, powers_of_ten=True, from_zero=True))
        for title, curves in ((f"{model}: share of right answers", curves) for model, curves in by_model.items())
    ]


def _scores(results: Results) -> tuple[list[str], list[list[str]]]:
    sizes = next(iter(results["scores"].values()))["n"]
    rows = [
        [
            task,
            *(
                f"{score:.1%} ({low:.0%} to {high:.0%})"
                for score, low, high in zip(one["score"], one["lower"], one["upper"], strict=True)
            ),
        ]
        for task, one in results["scores"].items()
    ]
    return ["answers", *(f"N {number(size)}" for size in sizes)], rows
