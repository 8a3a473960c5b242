"""The laboratory at a size for tests: every experiment runs, and hardly anything is learnt.

python -m experiments.emergence emergence_tiny
"""

import dataclasses

from jaxlm.data.puzzles.arithmetic import ArithmeticConfig
from jaxlm.data.puzzles.regressions import RegressionsConfig
from jaxlm.data.puzzles.repeats import RepeatsConfig
from jaxlm.models.decoder import DecoderConfig
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
    rows = RepeatsConfig(num_symbols=8, seq_len=16, shortest=3, longest=6)
    model = DecoderConfig(num_layers=2, model_dim=16, num_heads=2, qk_norm=False, norm_scale=False, scan_layers=False)
    training = TrainingConfig(
        optimizer=OptimizerConfig(name="muon", peak_lr=2e-2, embedding_lr=1e-2, schedule="constant"),
        num_steps=8,
        tokens_per_step=128,
        num_looks=4,
    )
    return LaboratoryConfig(
        name="emergence, tiny",
        induction=InductionConfig(
            rows=rows, model=dataclasses.replace(model, mlp="none"), num_seeds=1, training=training, num_test_rows=8
        ),
        copying=CopyingConfig(rows=rows, model=model, widths=(16,), training=training, num_test_rows=8),
        regression=RegressionConfig(
            rows=RegressionsConfig(dim=2, num_pairs=4), model=model, widths=(16,), training=training, num_test_rows=32
        ),
        arithmetic=ArithmeticPartConfig(
            kinds=(QuestionsConfig(ArithmeticConfig("sum", 3), training),),
            model=model,
            widths=(16,),
            num_questions=32,
        ),
        instructions=InstructionsPartConfig(
            num_templates=(8, 16, 24), model=model, num_seeds=1, training=training, num_questions=32
        ),
    )
