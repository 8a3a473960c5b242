"""report.html: one file that shows a run to a person, its pictures inside, no scripts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.generations_report import generations_section
from jaxlm.io.goodput import Account, read_events
from jaxlm.io.health_report import PREFIX, draw_health
from jaxlm.io.metrics import read_lines
from jaxlm.io.page import cards, completion, escape, grid_table, pictures, render_page, table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.policy_report import policy_section
from jaxlm.io.progress import format_count, format_seconds
from jaxlm.io.reward_report import reward_section
from jaxlm.io.run_dir import RunDir, write_text
from jaxlm.io.small_large_report import small_large_section
from jaxlm.train.responses import describe_response

_LOSSES = (("train/loss", "train"), ("eval/loss", "validation"))
_NAMES = {
    "rollout/reward": "reward (rollouts)",
    "eval/reward": "reward (held out)",
    "rollout/kl": "KL to the reference, nats an answer",
    "eval/bits_per_byte": "bits per byte (validation)",
    "eval/loss": "loss (validation)",
    "train/loss": "loss (training)",
    "perf/tokens_per_second": "tokens a second",
    "perf/mfu": "MFU",
    "perf/goodput": "goodput",
    "num_params": "parameters",
    "step": "step",
}
_MOST_SAMPLES = 12
_MOST_ROWS = 200
_SHARES = ("perf/mfu", "perf/goodput", "perf/data_wait")


def write_report(run_dir: str | Path, *, final: Mapping[str, Any] | None = None) -> Path:
    """Writes report.html from what the run directory holds (finished or not) and returns its path.

    ``final`` are the final figures of a run that is about to be marked as finished.

    Pictures: loss, learning rate, throughput, gradient norm, each where metrics.jsonl has it. Tables: those of
    ``RUN/generations`` and ``RUN/small_large`` (`run.generations`, `run.small_large`), where they are there. Raises
    UserError where the directory is no run.
    """
    run = RunDir(run_dir)
    record = run.read_config()
    lines, samples = list(read_lines(run.metrics_path)), list(read_lines(run.samples_path))
    final = run.final_figures() if final is None else final
    figures = _final_figures(lines, final)
    name = str(record["config"].get("name") or run.path.name)
    state = "finished" if final is not None else f"at step {figures.get('step', 0)}, not finished"
    about = f"{run.path} · {state} · started {record.get('started', '?')}"
    body = [
        f"<h1>{escape(name)}</h1>",
        f"<p class=quiet>{escape(about)}</p>",
        _headline(figures),
        pictures(draw_run(lines)),
        *_incidents(run.incidents_path),
        *_time(run.goodput_path),
        *_health(lines),
        *policy_section(lines, samples),
        _samples([one for one in samples if "rollout" not in one]),
        *_comparisons(run.path),
        "<h2>Final figures</h2>",
        table({_NAMES.get(key, key): _show(key, value) for key, value in figures.items()}),
        "<h2>Config</h2>",
        _config(record["config"]),
        "<h2>Environment</h2>",
        table(_environment(record)),
        _links(run),
    ]
    write_text(run.report_path, render_page(name, body))
    return run.report_path


def _health(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    drawn = draw_health(lines)
    return ["<h2>Health <small>docs/health.md</small></h2>", pictures(drawn)] if drawn else []


def draw_run(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(title, svg) of each picture that the logged lines have the figures for."""
    titled: list[tuple[str, Sequence[Curve], dict[str, Any]]] = [
        (
            # Perplexity is of tokens; else the loss is of texts, pairs, answers.
            "loss (nats a token)" if any("eval/perplexity" in line for line in lines) else "loss",
            [
                _curve(lines, key, label, smooth=key == "train/loss", markers=key != "train/loss")
                for key, label in _LOSSES
            ],
            {"robust": True},
        ),
        (
            "bits per byte (validation)",
            [_curve(lines, "eval/bits_per_byte", "validation", markers=True)],
            {"robust": True},
        ),
        ("learning rate", [_curve(lines, "train/learning_rate", "rate")], {"from_zero": True}),
        ("throughput (tokens a second)", [_curve(lines, "perf/tokens_per_second", "tokens/s")], {"from_zero": True}),
        ("gradient norm", [_curve(lines, "train/grad_norm", "norm", smooth=True)], {"log_y": True}),
    ]
    if any("train/term/reward_margin" in line or "train/term/ranking" in line for line in lines):
        pairs = ("accuracy", "share of pairs in the right order"), ("reward_margin", "margin of the implicit rewards")
        for name, title in pairs:
            both = [
                _curve(lines, f"train/term/{name}", "train"),
                _curve(lines, f"eval/{name}", "held out", markers=True),
            ]
            titled.append((title, both, {}))
    asked = sorted({key for line in lines for key in line if key.startswith("eval/") and key.count("/") == 2})
    for metric in dict.fromkeys(key.rsplit("/", 1)[1] for key in asked):
        of_tasks = [_curve(lines, key, key.split("/")[1], markers=True) for key in asked if key.endswith(f"/{metric}")]
        titled.append((f"tasks: {metric}", of_tasks, {}))
    drawn = []
    for title, curves, options in titled:
        there = [curve for curve in curves if np.isfinite(curve.values).any()]
        # A log axis has no place for zero.
        if there and (not options.get("log_y") or all((c.values[np.isfinite(c.values)] > 0).all() for c in there)):
            drawn.append((title, draw_curves(title, there, **options)))
    return drawn


def _curve(lines: Sequence[Mapping[str, Any]], key: str, label: str, **options: Any) -> Curve:
    # A step that came twice (a run resumed after it was logged) shows its last value.
    points = {line["step"]: line[key] for line in lines if key in line}
    steps = sorted(points)
    values = [float("nan") if points[step] is None else float(points[step]) for step in steps]
    return Curve(label, np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64), **options)


def _final_figures(lines: Sequence[Mapping[str, Any]], final: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last value of every logged figure, under what the finished run said of itself; known names first."""
    last = {key: value for line in lines for key, value in line.items() if key != "time" and not key.startswith(PREFIX)}
    last |= dict(final or {})
    ordered = [key for key in _NAMES if key in last]
    return {key: last[key] for key in [*ordered, *sorted(last.keys() - set(ordered))]}


def _headline(figures: Mapping[str, Any]) -> str:
    shown = [key for key in _NAMES if isinstance(figures.get(key), int | float)][:6]
    return cards({_NAMES[key]: _show(key, figures[key]) for key in shown})


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    last = max(sample["step"] for sample in samples)
    newest = [sample for sample in samples if sample["step"] == last]
    shown = [
        completion(str(one.get("prompt") or ""), str(one.get("completion") or "")) for one in newest[:_MOST_SAMPLES]
    ]
    return f"<h2>Samples <small>step {last}, the prompt in bold</small></h2>{''.join(shown)}"


def _incidents(path: Path) -> list[str]:
    """What went wrong and what was done: of many incidents the last ones."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        rows = [
            (str(one["step"]), _WHAT.get(one["kind"], str(one["kind"])), *_what_was_seen(one))
            for one in found[-_MOST_ROWS:]
        ]
    except (ValueError, LookupError, TypeError, AttributeError):  # edited, or another version's
        return [f"<p class=quiet>{escape(path.name)} cannot be read here</p>"]
    if not rows:
        return []
    counted = f"{len(found)}" + (f", the last {len(rows)} shown" if len(rows) < len(found) else "")
    return [
        f"<h2>Incidents <small>{counted}</small></h2>",
        grid_table(("step", "what", "batches", "loss", "usual", "done"), rows),
    ]


_WHAT: dict[str, str] = {
    "not_finite": "not finite",
    "outlier": "stood out",
    "spike": "spike",
    "spike_not_finite": "not finite, repeatedly",
    "stopped": "run stopped",
}


def _what_was_seen(incident: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """(batches, largest loss, usual loss, what was done)."""
    if incident["kind"] == "stopped":
        return "", "", "", incident["diagnosis"]
    batches = incident.get("batch_ids", [incident.get("batch_id")])
    shown = str(batches[0]) if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
    losses = [loss for loss in incident.get("losses", [incident.get("loss")]) if loss is not None]
    usual = (incident.get("statistics") or {}).get("loss_median")
    return (
        shown,
        f"{max(losses):.4g}" if losses else "not finite",
        "" if usual is None else f"{usual:.4g}",
        describe_response(incident),
    )


def _time(path: Path) -> list[str]:
    """Where the time of all processes of the run went."""
    account = Account(read_events(path))
    if not account.total:
        return []
    rows = [
        (_CAUSES[cause], format_seconds(seconds), f"{seconds / account.total:.1%}")
        for cause, seconds in account.seconds.items()
        if seconds and cause in _CAUSES
    ]
    starts = f"{account.starts} start{'s' if account.starts != 1 else ''}"
    between = f"; {format_seconds(account.between)} between them" if account.between >= 1 else ""
    about = f"{format_seconds(account.total)} in {starts}{between}"
    return [f"<h2>Time <small>{about}</small></h2>", grid_table(("cause", "time", "share"), rows)]


_CAUSES = {
    "step": "steps that count (goodput)",
    "rollout": "rollouts: answers written and judged (goodput)",
    "data_wait": "waiting for data",
    "compile": "compiling",
    "checkpoint": "saving",
    "evaluation": "evaluating and sampling",
    "rollback": "rollbacks: steps undone, restoring",
    "restart": "restarts: steps lost, starting again",
    "start_up": "first start",
}


def _comparisons(run_dir: Path) -> list[str]:
    """The sections of other commands' results inside the run directory."""
    body: list[str] = []
    for name, title, section in (
        ("generations", "The generations side by side", lambda found: generations_section(found["rows"])),
        ("small_large", "Small against large", small_large_section),
        ("reward", "Reward model", reward_section),
    ):
        path = run_dir / name / f"{name}.json"
        if path.exists():
            try:
                shown = section(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, LookupError, TypeError, AttributeError):  # another version's, or cut short
                shown = [f"<p class=quiet>{escape(path.name)} cannot be read here: run its command again</p>"]
            body += [f"<h2>{title}</h2>", *shown]
    return body


def _config(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return f"<details><summary>all fields</summary><pre>{escape(text)}</pre></details>"


def _environment(record: Mapping[str, Any]) -> dict[str, str]:
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    rest = {key: value for key, value in record.items() if key not in ("config", "versions")}
    shown = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in rest.items()
    }
    return {"versions": versions} | {key.replace("_", " "): value for key, value in shown.items() if value != "null"}


def _links(run: RunDir) -> str:
    paths = (run.config_path, run.metrics_path, run.samples_path, run.tensorboard_path, run.checkpoints_path)
    there = [path.name for path in (*paths, run.profile_path) if path.exists()]
    # Relative: the directory may be moved or served from anywhere.
    links = " · ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in there)
    return f"<h2>Files</h2><p>{links}</p>"


def _show(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if key in _SHARES:
        return f"{value:.1%}"
    if isinstance(value, int):
        return f"{value:,}"
    return format_count(value) if abs(value) >= 1e4 else f"{value:.5g}"
