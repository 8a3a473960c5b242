"""Fine-tuning for small models, such as ``encoder_tiny``: a rate far above BERT's, mean over the tokens, ten epochs.

    python -m experiments.finetune finetune_small --base runs/encoder_tiny --task.train FILE --task.validation FILE

For pairs add ``--task.text-b COLUMN``; for words with tags ``--task.kind tag --task.text words --task.label tags``.
"""

from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.finetune_config import FinetuneConfig, TaskConfig


def config() -> FinetuneConfig:
    return FinetuneConfig(
        name="Fine-tuning of a small model",
        task=TaskConfig(pooling="mean"),
        dropout=0.1,
        optimizer=OptimizerConfig(
            name="adamw", peak_lr=1e-3, schedule="linear", warmup_steps=20, b2=0.999, weight_decay=0.01
        ),
        num_epochs=10,
        global_batch_size=16,
    )
