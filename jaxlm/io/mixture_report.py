"""report.html of a mixture study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import cards, escape, grid_table, pictures, render_page, table, text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import write_text

Results = Mapping[str, Any]
"""What ``run.mixture.study_mixture`` returns."""


def write_mixture_report(path: Path, title: str, results: Results) -> None:
    """A page of `mixture_section`."""
    write_text(path, render_page(title, [f"<h1>{escape(title)}</h1>", *mixture_section(results)]))


def mixture_table(results: Results) -> str:
    """The table for a terminal."""
    return text_table(_columns(results), _cells(results))


def mixture_section(results: Results) -> list[str]:
    """Loss by domain for each candidate, the fitted law and the mixture that it calls best, as HTML."""
    best, law = results["best"], results["law"]
    errors = ", ".join(f"{kind} {100 * error:.2f} %" for kind, error in law["leave_one_out"].items())
    gain = best["best_candidate_mean"] - best["measured_mean"]
    bar = 2 * results["noise"]
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in best["shares"].items())
    verdict = "better than" if gain > bar else "worse than" if -gain > bar else "as good as"
    return [
        "<p class=quiet>one small run for each mixture, the same steps, tokens and tokenizer; bits per byte on "
        "held-out text of each domain, lower is better</p>",
        cards(
            {
                "bits per byte predicted": f"{best['predicted_mean']:.4f}",
                "measured": f"{best['measured_mean']:.4f}",
                "of the best candidate": f"{best['best_candidate_mean']:.4f}",
                "standard deviation over seeds": f"{results['noise']:.4f}",
            }
        ),
        grid_table(_columns(results), _cells(results)),
        pictures(draw_mixture(results)),
        table(
            {
                "best predicted mixture": shares,
                "law": f"{law['kind']}; error on left-out runs, relative: {errors}",
                "verdict": f"the predicted mixture is {verdict} the best candidate ({best['best_candidate']}): "
                f"{gain:+.4f} bits per byte gained, where seeds have a standard deviation of {results['noise']:.4f}",
            }
        ),
    ]


def draw_mixture(results: Results) -> list[tuple[str, str]]:
    """(title, svg): each domain's loss by its own share."""
    rows, title = results["rows"].values(), "loss on a domain by its own share (bits per byte)"
    curves = []
    for name in results["best"]["shares"]:
        points = sorted((100 * row["shares"][name], row["bits_per_byte"][name]) for row in rows)
        share, loss = np.array(points).T
        curves.append(Curve(name, share, loss, markers=True))
    return [(title, draw_curves(title, curves, x_label="share of the training tokens, %"))]


def _columns(results: Results) -> list[str]:
    names = list(results["best"]["shares"])
    shares = [f"share of {name}" for name in names]
    return ["mixture", *shares, *(f"bits per byte, {name}" for name in names), "mean", "most epochs"]


def _cells(results: Results) -> list[list[str]]:
    lines = []
    for name, row in results["rows"].items():
        shares = [f"{100 * share:.1f} %" for share in row["shares"].values()]
        losses = [f"{loss:.4f}" for loss in row["bits_per_byte"].values()]
        lines.append([name, *shares, *losses, f"{row['mean']:.4f}", f"{max(row['epochs'].values()):.2f}"])
        if row["predicted"] is not None:
            predicted = [f"{loss:.4f}" for loss in row["predicted"].values()]
            lines.append(["as predicted", *("" for _ in shares), *predicted, f"{row['predicted_mean']:.4f}", ""])
    return lines
