"""Result files of lm-evaluation-harness (``results_*.json``), old form and new: figures of tasks with their errors.

New: ``"acc,none": 0.5, "acc_stderr,none": 0.02``; old: ``"acc": 0.5, "acc_stderr": 0.02``. A filter other than "none"
stays in the name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.io.eval_files.records import read_json


class Figure(NamedTuple):
    """One metric of one task."""

    value: float
    error: float | None
    """Standard error, if the file has one."""


class HarnessResults(NamedTuple):
    """What a file says."""

    tasks: dict[str, dict[str, Figure]]
    """Task (or group) -> metric -> figure."""
    num_items: dict[str, int]
    """Of tasks whose file says so."""
    model: str
    config: Mapping[str, Any]


def read_results(path: Path) -> HarnessResults:
    """A result file. Raises UserError for what is none."""
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("results"), dict):
        raise UserError(f"{path} has no 'results': it is no result file of lm-evaluation-harness")
    tasks = {}
    for task, figures in record["results"].items():
        if not isinstance(figures, dict):
            raise UserError(f"{path}: the results of {task!r} are no object {{...}}")
        tasks[task] = _figures(figures)
    said, samples = record.get("config"), record.get("n-samples")
    config: dict[str, Any] = said if isinstance(said, dict) else {}
    num_items = {
        task: int(counts["effective"])
        for task, counts in (samples.items() if isinstance(samples, dict) else ())
        if isinstance(counts, dict) and isinstance(counts.get("effective"), int)
    }
    model = str(record.get("model_name") or config.get("model_args") or config.get("model") or "")
    return HarnessResults(tasks, num_items, model, config)


def _figures(record: Mapping[str, Any]) -> dict[str, Figure]:
    found = {}
    for key, value in record.items():
        metric, _, name = key.partition(",")
        if isinstance(value, bool) or not isinstance(value, int | float) or metric.endswith("_stderr"):
            continue
        error = record.get(f"{metric}_stderr,{name}" if name else f"{metric}_stderr")
        shown = metric if name in ("", "none") else key
        found[shown] = Figure(float(value), float(error) if isinstance(error, int | float) else None)
    return found
