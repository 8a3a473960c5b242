"""``python -m experiments.emergence CONFIG``: small models in which abilities come, or do not, and one report of them.

Each model is a trial of a minute or so. What came of it is one file below ``RUN/trials``, so the same command goes on
with the next, and may add seeds and sizes.
"""

import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.io.agree import say
from jaxlm.io.laboratory_report import checks_table, write_laboratory_report
from jaxlm.io.progress import format_seconds
from jaxlm.io.run_dir import RunDir, json_ready, write_json
from jaxlm.io.run_table import write_runs
from jaxlm.run.laboratory.arithmetic import arithmetic_results, arithmetic_trials
from jaxlm.run.laboratory.config import LaboratoryConfig, Part
from jaxlm.run.laboratory.induction import (
    copying_results,
    copying_trials,
    induction_results,
    induction_trials,
)
from jaxlm.run.laboratory.instructions import instruction_results, instruction_trials
from jaxlm.run.laboratory.learning import Record, Trial, has_diverged
from jaxlm.run.laboratory.regression import regression_results, regression_trials
from jaxlm.run.several_runs import sweep_command, train_several

PROG = "python -m experiments.emergence"
RESULTS, TRIALS, LADDERS = "emergence.json", "trials", "ladders.csv"
MAY_CHANGE = (
    "name",
    "parts",
    "induction.depths",
    *(f"{part}.num_seeds" for part in ("induction", "copying", "regression", "arithmetic", "instructions")),
    *(f"{part}.widths" for part in ("copying", "regression", "arithmetic")),
    "instructions.num_templates",
)
"""More may be tried: a trial is known by what it is."""


class Experiment(NamedTuple):
    """Its trials, and what their records say together."""

    trials: Callable[[LaboratoryConfig], list[Trial]]
    results: Callable[[LaboratoryConfig, Sequence[Record]], dict[str, Any]]


EXPERIMENTS: dict[Part, Experiment] = {
    "induction": Experiment(induction_trials, induction_results),
    "copying": Experiment(copying_trials, copying_results),
    "regression": Experiment(regression_trials, regression_results),
    "arithmetic": Experiment(arithmetic_trials, arithmetic_results),
    "instructions": Experiment(instruction_trials, instruction_results),
}


def main(argv: list[str]) -> int:
    """``CONFIG [--processes N] [--dry-run] [--field.sub value ...] [--run-dir DIR]``; ends with a line of JSON."""
    return sweep_command(argv, LaboratoryConfig, PROG, plan, laboratory)


def plan(config: LaboratoryConfig) -> dict[str, Any]:
    """The trials by name on stderr, and how many there are."""
    counts = {}
    for part in config.parts:
        trials = EXPERIMENTS[part].trials(config)
        counts[part] = len(trials)
        say("\n".join(one.name for one in trials))
    return {"num_trials": sum(counts.values()), "by_part": counts}


def laboratory(config: LaboratoryConfig, run_dir: str | Path, *, processes: int = 1) -> dict[str, Any]:
    """Does what is left of all trials; returns the ``checks``, and writes all results to ``emergence.json``.

    Where a signal stopped several processes: ``stopped_by``. Raises UserError for bad input.
    """
    directory, start = RunDir(run_dir), time.perf_counter()
    with directory:
        directory.write_config(config, may_change=MAY_CHANGE)
        trials = _all_trials(config)
        path = directory.path / TRIALS
        path.mkdir(exist_ok=True)
        waiting = [i for i, one in enumerate(trials) if not _file(path, one).exists()]
        say(f"{len(trials)} trials, {len(waiting)} of them to do")
        names = [one.name for one in trials]
        stopped = train_several(functools.partial(_do, config, path), names, waiting, processes)
        if stopped is not None:
            return stopped | {"run_dir": str(directory.path)}
        found = {part: _results(config, part, path) for part in config.parts}
        parts = {part: one for part, one in found.items() if one is not None}
        if not parts:
            raise UserError(f"no trial below {path} has scores: all diverged, at rates that are too high?")
        checks = [check for one in parts.values() for check in one["checks"]]
        for one in parts.values():
            if "ladder" in one:
                write_runs(directory.path / LADDERS, one.pop("ladder"))
        write_json(directory.path / RESULTS, json_ready(parts))
        write_laboratory_report(directory.report_path, config.name, json_ready(parts))
        if checks:
            say(checks_table(checks))
        say(f"report: {directory.report_path}")
        say(f"took {format_seconds(time.perf_counter() - start)}")
        return json_ready(
            {
                "holds": {check["what"]: check["holds"] for check in checks},
                "scores": {part: one["scores"] for part, one in parts.items()},
                "trends": {part: one["trend"] for part, one in parts.items() if "trend" in one},
                "verdicts": {one["kind"]: one["verdict"] for one in parts.get("arithmetic", {}).get("worth", [])},
                "num_trials": len(trials),
                "diverged": [name for one in parts.values() for name in one["diverged"]],
                "trial_seconds": sum(one["seconds"] for one in parts.values()),
                "run_dir": str(directory.path),
            }
        )


def _all_trials(config: LaboratoryConfig) -> list[Trial]:
    return [trial for part in config.parts for trial in EXPERIMENTS[part].trials(config)]


def _do(config: LaboratoryConfig, path: Path, number: int) -> Record:
    trial = _all_trials(config)[number]
    write_json(_file(path, trial), json_ready(trial.run()))
    return {}


def _file(path: Path, trial: Trial) -> Path:
    return path / f"{trial.name}.json"


def _results(config: LaboratoryConfig, part: Part, path: Path) -> dict[str, Any] | None:
    """What the trials of a part say that did not diverge; says which did. None where all did."""
    experiment = EXPERIMENTS[part]
    names = [one.name for one in experiment.trials(config)]
    records = {name: json.loads((path / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    diverged = [name for name, record in records.items() if has_diverged(record)]
    for name in diverged:
        say(f"{name} has figures that are no numbers (it diverged): left out")
    kept = [record for name, record in records.items() if name not in diverged]
    if not kept:
        say(f"{part}: every trial diverged, at rates that are too high? It is left out of the report")
        return None
    seconds = sum(record["seconds"] for record in records.values())
    return experiment.results(config, kept) | {"seconds": seconds, "diverged": diverged}
