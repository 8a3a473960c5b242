"""A ladder on three texts, in minutes: docstrings as they are; half of them noise; a 37th of them, 50 times.

    python -m experiments.scaling quality quality_tiny --processes 2
    python -m experiments.scaling quality quality_tiny --dry-run

For seeing how it works: runs of so few steps do not say what the same text is worth to a large model. Texts of your
own, cleaned and not, are ``TextConfig("raw", corpus=CorpusConfig(...))``.
"""

import dataclasses

from configs import ladder_tiny
from jaxlm.run.ladder_quality_config import QualityConfig, TextConfig


def config() -> QualityConfig:
    ladder = dataclasses.replace(ladder_tiny.config(), widths=(16, 32, 64), tokens_per_param=(1.0, 90.0))
    return QualityConfig(
        name="A tiny ladder on three texts",
        ladder=ladder,
        texts=(
            TextConfig("clean"),
            TextConfig("noisy", damaged=0.5, how="shuffled"),
            TextConfig("repeated", copies=50),
        ),
        num_seeds=2,
    )
