"""Result files of lm-evaluation-harness (``results_*.json``), old form and new: figures of tasks with their errors.

New: ``"acc,none": 0.5, "acc_stderr,none": 0.02``; old: ``"acc": 0.5, "acc_stderr": 0.02``. A filter other than "none"
stays in the name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.io.eval_files.records import read_json
from jaxlm.io.json_records import json_lines


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
    truncated: int | None = None
    """Requests whose context was cut, where the file says so: those of ``tools.harness`` do."""


def read_results(path: Path) -> HarnessResults:
    """A result file. Raises UserError for what is none."""
    return results_of(read_json(path), str(path))


def results_of(record: Any, path: str) -> HarnessResults:
    """The same of a record that was read; ``path``: for messages."""
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
    cut = record.get("truncated")
    return HarnessResults(tasks, num_items, model, config, cut if isinstance(cut, int) else None)


class Sample(NamedTuple):
    """One item of a task, as the harness kept it."""

    doc_id: int
    target: str
    contexts: tuple[str, ...]
    """Of each request."""
    continuations: tuple[str, ...]
    """What was scored behind them; of completions ""."""
    logprobs: tuple[float, ...]
    """Of each request that was scored by likelihood."""
    is_greedy: tuple[bool, ...]
    texts: tuple[str, ...]
    """Of each request that was completed."""
    metrics: dict[str, float]


def read_samples(path: Path) -> list[Sample]:
    """The items of a ``samples_TASK*.jsonl``. Raises UserError for a line that is no item of the harness."""
    found = []
    for where, record in json_lines(path):
        arguments, replies = record.get("arguments"), record.get("resps")
        if not isinstance(replies, list) or not isinstance(arguments, dict | list) or "doc_id" not in record:
            raise UserError(f"{where} has no 'doc_id', 'arguments' and 'resps': it is no item of lm-evaluation-harness")
        # Written as lists by the harness, and by its tracker as {"gen_args_0": {"arg_0": ...}}.
        asked = [list(one.values()) if isinstance(one, dict) else list(one) for one in
                 (arguments.values() if isinstance(arguments, dict) else arguments)]  # fmt: skip
        said = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in replies]
        scored = [one for one in said if isinstance(one, list) and len(one) == 2]
        numbers = [one for one in said if isinstance(one, int | float | str) and _is_number(one)]
        written = not scored and not (len(asked[0]) == 1 and numbers)
        found.append(
            Sample(
                doc_id=int(record["doc_id"]),
                target=str(record.get("target", "")),
                contexts=tuple(str(one[0]) for one in asked),
                continuations=tuple(str(one[1]) if len(one) > 1 and isinstance(one[1], str) else "" for one in asked),
                logprobs=() if written else tuple(float(one[0]) for one in scored) or tuple(map(float, numbers)),
                is_greedy=tuple(str(one[1]) == "True" for one in scored),
                texts=tuple(str(one) for one in said) if written else (),
                metrics={
                    key: float(record[key])
                    for key in record.get("metrics", [])
                    if isinstance(record.get(key), int | float)
                },
            )
        )
    return found


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


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
