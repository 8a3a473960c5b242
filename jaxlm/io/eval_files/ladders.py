"""Scores of tasks over ladders of models, from three kinds of files: a table, result files of lm-evaluation-harness,
and the items that ``jaxlm evaluate`` keeps."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.evals.edit_distance import token_edit_distance
from jaxlm.evals.emergence import Scores, share_errors
from jaxlm.evals.ladder_metrics import CONTINUOUS, DISCONTINUOUS, as_scores
from jaxlm.io.eval_files.harness_results import Figure, HarnessResults, read_results
from jaxlm.io.json_records import json_lines
from jaxlm.io.run_table import numbers, read_table

ROLES = {
    "task": "its name", "size": "parameters, tokens or steps", "metric": "its name", "score": "the figure",
    "error": "its standard error",
}  # fmt: skip
_NAME = re.compile(r"^(?P<model>.+)_step(?P<step>\d+)$")
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([kmbt])(?![\w.])", re.IGNORECASE)
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


class Ladder(NamedTuple):
    """One task over its rungs."""

    sizes: np.ndarray
    scores: dict[str, Scores]
    """By metric, higher is better."""


class ItemLadder(NamedTuple):
    """The same, item by item."""

    sizes: np.ndarray
    scores: dict[str, np.ndarray]
    """By metric, higher is better, [rungs, items]."""


def read_ladder_table(path: Path, columns: Mapping[str, str]) -> dict[str, Ladder]:
    """A row for each task, size and metric. ``columns``: by `ROLES`; without ``task`` there is one."""
    table = read_table(path)
    if missing := [role for role in ("size", "metric", "score", "error") if role not in columns]:
        raise UserError(f"--columns has no {missing[0]}=COLUMN")
    texts = {}
    for role in ("task", "metric"):
        name = columns.get(role)
        if name is not None and name not in table.columns:
            raise UserError(f"{path} has no column {name!r}: there are {', '.join(map(repr, table.columns))}")
        texts[role] = ["all"] * len(table.places) if name is None else [str(one) for one in table.columns[name]]
    values = {role: numbers(path, table, columns[role]) for role in ("size", "score", "error")}
    found: dict[str, dict[float, dict[str, Figure]]] = {}
    for i, (task, metric) in enumerate(zip(texts["task"], texts["metric"], strict=True)):
        rung = found.setdefault(task, {}).setdefault(float(values["size"][i]), {})
        if metric in rung:
            raise UserError(f"{path} {table.places[i]}: {task} has {metric} at {values['size'][i]:g} twice")
        read = metric in CONTINUOUS or metric in DISCONTINUOUS
        if read and not (np.isfinite(values["score"][i]) and 0 <= values["error"][i] < np.inf):
            raise UserError(
                f"{path} {table.places[i]}: {metric} is {values['score'][i]:g} with an error of "
                f"{values['error'][i]:g}: mend or remove the line"
            )
        rung[metric] = Figure(float(values["score"][i]), float(values["error"][i]))
    return {task: _ladder(f"{path}, task {task!r}", rungs, {}) for task, rungs in found.items()}


def read_harness_ladders(folder: Path, along: str) -> dict[str, Ladder]:
    """Of result files ``MODEL_stepN.json`` with a size like 70m or 1.4b in the model's name. ``along``: "size": models
    at the last step that all have; "step": one ladder for each model, named "TASK of MODEL"."""
    files: dict[tuple[str, int], HarnessResults] = {}
    for path in sorted(folder.glob("*.json")):
        name = _NAME.match(path.stem)
        if name is None:
            raise UserError(f"{path.name} in {folder} is no MODEL_stepN.json: keep other files elsewhere")
        key = _size_in(name["model"])[0], int(name["step"])
        if key in files:
            raise UserError(f"{folder} has two files of {key[0]} at step {key[1]}: keep one, or two folders")
        files[key] = read_results(path)
    if not files:
        raise UserError(f"{folder} holds no MODEL_stepN.json")
    groups: dict[str, dict[float, HarnessResults]] = {}
    if along == "step":
        for (model, step), results in files.items():
            groups.setdefault(f" of {model}", {})[float(step)] = results
    else:
        models = {model for model, _ in files}
        steps = [step for step in {step for _, step in files} if all((model, step) in files for model in models)]
        if not steps:
            raise UserError(f"{folder}: no step is there of every model")
        groups[""] = {_size_in(model)[1]: files[model, max(steps)] for model in models}
    found = {}
    for suffix, rungs in groups.items():
        shared = set.intersection(*({*one.tasks} for one in rungs.values()))
        for task in sorted(shared):
            figures = {size: one.tasks[task] for size, one in rungs.items()}
            counts = {size: one.num_items.get(task, 0) for size, one in rungs.items()}
            found[f"{task}{suffix}"] = _ladder(f"{folder}, task {task!r}", figures, counts)
    return found


def read_item_ladder(files: Mapping[float, Path]) -> ItemLadder:
    """Of files that ``jaxlm evaluate`` wrote, by size: the items that all of them hold. Written answers have
    ``token_edit_distance`` too."""
    rungs: dict[float, dict[str, dict[str, float]]] = {}
    for size, path in sorted(files.items()):
        rungs[size] = {}
        for where, record in json_lines(path):
            scores = record.get("scores")
            if not isinstance(scores, dict) or "name" not in record:
                raise UserError(f"{where} has no 'name' with 'scores': give files that jaxlm evaluate wrote")
            rungs[size][str(record["name"])] = {**scores, **_edits(record)}
    names = sorted(set.intersection(*(set(rung) for rung in rungs.values()))) if rungs else []
    if not names:
        raise UserError("the files share no item: give those of one task")
    metrics = [
        metric
        for metric in (*DISCONTINUOUS, *CONTINUOUS)
        if all(metric in rung[name] for rung in rungs.values() for name in names)
    ]
    scores = {
        metric: as_scores(
            metric,
            np.array([[rung[name][metric] for name in names] for rung in rungs.values()], np.float64),
            np.zeros(1),
        ).values
        for metric in metrics
    }
    return ItemLadder(np.array(list(rungs)), scores)


def _edits(record: Mapping[str, Any]) -> dict[str, float]:
    if "answer" not in record or "gold" not in record or "outputs" not in record:
        return {}
    return {"token_edit_distance": token_edit_distance(str(record["answer"] or ""), str(record["gold"]))}


def _ladder(where: str, rungs: Mapping[float, Mapping[str, Figure]], counts: Mapping[float, int]) -> Ladder:
    sizes = sorted(rungs)
    shared = [metric for metric in rungs[sizes[0]] if all(metric in rungs[size] for size in sizes)]
    scores = {}
    for metric in shared:
        if metric not in CONTINUOUS and metric not in DISCONTINUOUS:
            continue
        figures = [rungs[size][metric] for size in sizes]
        if any(one.error is None for one in figures):
            continue
        values = np.array([one.value for one in figures])
        errors = np.array([one.error or 0.0 for one in figures])
        if metric in DISCONTINUOUS:
            errors = _errors_of_shares(where, values, errors, [counts.get(size, 0) for size in sizes])
        try:
            scores[metric] = as_scores(metric, values, errors)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
    return Ladder(np.array(sizes, np.float64), scores)


def _errors_of_shares(where: str, values: np.ndarray, errors: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Where none or all are right the file's error is 0: it follows from the number of items, given or told by another
    rung's error."""
    if (errors > 0).all():
        return errors
    told = [value * (1 - value) / error**2 for value, error in zip(values, errors, strict=True) if error > 0]
    items = np.array([count or (round(float(np.median(told))) if told else 0) for count in counts])
    if (items == 0).any():
        raise UserError(f"{where}: every error is 0, and the file does not say of how many items: give errors")
    return np.where(errors > 0, errors, share_errors(values, items))


def _size_in(model: str) -> tuple[str, float]:
    """The size in a model's name, as written and as a number; what else stands there is how it was run."""
    found = _SIZE.search(model.replace("-", " "))
    if found is None:
        raise UserError(f"the model's name {model!r} says no size like 70m or 1.4b")
    return found[0].lower(), float(found[1]) * _UNITS[found[2].lower()]
