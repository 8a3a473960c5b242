"""What a page shows of reinforcement learning: rewards, what they cost in KL, and how the policy behaves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.io.page import grid_table, pictures
from jaxlm.io.plots import Curve, draw_curves

PREFIX = "rollout/"
_SCORE = "rollout/score/"
_MOST_SAMPLES = 24
_TITLES: tuple[tuple[str, tuple[tuple[str, str], ...], bool], ...] = (
    ("KL to the reference (nats an answer)", (("rollout/kl", "KL"),), False),
    ("entropy (nats a token)", (("rollout/entropy", "entropy"),), True),
    ("answer length (tokens)", (("rollout/length", "length"),), True),
    ("shares", (("rollout/truncated", "cut answers"), ("rollout/idle_groups", "groups that teach nothing")), True),
    ("clip fraction", (("train/term/clip_fraction", "tokens held by the clip"),), True),
    ("critic: explained variance", (("rollout/explained_variance", "of the returns"),), False),
    ("KL coefficient", (("rollout/kl_coef", "coefficient"),), True),
    (
        "sampler against trainer (nats a token)",
        (("rollout/gap_max", "largest gap of a rollout"), ("rollout/gap_mean", "mean gap")),
        True,
    ),
)
"""Title, the figures in it with their labels, whether the axis starts at 0."""


def policy_section(lines: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Pictures over steps, reward over KL, and samples with their rewards; nothing of a run without rollouts."""
    if not any(key.startswith(PREFIX) for line in lines for key in line):
        return []
    body = ["<h2>Rollouts <small>docs/rlhf.md</small></h2>", pictures(draw_policy(lines))]
    shown = [one for one in samples if "rollout" in one]
    if shown:
        # Of each rollout that is shown one answer, the rollouts evenly spread over the run.
        by_rollout = {one["rollout"]: one for one in reversed(shown)}
        numbers = sorted(by_rollout)
        chosen = sorted({numbers[int(i)] for i in np.linspace(0, len(numbers) - 1, min(_MOST_SAMPLES, len(numbers)))})
        rows = [_row(by_rollout[number]) for number in chosen]
        body += [
            "<h2>Answers by rollout <small>all of them in samples.jsonl</small></h2>",
            grid_table(("step", "prompt", "answer", "reward", "components"), rows),
        ]
    return body


def draw_policy(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(title, svg) of each picture that the logged lines have figures for."""
    names = sorted({key for line in lines for key in line if key.startswith(_SCORE)})
    rewards = [("rollout/reward", "sum"), *((name, name.removeprefix(_SCORE)) for name in names)]
    if len(names) == 1:
        rewards = rewards[:1]
    drawn = [_over_steps("reward", rewards, lines, from_zero=False), draw_over_kl(rewards, lines)]
    drawn += [_over_steps(title, figures, lines, from_zero=zero) for title, figures, zero in _TITLES]
    return [one for one in drawn if one is not None]


def _over_steps(
    title: str, figures: Sequence[tuple[str, str]], lines: Sequence[Mapping[str, Any]], *, from_zero: bool
) -> tuple[str, str] | None:
    curves = []
    for key, label in figures:
        points = {line["step"]: line[key] for line in lines if line.get(key) is not None}
        steps = sorted(points)
        if steps:
            values = np.array([points[step] for step in steps], np.float64)
            curves.append(Curve(label, np.array(steps, np.int64), values, smooth=True))
    return (title, draw_curves(title, curves, from_zero=from_zero)) if curves else None


def draw_over_kl(
    rewards: Sequence[tuple[str, str]],
    lines: Sequence[Mapping[str, Any]],
    *,
    title: str = "reward over KL to the reference",
) -> tuple[str, str] | None:
    """(title, svg) of each component's mean over bins of KL: where the gold reward falls while the proxy rises, the
    proxy is gamed. None for fewer than three rollouts. ``rewards``: names of figures with their labels."""
    there = [line for line in lines if line.get("rollout/kl") is not None]
    kl = np.array([line["rollout/kl"] for line in there], np.float64)
    if len(kl) < 3 or np.ptp(kl) <= 0:
        return None
    edges = np.linspace(kl.min(), kl.max(), min(20, len(kl)) + 1)
    bins = np.clip(np.digitize(kl, edges) - 1, 0, len(edges) - 2)
    curves = []
    for key, label in rewards:
        values = np.array([np.nan if line.get(key) is None else line[key] for line in there], np.float64)
        places = [i for i in range(len(edges) - 1) if np.isfinite(values[bins == i]).any()]
        if places:
            means = np.array([np.nanmean(values[bins == i]) for i in places])
            centres = np.array([kl[bins == i].mean() for i in places])
            curves.append(Curve(label, centres, means, markers=True))
    return (title, draw_curves(title, curves, x_label="KL (nats an answer)")) if curves else None


def _row(sample: Mapping[str, Any]) -> tuple[str, ...]:
    scores = ", ".join(f"{name} {value:.3g}" for name, value in sample.get("scores", {}).items())
    answer = str(sample["completion"]) + (" [cut]" if sample.get("truncated") else "")
    return str(sample["step"]), str(sample["prompt"])[:300], answer[:300], f"{sample['reward']:.3g}", scores
