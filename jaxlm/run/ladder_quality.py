"""``python -m experiments.scaling quality CONFIG``: one ladder on several texts: loss at equal compute, and its price.

Each text has a ladder for each seed, as `sweep` trains them and resumes them, over files that are made once; all are
scored on the same held-out text. See docs/scaling.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.io.agree import say
from jaxlm.io.ladder_quality_report import quality_tables, write_quality_report
from jaxlm.io.run_dir import RunDir, json_ready, write_json
from jaxlm.io.run_table import write_runs
from jaxlm.run.ladder import MAY_CHANGE as LADDER_MAY_CHANGE
from jaxlm.run.ladder import RUNS, TABLE, Ladder, begin, open_ladder, plan, table_of, text_tokens, train_rungs
from jaxlm.run.ladder_quality_config import QualityConfig, TextConfig
from jaxlm.run.ladder_quality_data import write_texts
from jaxlm.run.several_runs import sweep_command
from jaxlm.scaling.equal_compute import Comparison, Frontier, Noise, compare, find_frontier, find_noise

PROG = "python -m experiments.scaling quality"
RESULTS = "quality.json"
MAY_CHANGE = (
    "name",
    "texts",
    "num_seeds",
    *(f"ladder.{name}" for name in LADDER_MAY_CHANGE if not name.startswith("run.corpus")),
)
"""A study may grow: each text and each run holds its own config."""


class _Arm(NamedTuple):
    """One text under one seed: a ladder of its own."""

    text: TextConfig
    directory: RunDir
    ladder: Ladder


def quality_main(argv: list[str]) -> int:
    """``CONFIG [--processes N] [--dry-run] [--field.sub value ...] [--run-dir DIR]``; ends with a line of JSON."""
    return sweep_command(argv, QualityConfig, PROG, _plan, study_quality)


def _plan(config: QualityConfig) -> dict[str, Any]:
    """The runs of one ladder as a table, and what all take together."""
    one, arms = plan(config.ladder), len(config.texts) * config.num_seeds
    say(f"this for each of {len(config.texts)} texts, {config.num_seeds} times")
    return one | {"num_runs": arms * one["num_runs"], "flops": arms * one["flops"]}


def study_quality(config: QualityConfig, run_dir: str | Path, *, processes: int = 1) -> dict[str, Any]:
    """Trains what is not trained yet; returns (and writes to ``quality.json``) ``texts``, each with its ``frontier``,
    and ``against`` the first: gap, compute-equivalent and trend; or ``stopped_by``.

    Raises UserError and ValueError for bad input, before anything is trained.
    """
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        if not directory.config_path.exists():
            open_ladder(config.ladder)  # refuses what cannot run, before the directory is this config's
        directory.write_config(config, may_change=MAY_CHANGE)
        arms = _open_arms(config, directory.path)
        # The smallest budgets of all first: a study that is stopped can be looked at.
        rungs = zip(*([(one, arm) for one in arm.ladder.rungs] for arm in arms), strict=True)
        runs = [(one, arm.directory.path / RUNS / one.name) for level in rungs for one, arm in level]
        stopped = train_rungs(runs, processes)
        if stopped is not None:
            return {"stopped_by": stopped["stopped_by"], "run_dir": str(directory.path)}
        rows = []
        for arm in arms:
            found = table_of(arm.directory, arm.ladder)
            place = arm.directory.path.relative_to(directory.path)
            rows += [{"text": arm.text.name, **row, "dir": f"{place}/{row['dir']}"} for row in found]
        write_runs(directory.path / TABLE, rows)
        results = _results(config, arms, rows) | {"run_dir": str(directory.path)}
        write_json(directory.path / RESULTS, json_ready(results))
        write_quality_report(directory.report_path, config.name, results)
        say(quality_tables(results))
        say(f"report: {directory.report_path}")
        return results


def _open_arms(config: QualityConfig, path: Path) -> list[_Arm]:
    files, held_out = write_texts(config, path)
    arms = []
    for text in config.texts:
        for seed in config.seeds:
            place = RunDir(path / text.name / f"seed-{seed}")
            place.path.mkdir(exist_ok=True)
            arms.append(_Arm(text, place, begin(config.ladder_over(files[text.name], held_out, seed), place)))
    return arms


def _results(config: QualityConfig, arms: Sequence[_Arm], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = [one.name for one in config.texts]
    noise = find_noise([f"{row['text']} {row['run']}" for row in rows], [row["loss"] for row in rows])
    frontiers = {name: _frontier([row for row in rows if row["text"] == name]) for name in names}
    against = compare(frontiers, names[0], noise)
    tokens = {arm.text.name: text_tokens(arm.ladder.data) for arm in arms}
    return {
        "reference": names[0],
        "noise": noise._asdict(),
        "held_out_tokens": rows[0]["held_out_tokens"],
        "num_runs": len(rows),
        "texts": {
            one.name: {
                "tokens": tokens[one.name],
                "different_tokens": round(tokens[one.name] / one.copies),
                "frontier": _points(frontiers[one.name], noise),
                "against": None if one.name == names[0] else _against(against[one.name]),
            }
            for one in config.texts
        },
    }


def _frontier(rows: Sequence[Mapping[str, Any]]) -> Frontier:
    return find_frontier(*([row[name] for row in rows] for name in ("budget", "width", "flops", "loss")))


def _points(one: Frontier, noise: Noise) -> list[dict[str, float]]:
    error_k = noise.deviation / np.sqrt(one.count_k)
    return [
        {"flops": c, "loss": loss, "standard_error": loss * error, "width": int(width), "num_seeds": int(count)}
        for c, loss, error, width, count in zip(
            one.flops_k.tolist(),
            np.exp(one.log_loss_k).tolist(),
            error_k.tolist(),
            one.place_k,
            one.count_k,
            strict=True,
        )
    ]


def _against(one: Comparison) -> dict[str, Any]:
    return {**one._asdict(), "budgets": [budget._asdict() for budget in one.budgets]}
