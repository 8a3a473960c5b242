"""A small classifier trained on a task against the quickstart's decoder, prompted with four examples of it.

    python -m experiments.small_large small_large --large runs/quickstart
    python -m experiments.small_large small_large --small.task.train FILE --small.task.validation FILE

Without files the task is: does a docstring of Python's standard library describe a module, a class, a method or a
function? With ``--small.base RUN --small.model None`` a pretrained model is tuned instead of a new one.
"""

from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.finetune_config import FinetuneConfig, TaskConfig
from jaxlm.run.small_large_config import SmallLargeConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> SmallLargeConfig:
    return SmallLargeConfig(
        name="A small model tuned against a larger one prompted",
        large="runs/quickstart",
        small=FinetuneConfig(
            name="The small model",
            model=EncoderConfig(max_seq_len=48, num_layers=1, model_dim=64, num_heads=4, dropout=0.2),
            tokenizer=TokenizerConfig(kind="bpe", vocab_size=2048),
            task=TaskConfig(seq_len=48, pooling="mean"),
            optimizer=OptimizerConfig(
                name="adamw", peak_lr=2e-3, schedule="linear", warmup_steps=20, b2=0.999, weight_decay=0.1
            ),
            checkpoint=CheckpointConfig(keep_last=1),
            num_steps=200,
            global_batch_size=32,
            log_every=50,
            eval_batch_size=64,
        ),
    )
