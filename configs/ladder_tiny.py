"""A ladder in minutes: 12 runs from 2e10 to 2e11 FLOPs over bytes of the standard library's docstrings.

    python -m experiments.scaling sweep ladder_tiny --processes 2
    python -m experiments.scaling predict ladder_tiny             # then the same with --train

For seeing how it works: of runs of so few steps no law should be trusted.
"""

import dataclasses

from configs import ladder
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.run.ladder_config import LadderConfig


def config() -> LadderConfig:
    large = ladder.config()
    assert isinstance(large.run.model, DecoderConfig)
    run = dataclasses.replace(
        large.run,
        name="tiny ladder",
        corpus=CorpusConfig(source="stdlib", stdlib_part="docstrings"),
        data=DataConfig(seq_len=64, packing="concat", add_bos=False, num_epochs=1),
        model=dataclasses.replace(large.run.model, max_seq_len=64),
        checkpoint=CheckpointConfig(save_every=None, keep_last=1),
    )
    return LadderConfig(
        name="A tiny ladder",
        run=run,
        budgets=(2e10, 6.3e10, 2e11),
        widths=(16, 32, 48, 64, 80),
        tokens_per_param=(0.3, 150.0),
        batch_rows=(8, 64),
    )
