"""A ladder in minutes: 12 runs from 2e10 to 2e11 FLOPs over bytes of the standard library's docstrings.

    python -m experiments.scaling sweep ladder_tiny --processes 2
    python -m experiments.scaling predict ladder_tiny             # then the same with --train

For seeing how it works: of runs of so few steps no law should be trusted.
"""

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.run.ladder_config import LadderConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> LadderConfig:
    return LadderConfig(
        name="A tiny ladder",
        run=PretrainConfig(
            name="tiny ladder",
            corpus=CorpusConfig(source="stdlib", stdlib_part="docstrings"),
            tokenizer=TokenizerConfig(kind="byte"),
            data=DataConfig(seq_len=64, packing="concat", add_bos=False, num_epochs=1),
            model=DecoderConfig(
                max_seq_len=64,
                num_layers=2,
                model_dim=64,
                num_heads=4,
                head_dim=16,
                norm_scale=False,
                tie_embeddings=True,
                zero_init_outputs=True,
                init_std=None,
                scan_layers=False,
            ),
            optimizer=OptimizerConfig(
                name="muon", peak_lr=4e-2, embedding_lr=1.5e-2, schedule="linear", weight_decay=0.1, b2=0.95
            ),
            log_every=50,
            eval_batch_size=64,
            checkpoint=CheckpointConfig(save_every=None, keep_last=1),
            sample=SampleConfig(prompts=()),
        ),
        budgets=(2e10, 6.3e10, 2e11),
        widths=(16, 32, 48, 64, 80),
        tokens_per_param=(0.3, 150.0),
        batch_rows=(8, 64),
    )
