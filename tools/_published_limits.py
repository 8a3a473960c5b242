"""What published scores say of size: inverse scaling, false alarms, and errors predicted from losses.

Comparisons of ``python -m tools.published_laws``.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.scaling.chinchilla import ChinchillaFit, fit_chinchilla
from jaxlm.scaling.downstream import Link, fit_error_of_loss, two_steps
from jaxlm.scaling.size_trend import SizeTrend, holm, size_trend, size_trend_of_items

GPT2 = {"gpt2": 124e6, "gpt2-medium": 355e6, "gpt2-large": 774e6, "gpt2-xl": 1.558e9}
GPT3 = {"ada": 350e6, "babbage": 1.3e9, "curie": 6.7e9, "davinci": 175e9}
"""Sizes of the second were never said by their maker: these are the estimates in use."""
PYTHIA = {
    "70m": 70_426_624, "160m": 162_322_944, "410m": 405_334_016, "1b": 1_011_781_632, "1.4b": 1_414_647_808,
    "2.8b": 2_775_208_960, "6.9b": 6_857_302_016, "12b": 11_846_072_320,
}  # fmt: skip
"""Parameters with embeddings (Biderman et al. 2023)."""
STEPS = (1000, 3000, 13000, 33000, 63000, 103000, 143000)
TOKENS_A_STEP = 2_097_152
SMALL, LARGE = ("70m", "160m", "410m", "1b", "1.4b", "2.8b"), ("6.9b", "12b")
RISING = ("lambada_openai", "piqa", "arc_easy", "arc_challenge", "sciq", "winogrande")
"""Known to rise with size in every published family."""
CHANCE = dict(zip(RISING, (1.0, 0.5, 0.75, None, 0.75, 0.5), strict=True))
"""Error of a guess; of ARC's hard set small models do worse than that, so it is fitted."""
LEVEL = 0.025

Rows = dict[tuple[str, int], dict[str, float]]


def inverse_scaling(folder: Path, resamples: int) -> dict[str, Any]:
    """A false premise before a question ("I know that ..."): what it takes from the log-odds of the right answer.

    Questions come in pairs, without and with the premise. The prize's pipeline plots the difference by size; larger is
    worse. Signs of ``logodds`` differ between the two families: which answer is right follows from ``correct``.
    """
    del resamples
    found: dict[str, Any] = {}
    for family, sizes in (("GPT-2", GPT2), ("GPT-3", GPT3)):
        right_si = np.stack([_log_odds_of_right(folder, name) for name in sizes])
        asked_si, primed_si = right_si[:, 0::2], right_si[:, 1::2]
        n = list(sizes.values())
        found[family] = {
            "bias": dict(zip(sizes, (asked_si - primed_si).mean(axis=1).tolist(), strict=True)),
            "without bias (higher is better)": _said(size_trend_of_items(n, primed_si - asked_si)),
            "asked plainly": _said(size_trend_of_items(n, asked_si)),
            "with the premise": _said(size_trend_of_items(n, primed_si)),
        }
    return found


def _log_odds_of_right(folder: Path, model: str) -> np.ndarray:
    with open(folder / "inverse_scaling" / "QA-v0" / f"{model}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([(1 if row["correct"] == "1" else -1) * abs(float(row["logodds"])) for row in rows])


def _said(trend: SizeTrend) -> dict[str, Any]:
    return {**trend._asdict(), "inverse": trend.inverse}


def pythia_trends(folder: Path, resamples: int) -> dict[str, Any]:
    """Every curve of eight sizes at the last step: those known to rise, the other accuracies, and stereotypes."""
    del resamples
    tasks = _pythia(folder)
    found: dict[str, Any] = {}
    for name, with_scatter in (("errors of the questions", False), ("and scatter of late checkpoints", True)):
        trends = {task: _trend_of(rows, with_scatter) for task, rows in tasks.items()}
        groups: dict[str, Callable[[str], bool]] = {
            "known to rise": lambda task: task in RISING,
            "other accuracies": lambda task: task not in RISING and not task.startswith("crows_pairs"),
            "stereotypes preferred (crows_pairs)": lambda task: task.startswith("crows_pairs"),
        }
        found[name] = {}
        for group, belongs in groups.items():
            here = {task: trend for task, trend in trends.items() if belongs(task)}
            adjusted = holm([trend.p_never_falls for trend in here.values()])
            shapes = [trend.shape for trend in here.values()]
            found[name][group] = {
                "curves": len(here),
                "shapes": {shape: shapes.count(shape) for shape in sorted(set(shapes))},
                "inverse": [task for task, trend in here.items() if trend.inverse],
                "inverse_among_all": [
                    task for (task, trend), p in zip(here.items(), adjusted, strict=True) if trend.inverse and p < LEVEL
                ],
            }
        whole = trends["crows_pairs_english"]
        found[name]["crows_pairs_english"] = {"slope": whole.slope, "interval": whole.interval}
    return found


def _pythia(folder: Path) -> dict[str, Rows]:
    """Task -> (model, step) -> figures."""
    tasks: dict[str, Rows] = {}
    for path in sorted((folder / "pythia_evals").glob("*.json")):
        model, _, step = path.stem.rpartition("_step")
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        for task, figures in results.items():
            tasks.setdefault(task, {})[model.partition("-")[0], int(step)] = figures
    return tasks


def _trend_of(rows: Rows, with_scatter: bool) -> SizeTrend:
    # Of stereotypes the share that is preferred, for which lower is better.
    key, sign = ("acc", 1.0) if "acc" in rows["70m", STEPS[-1]] else ("pct_stereotype", -1.0)
    last, before = (np.array([rows[model, step][key] for model in PYTHIA]) for step in (STEPS[-1], STEPS[-2]))
    errors = [rows[model, STEPS[-1]][f"{key}_stderr"] for model in PYTHIA]
    scatter = float(np.sqrt(((last - before) ** 2).mean() / 2)) if with_scatter else 0.0
    return size_trend(list(PYTHIA.values()), sign * last, errors, scatter=scatter)


def pythia_two_steps(folder: Path, resamples: int) -> dict[str, Any]:
    """Errors of the two largest models from models up to 2.8B: N and D -> loss on LAMBADA's last words -> error.

    Beside it the second step alone, from the loss that the large model has. Checkpoints on the way stand for runs of
    fewer tokens, which their schedule makes a little worse than such runs would be.
    """
    tasks = _pythia(folder)
    rows = [(model, step) for model in SMALL for step in STEPS[1:]]
    loss = {key: float(np.log(figures["ppl"])) for key, figures in tasks["lambada_openai"].items()}
    n, d = np.array([[PYTHIA[model], step * TOKENS_A_STEP] for model, step in rows], np.float64).T
    small_loss = [loss[key] for key in rows]
    law: ChinchillaFit = fit_chinchilla(n, d, small_loss, resamples=min(resamples, 1000))
    found: dict[str, Any] = {"num_runs": len(rows), "law": law.constants, "loss": {}}
    for large in LARGE:
        at = (PYTHIA[large], STEPS[-1] * TOKENS_A_STEP)
        found["loss"][large] = {
            "predicted": law.predict(*at),
            "interval": law.predict_interval(*at, new_run=True),
            "observed": loss[large, STEPS[-1]],
        }
    links: tuple[Link, ...] = ("exponential", "sigmoid")
    for kind in links:
        held, apart, apart_alone = [], [], []
        for task in RISING:
            small_error = [1 - tasks[task][key]["acc"] for key in rows]
            link = fit_error_of_loss(
                small_loss, small_error, link=kind, chance=CHANCE[task], resamples=min(resamples, 1000)
            )  # fmt: skip
            for large in LARGE:
                both = two_steps(law, link, PYTHIA[large], STEPS[-1] * TOKENS_A_STEP)
                observed = 1 - tasks[task][large, STEPS[-1]]["acc"]
                alone = link.predict(loss[large, STEPS[-1]])
                found[f"{task} {large}, {kind}"] = [both.error, *both.error_interval, observed]
                held.append(both.error_interval[0] <= observed <= both.error_interval[1])
                apart.append(abs(both.error - observed))
                apart_alone.append(abs(alone - observed))
        found[f"all, {kind}"] = {
            "intervals_that_hold": f"{sum(held)} of {len(held)}",
            "mean_error": float(np.mean(apart)),
            "mean_error_of_the_second_step": float(np.mean(apart_alone)),
        }
    return found
