"""``python -m experiments.scaling align CONFIG``: does a larger model become more helpful, harmless and honest?

Each size goes the road of `run.align.road` in a directory of its own, so the same command resumes; what the models of
all sizes answered is one table of scores, and `scaling.size_trend` says of each whether it rises, falls or turns.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.agree import say
from jaxlm.io.road_sizes_report import sizes_table, write_sizes_report
from jaxlm.io.run_dir import RunDir, json_ready, write_json
from jaxlm.io.run_table import write_runs
from jaxlm.run.align.road import RESULTS as ROAD_RESULTS
from jaxlm.run.align.road import align
from jaxlm.run.align.road_config import RoadConfig
from jaxlm.run.align.road_results import aspects
from jaxlm.run.align.road_sizes_config import RoadSizesConfig
from jaxlm.run.scaling_limits import COLUMNS, judge_tasks, trend_figures, trend_rows
from jaxlm.run.several_runs import sweep_command, train_several
from jaxlm.scaling.size_trend import pool_seeds

PROG = "python -m experiments.scaling align"
TABLE, RESULTS = "scores.csv", "sizes.json"
MAY_CHANGE = ("name", "widths", "num_seeds", "road.name", "road.stages")
"""Sizes and seeds may be added, and all may go further: each road holds its own config."""


def sizes_main(argv: list[str]) -> int:
    """``CONFIG [--processes N] [--dry-run] [--field.sub value ...] [--run-dir DIR]``; ends with a line of JSON."""
    return sweep_command(argv, RoadSizesConfig, PROG, _plan, align_sizes)


def _plan(config: RoadSizesConfig) -> dict[str, Any]:
    roads = config.roads()
    for name, road in roads.items():
        model = road.base.model
        say(f"{name}: {model.num_layers} layers of {model.model_dim}; {', '.join(road.stages)}")
    return {"num_roads": len(roads), "stages": list(config.road.stages)}


def align_sizes(config: RoadSizesConfig, run_dir: str | Path, *, processes: int = 1) -> dict[str, Any]:
    """Goes what is left of all roads; returns (and writes to ``sizes.json``) the ``trends`` and the ``scores``.

    Where a signal or a collapse stopped a road: ``stopped_by`` and its ``stage``. Raises UserError for bad input.
    """
    directory = RunDir(run_dir)
    with directory:
        directory.write_config(config, may_change=MAY_CHANGE)
        roads = [(road, directory.path / name) for name, road in config.roads().items()]
        waiting = [i for i, (road, path) in enumerate(roads) if not _is_gone(road, path)]
        say(f"{len(roads)} roads, {len(waiting)} of them to go")
        stopped = train_several(functools.partial(_go, roads), list(config.roads()), waiting, processes)
        if stopped is not None:
            return stopped | {"run_dir": str(directory.path)}
        rows = [row for road, path in roads for row in _scores(road, path)]
        write_runs(directory.path / TABLE, rows)
        columns = {role: np.array([row[role] for row in rows], np.float64) for role in ("n", "score", "error")}
        judged = judge_tasks(columns | {"task": np.array([row["task"] for row in rows], object)})
        results = {
            "trends": trend_figures(judged),
            "scores": {task: _over_sizes([row for row in rows if row["task"] == task]) for task in judged},
            "trend_table": {"columns": COLUMNS, "rows": trend_rows(judged)},
            "num_seeds": config.num_seeds,
            "table": str(directory.path / TABLE),
            "run_dir": str(directory.path),
        }
        write_json(directory.path / RESULTS, json_ready(results))
        write_sizes_report(directory.report_path, config.name, results)
        say(sizes_table(results))
        say(f"report: {directory.report_path}")
        return {name: value for name, value in results.items() if name != "trend_table"}


def _go(roads: Sequence[tuple[RoadConfig, Path]], number: int) -> dict[str, Any]:
    road, path = roads[number]
    return align(road, path)


def _is_gone(road: RoadConfig, path: Path) -> bool:
    results = path / ROAD_RESULTS  # written when all models were asked
    return results.exists() and set(road.models) <= set(json.loads(results.read_text(encoding="utf-8"))["models"])


def _scores(road: RoadConfig, path: Path) -> list[dict[str, Any]]:
    """A row for each tuned model of a road and each thing that it was tuned for."""
    models = json.loads((path / ROAD_RESULTS).read_text(encoding="utf-8"))["models"]
    base = RunDir(path / "base").final_figures()
    assert base is not None
    rows = []
    for name in road.models[1:]:  # the base was taught to answer nothing
        for aspect, share in aspects(models[name]).items():
            rows.append(
                {
                    "task": f"{name}: {aspect}",
                    "n": base["num_params"],
                    "score": share["accuracy"],
                    "error": _error(share),
                    "lower": share["lower"],
                    "upper": share["upper"],
                    "num_questions": share["num_pairs"],
                    "loss": base["eval/loss"],
                    "text_loss": models[name]["bits_per_byte"],
                    "width": road.base.model.model_dim,
                    "seed": road.seed,
                    "dir": path.name,
                }
            )
    return rows


def _error(share: Mapping[str, float]) -> float:
    """Half of Wilson's interval over what a normal one is wide: above 0 where all answers or none are right."""
    return (share["upper"] - share["lower"]) / (2 * 1.959964)


def _over_sizes(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """``n``, ``score``, ``lower`` and ``upper`` of one task, seeds pooled."""
    pooled = pool_seeds(*([row[name] for row in rows] for name in ("n", "score", "error")))
    if pooled.scatter is None:
        order = np.argsort([row["n"] for row in rows])
        ends = {name: [rows[i][name] for i in order] for name in ("lower", "upper")}
    else:
        half_s = pooled.half_widths()
        low_s, high_s = (np.clip(pooled.scores + sign * half_s, 0.0, 1.0) for sign in (-1, 1))
        ends = {"lower": low_s.tolist(), "upper": high_s.tolist()}
    return {"n": pooled.sizes.tolist(), "score": pooled.scores.tolist()} | ends
