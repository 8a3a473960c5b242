"""A reward model's section of report.html: accuracy by source, calibration, what length explains."""

from collections.abc import Mapping
from typing import Any

from jaxlm.io.page import escape, grid_table, table

_LENGTH = {
    "longer_is_better": "pairs whose better answer is the longer one",
    "longer_is_preferred": "pairs whose longer answer has the higher reward",
    "accuracy_where_longer_is_better": "accuracy where the better answer is the longer one",
    "accuracy_where_shorter_is_better": "accuracy where the better answer is the shorter one",
    "correlation": "correlation of reward and length among the answers to one prompt",
}


def reward_section(found: Mapping[str, Any]) -> list[str]:
    """As HTML, of what ``run.align.reward`` writes to ``reward/reward.json``."""
    sources = [
        (
            name,
            f"{one['num_pairs']:,}",
            f"{one['accuracy']:.1%}",
            f"{one['lower']:.1%} to {one['upper']:.1%}",
            f"{one['longer_wins']:.1%}",
        )
        for name, one in found["sources"].items()
    ]
    bins = [
        (f"{one['stated']:.1%}", f"{one['right']:.1%}", f"{one['count']:,}") for one in found["calibration"]["bins"]
    ]
    length = {_LENGTH[name]: f"{value:.3f}" for name, value in found["length"].items() if value is not None}
    note = f"held-out pairs at step {found['step']}" if "step" in found else "held-out pairs"
    return [
        f"<p class=quiet>{escape(note)}; chance is 50 %, intervals of 95 %</p>",
        grid_table(("source", "pairs", "right order", "interval", "the longer wins"), sources),
        f"<h3>Calibration <small>mean gap {found['calibration']['error']:.3f}</small></h3>",
        grid_table(("probability that it gives its order", "share in that order", "pairs"), bins),
        "<h3>Length</h3>",
        table(length),
    ]
