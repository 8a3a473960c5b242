"""Characters of Tiny Shakespeare with an LSTM of the decoder's size, its state carried from batch to batch.

    python -m experiments.pretrain shakespeare_lstm
"""

import dataclasses

from configs import shakespeare_char
from jaxlm.data.batches import DataConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig


def config() -> PretrainConfig:
    return dataclasses.replace(
        shakespeare_char.config(),
        name="Tiny Shakespeare, LSTM",
        data=DataConfig(seq_len=64, packing="stream", add_bos=False, add_eos=False),
        model=RecurrentConfig(cell="lstm", num_layers=1, model_dim=288, tie_embeddings=True),
        optimizer=OptimizerConfig(name="adamw", peak_lr=5e-3, schedule="linear", weight_decay=0.0, b2=0.99),
        eval_batch_size=12,
    )
