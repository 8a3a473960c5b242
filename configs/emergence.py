"""The laboratory: small models in which abilities come, or do not, while one watches.

    python -m experiments.emergence emergence --processes 2
    python -m experiments.emergence emergence --processes 2 --parts induction arithmetic

Nothing is read: every row is drawn from the seed.
"""

import dataclasses

from jaxlm.data.puzzles.arithmetic import ArithmeticConfig
from jaxlm.data.puzzles.regressions import RegressionsConfig
from jaxlm.data.puzzles.repeats import RepeatsConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.nn.mlp import MlpKind
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.laboratory.config import (
    ArithmeticPartConfig,
    CopyingConfig,
    InductionConfig,
    InstructionsPartConfig,
    LaboratoryConfig,
    QuestionsConfig,
    RegressionConfig,
    TrainingConfig,
)


def config() -> LaboratoryConfig:
    rows = RepeatsConfig(num_symbols=64, seq_len=64, shortest=12, longest=32, leap=0.15)
    return LaboratoryConfig(
        name="emergence",
        # With rotary positions one seed of three halts half way (experiments/LOG.md).
        induction=InductionConfig(
            rows=rows,
            model=dataclasses.replace(_decoder("none"), position="learned"),
            training=_training(800, looks=40),
        ),
        copying=CopyingConfig(rows=rows, model=_decoder(), widths=(8, 16, 32, 64), training=_training(400)),
        regression=RegressionConfig(
            rows=RegressionsConfig(dim=3, num_pairs=12, noise=0.2),
            model=_decoder(),
            widths=(8, 16, 32, 64),
            training=_training(1500),
        ),
        arithmetic=ArithmeticPartConfig(
            kinds=(
                QuestionsConfig(ArithmeticConfig("sum", 8), _training(600, looks=12)),
                QuestionsConfig(ArithmeticConfig("parity", 20), _training(600, looks=12)),
                QuestionsConfig(ArithmeticConfig("add", 5), _training(900, looks=12)),
                QuestionsConfig(ArithmeticConfig("multiply", 3), _training(900, looks=12)),
            ),
            model=_decoder(),
            widths=(16, 32, 64),
        ),
        instructions=InstructionsPartConfig(model=_decoder(), training=_training(800)),
    )


def _decoder(mlp: MlpKind = "swiglu") -> DecoderConfig:
    # Heads are not normalised: over 64 positions a normalised query of 16 numbers cannot single out one key.
    return DecoderConfig(
        num_layers=2,
        model_dim=64,
        num_heads=4,
        mlp=mlp,
        norm_scale=False,
        qk_norm=False,
        zero_init_outputs=True,
        tie_embeddings=False,
        scan_layers=False,
    )


def _training(steps: int, *, looks: int = 20) -> TrainingConfig:
    muon = OptimizerConfig(
        name="muon",
        peak_lr=2e-2,
        embedding_lr=1e-2,
        schedule="wsd",
        warmup_steps=10,
        weight_decay=0.01,
    )
    return TrainingConfig(optimizer=muon, num_steps=steps, tokens_per_step=2048, num_looks=looks)
