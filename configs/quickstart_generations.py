"""The generations beside a finished quickstart, in about a minute: the recurrent models are trained for few steps.

    python -m experiments.generations quickstart_generations --decoder-run runs/quickstart

The table says how many tokens each saw. ``configs/generations.py`` trains all alike.
"""

import dataclasses

from configs import generations
from jaxlm.data.batches import DataConfig
from jaxlm.run.config import SampleConfig
from jaxlm.run.generations_config import GenerationsConfig


def config() -> GenerationsConfig:
    full = generations.config()
    return dataclasses.replace(
        full,
        name="Generations of language models, the recurrent ones trained briefly",
        # A fifth of an epoch: short rows make many small steps of it, and a state goes on from row to row anyway.
        recurrent=dataclasses.replace(
            full.recurrent,
            data=DataConfig(seq_len=32, packing="stream"),
            optimizer=dataclasses.replace(full.recurrent.optimizer, peak_lr=1e-2, warmup_steps=20),
            num_steps=200,
            global_batch_size=16,
        ),
        decoder_run="runs/quickstart",
        encoder=None,
        sample=SampleConfig(prompts=("Return the ",), max_new_tokens=40, num_samples=1),
        max_scored_documents=20,
        log_every=50,
    )
