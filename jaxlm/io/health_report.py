"""Pictures of a run's health: figures by layer over steps."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.io.plots import Curve, draw_curves, draw_layers

PREFIX = "health/"
_MOST_CURVES = 6
_TITLES = {
    "update_ratio": ("update over weight (RMS)", True),
    "grad_rms": ("gradient (RMS)", True),
    "param_rms": ("weights (RMS)", True),
    "stream_rms": ("residual stream (RMS)", True),
    "stream_max": ("largest entry of the stream (bf16 ends at 3.4e38)", True),
    "attn_rms": ("what attention adds (RMS)", True),
    "mlp_rms": ("what the MLP adds (RMS)", True),
    "attn_logit_max": ("largest attention score", False),
    "dead_units": ("dead units of the MLP (share)", False),
    "nonfinite": ("entries of the stream that are not finite (share)", False),
}
"""Figure by layer -> (title, log scale)."""
_SCALARS = (
    ("update over weight: tables", ("embed_update_ratio", "head_update_ratio"), True),
    ("logits", ("logit_max", "log_z_max", "log_z_mean"), False),
)


def draw_health(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(title, svg) of each picture that the logged lines have figures for; none where the run looked at none."""
    lines = [line for line in lines if any(key.startswith(PREFIX) for key in line)]
    lines = list({line["step"]: line for line in lines}.values())  # a step that came twice shows its last look
    lines.sort(key=lambda line: line["step"])
    steps = np.array([line["step"] for line in lines], np.int64)
    drawn = []
    for name, (title, log) in _TITLES.items():
        values = _by_layer(lines, name)
        if values is None or (name == "nonfinite" and not np.nansum(values)):
            continue
        log = log and bool((values[np.isfinite(values)] > 0).all())
        if len(values) <= _MOST_CURVES:
            curves = [Curve(f"layer {i}", steps, row) for i, row in enumerate(values)]
            drawn.append((title, draw_curves(title, curves, log_y=log)))
        else:
            drawn.append((title, draw_layers(title, steps, values, log=log)))
    for title, names, log in _SCALARS:
        curves = [Curve(name.replace("_", " "), steps, _values(lines, PREFIX + name)) for name in names]
        curves = [curve for curve in curves if np.isfinite(curve.values).any()]
        if curves:
            drawn.append((title, draw_curves(title, curves, log_y=log)))
    return drawn


def _values(lines: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if line.get(key) is None else line[key] for line in lines], np.float64)


def _by_layer(lines: Sequence[Mapping[str, Any]], name: str) -> np.ndarray | None:
    """[layers, steps], NaN where a line has none; None where no line has a finite one."""
    pattern = re.compile(f"{PREFIX}{name}/layer_\\d+")
    keys = sorted({key for line in lines for key in line if pattern.fullmatch(key)})
    values = np.array([_values(lines, key) for key in keys])
    return values if keys and np.isfinite(values).any() else None
