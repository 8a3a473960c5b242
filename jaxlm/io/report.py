"""report.html: one file that shows a run to a person, its pictures inside, no scripts."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.metrics import read_lines
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.progress import format_count
from jaxlm.io.run_dir import RunDir, write_text

_LOSSES = (("train/loss", "train"), ("eval/loss", "validation"))
_NAMES = {
    "eval/bits_per_byte": "bits per byte (validation)",
    "eval/loss": "loss (validation), nats a token",
    "train/loss": "loss (training), nats a token",
    "perf/tokens_per_second": "tokens a second",
    "perf/mfu": "MFU",
    "num_params": "parameters",
    "step": "step",
}
_MOST_SAMPLES = 12
_MOST_CHARACTERS = 2000


def write_report(run_dir: str | Path) -> Path:
    """Writes report.html from what the run directory holds (finished or not) and returns its path.

    Pictures: loss, learning rate, throughput, gradient norm, each where metrics.jsonl has it. Raises UserError where
    the directory is no run.
    """
    run = RunDir(run_dir)
    record = run.read_config()
    lines = list(read_lines(run.metrics_path))
    figures = _final_figures(lines, run.final_figures())
    name = str(record["config"].get("name") or run.path.name)
    state = "finished" if run.final_figures() is not None else f"at step {figures.get('step', 0)}, not finished"
    about = f"{run.path} · {state} · started {record.get('started', '?')}"
    body = [
        f"<h1>{_text(name)}</h1>",
        f"<p class=quiet>{_text(about)}</p>",
        _headline(figures),
        f"<div class=grid>{''.join(_image(title, svg) for title, svg in draw_run(lines))}</div>",
        _samples(list(read_lines(run.samples_path))),
        "<h2>Final figures</h2>",
        _table({_NAMES.get(key, key): _show(key, value) for key, value in figures.items()}),
        "<h2>Config</h2>",
        _config(record["config"]),
        "<h2>Environment</h2>",
        _table(_environment(record)),
        _links(run),
    ]
    page = _PAGE.replace("{title}", _text(name)).replace("{body}", "\n".join(body))
    write_text(run.report_path, page)
    return run.report_path


def draw_run(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(title, svg) of each picture that the logged lines have the figures for."""
    pictures: list[tuple[str, Sequence[Curve], dict[str, bool]]] = [
        (
            "loss (nats a token)",
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
    drawn = []
    for title, curves, options in pictures:
        there = [curve for curve in curves if np.isfinite(curve.values).any()]
        # A log axis has no place for zero.
        if there and (not options.get("log_y") or all((c.values[np.isfinite(c.values)] > 0).all() for c in there)):
            drawn.append((title, draw_curves(title, there, **options)))
    return drawn


def _curve(lines: Sequence[Mapping[str, Any]], key: str, label: str, **options: bool) -> Curve:
    # A step that came twice (a run resumed after it was logged) shows its last value.
    points = {line["step"]: line[key] for line in lines if key in line}
    steps = sorted(points)
    values = [float("nan") if points[step] is None else float(points[step]) for step in steps]
    return Curve(label, np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64), **options)


def _final_figures(lines: Sequence[Mapping[str, Any]], final: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last value of every logged figure, under what the finished run said of itself; known names first."""
    last = {key: value for line in lines for key, value in line.items() if key != "time"} | dict(final or {})
    ordered = [key for key in _NAMES if key in last]
    return {key: last[key] for key in [*ordered, *sorted(last.keys() - set(ordered))]}


def _headline(figures: Mapping[str, Any]) -> str:
    shown = [key for key in _NAMES if isinstance(figures.get(key), int | float)][:6]
    cards = (f"<div><b>{_text(_show(key, figures[key]))}</b><span>{_text(_NAMES[key])}</span></div>" for key in shown)
    return f"<div class=cards>{''.join(cards)}</div>"


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    last = max(sample["step"] for sample in samples)
    newest = [sample for sample in samples if sample["step"] == last]
    shown = []
    for sample in newest[:_MOST_SAMPLES]:
        prompt, completion = (str(sample.get(key) or "")[:_MOST_CHARACTERS] for key in ("prompt", "completion"))
        shown.append(f"<pre><b>{_text(prompt)}</b>{_text(completion)}</pre>")
    return f"<h2>Samples <small>step {last}, the prompt in bold</small></h2>{''.join(shown)}"


def _config(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return f"<details><summary>all fields</summary><pre>{_text(text)}</pre></details>"


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
    links = " · ".join(f'<a href="{_text(name)}">{_text(name)}</a>' for name in there)
    return f"<h2>Files</h2><p>{links}</p>"


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>" for key, value in rows.items())
    return f"<table>{cells}</table>"


def _image(title: str, svg: str) -> str:
    # As an image, so that ids in one picture cannot meet those of another.
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{_text(title)}" src="data:image/svg+xml;base64,{data}">'


def _show(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if key.endswith("mfu"):
        return f"{value:.1%}"
    if isinstance(value, int):
        return f"{value:,}"
    return format_count(value) if abs(value) >= 1e4 else f"{value:.5g}"


def _text(text: str) -> str:
    return html.escape(text, quote=True)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #f9fafb; margin: 0 auto; max-width: 1080px;
  padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 17px; margin: 34px 0 10px; }
small, .quiet { color: #6b7280; font-weight: normal; font-size: 13px; margin: 2px 0 18px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 18px; }
.cards div { flex: 1 1 140px; background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; padding: 10px 14px; }
.cards b { display: block; font-size: 21px; } .cards span { color: #6b7280; font-size: 12.5px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 12px; }
.grid img { width: 100%; box-sizing: border-box; background: #fff; border: 1px solid #e5e7eb; border-radius: 8px;
  padding: 8px; }
pre { background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; padding: 10px 14px; margin: 0 0 10px;
  font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; background: #fff; border: 1px solid #e5e7eb; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 5px 12px; border-bottom: 1px solid #f3f4f6;
  overflow-wrap: anywhere; }
th { font-weight: 500; color: #4b5563; width: 30%; }
summary { cursor: pointer; color: #2563eb; margin-bottom: 8px; } a { color: #2563eb; }
</style>
</head>
<body>
{body}
</body>
</html>
"""
