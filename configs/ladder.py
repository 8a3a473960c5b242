"""A ladder on two cores: 27 runs from 3.16e11 to 1e14 FLOPs over bytes of Python source, to predict one of 8e14.

    python -m experiments.scaling sweep ladder --processes 2
    python -m experiments.scaling predict ladder              # writes the prediction; then the same with --train

The text is the source of the packages that `make` installs (.venv, some 210 MB, versions pinned), so that no run reads
a byte twice: the longest of the ladder takes 56 MB, the one beyond it 50 to 75. ``--run.corpus.paths`` names another
text. Hours are estimates: 2.5 on two idle cores by steps timed before attention on CPUs was a call of ours, some 2
since, and about as much again for the run beyond.
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
        name="A ladder over Python source",
        run=PretrainConfig(
            name="ladder",
            corpus=CorpusConfig(
                source="text",
                paths=(".venv/lib/python3*/site-packages/**/*.py",),
                validation_fraction=0.005,
                on_bad="skip",
            ),
            tokenizer=TokenizerConfig(kind="byte"),
            data=DataConfig(seq_len=256, packing="concat", add_bos=False, add_eos=True, num_epochs=1),
            # The base of muP: rates were chosen at this width.
            model=DecoderConfig(
                max_seq_len=256,
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
            checkpoint=CheckpointConfig(save_every=None, save_minutes=5.0, keep_last=1),
            sample=SampleConfig(prompts=()),
        ),
        budgets=(3.16e11, 1e12, 3.16e12, 1e13, 3.16e13, 1e14),
        widths=(16, 32, 48, 64, 80, 96, 112, 144, 192),
        tokens_per_param=(2.8, 260.0),
    )
