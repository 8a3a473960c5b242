"""Emergence over a ladder as a page: verdicts, and each task's curves, discontinuous and continuous side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.evals.emergence import Curve, Emergence, Scores
from jaxlm.io.page import escape, grid_table, pictures, render_page
from jaxlm.io.plots import Curve as Line
from jaxlm.io.plots import draw_curves
from jaxlm.io.run_dir import write_text

COLUMNS = ("task", "verdict", "resamples that agree", "discontinuous metric", "continuous metrics", "place")
_MOST_PICTURES = 60


class Judged(NamedTuple):
    """One task with its verdict."""

    sizes: np.ndarray
    metric: str
    """The discontinuous one."""
    discontinuous: Scores
    continuous: Mapping[str, Scores]
    emergence: Emergence


def rows(judged: Mapping[str, Judged]) -> list[list[str]]:
    """A row for each task, under `COLUMNS`."""
    return [
        [
            task,
            one.emergence.verdict,
            "-" if one.emergence.stability is None else f"{one.emergence.stability:.0%}",
            f"{one.metric}: {_said(one.emergence.discontinuous)}",
            "; ".join(f"{name}: {_said(curve)}" for name, curve in one.emergence.continuous.items()) or "none",
            "-" if one.emergence.place is None else "{:.3g} to {:.3g}".format(*one.emergence.place),
        ]
        for task, one in judged.items()
    ]


def figures(judged: Mapping[str, Judged]) -> dict[str, Any]:
    """For a line of JSON."""
    verdicts = [one.emergence.verdict for one in judged.values()]
    return {
        "num_tasks": len(judged),
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "tasks": {
            task: {
                "verdict": one.emergence.verdict,
                "stability": one.emergence.stability,
                "verdicts_of_resamples": one.emergence.verdicts,
                "place": one.emergence.place,
                "rungs": len(one.sizes),
                "curves": {
                    name: {
                        "shape": curve.trend.shape,
                        "a_tenfold_size": curve.trend.slope,
                        "interval": curve.trend.interval,
                        "late": curve.late,
                        "jump": curve.jump.found,
                        "jump_p": curve.jump.p,
                        "jump_share": curve.jump.share,
                        "jump_between": curve.jump.between,
                    }
                    for name, curve in {one.metric: one.emergence.discontinuous, **one.emergence.continuous}.items()
                },
            }
            for task, one in judged.items()
        },
    }


def write_page(path: Path, judged: Mapping[str, Judged], *, x_label: str) -> None:
    """The page as one file."""
    body = [
        "<h1>Emergence over a ladder of models</h1>",
        "<p class=quiet>pale: the middle 95 % of each score's error; higher is better everywhere</p>",
        grid_table(COLUMNS, rows(judged)),
    ]
    for task, one in list(judged.items())[:_MOST_PICTURES]:
        body.append(f"<h2>{escape(task)} <small>{escape(one.emergence.verdict)}</small></h2>")
        shown = {one.metric: one.discontinuous, **one.continuous}
        body.append(pictures((name, _picture(name, one.sizes, scores, x_label)) for name, scores in shown.items()))
    write_text(path, render_page("Emergence", body))


def _picture(name: str, sizes: np.ndarray, scores: Scores, x_label: str) -> str:
    order = np.argsort(sizes)
    values = scores.values[order]
    errors = scores.errors if scores.errors.ndim == 1 else np.sqrt(np.diag(scores.errors))
    half = 1.96 * errors[order]
    line = Line(name, sizes[order], values, markers=True, band=(values - half, values + half))
    return draw_curves(name, [line], x_label=x_label, log_x=True, powers_of_ten=True)


def _said(curve: Curve) -> str:
    """In a few words."""
    shape = curve.trend.shape
    if curve.jump.found:
        return f"{shape}, a jump of {curve.jump.share:.0%} of it"
    return f"{shape}, late" if curve.late else shape
