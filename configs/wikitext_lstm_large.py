"""WikiText-2 words with the LSTM of AWD-LSTM (Merity et al. 2018), 33 M parameters: for an accelerator.

    python -m experiments.pretrain wikitext_lstm_large

Data and scoring as in ``wikitext_lstm``, which is for a CPU. Measured on one H100, seed 0: a validation perplexity of
125.3 after 13.8 epochs, 96 s of steps (experiments/LOG.md); with half the dropout 133.5. Longer is not measured.
"""

import dataclasses

from configs import wikitext_lstm
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.run.config import PretrainConfig


def config() -> PretrainConfig:
    small = wikitext_lstm.config()
    return dataclasses.replace(
        small,
        name="WikiText-2, large LSTM",
        data=dataclasses.replace(small.data, seq_len=64),
        model=RecurrentConfig(
            cell="lstm",
            num_layers=3,
            model_dim=400,
            hidden_dim=1150,
            embed_dropout=0.1,
            input_dropout=0.3,
            hidden_dropout=0.2,
            output_dropout=0.35,
            weight_dropout=0.3,
            compute_dtype="bfloat16",
        ),
        optimizer=dataclasses.replace(small.optimizer, peak_lr=3e-3, warmup_steps=500),
        num_steps=7_000,
        global_batch_size=64,
        log_every=250,
        eval_every=2_000,
        checkpoint=CheckpointConfig(save_every=4_000, keep_last=1),
    )
