"""WikiText-2 words with the LSTM of AWD-LSTM (Merity et al. 2018), 33 M parameters: for an accelerator.

    python -m experiments.pretrain wikitext_lstm_large

Data and scoring as in ``wikitext_lstm``, which is for a CPU. AWD-LSTM's width of 1150 is 1152 here: XLA pads U to a
multiple of 8 at every step of a sequence otherwise. 9.0 ms a step on one H100 (456 k tokens/s), so some 6 minutes.
Measured there, seed 0, in a run of 24,503 steps that was cut for want of time: a validation perplexity of 124.3 after
8,000 steps and 112.9 after 16,000 (31 epochs), the rate then at a third of its peak. The whole run is not measured.
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
            hidden_dim=1152,
            embed_dropout=0.1,
            input_dropout=0.4,
            hidden_dropout=0.2,
            output_dropout=0.4,
            weight_dropout=0.4,
            compute_dtype="bfloat16",
        ),
        optimizer=dataclasses.replace(small.optimizer, peak_lr=2.5e-3, warmup_steps=500, clip_norm=0.25),
        num_steps=40_000,
        global_batch_size=64,
        log_every=500,
        eval_every=8_000,
        checkpoint=CheckpointConfig(save_every=8_000, keep_last=1),
    )
