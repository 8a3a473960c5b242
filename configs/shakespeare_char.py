"""Characters of Tiny Shakespeare in nanoGPT's CPU budget: 2000 steps of 12 rows of 64 characters, 0.84 M parameters.

    python -m experiments.pretrain shakespeare_char

Reads ../shared/data/text/tinyshakespeare/input.txt, the first 90 % to train on and the rest to validate, as nanoGPT
does; ``--corpus.paths FILE`` names another place. Measured on 2 shared
CPU cores: 154 s, validation loss 1.5420 (seed 0).
"""

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> PretrainConfig:
    return PretrainConfig(
        name="Tiny Shakespeare, characters",
        corpus=CorpusConfig(
            source="text",
            paths=("../shared/data/text/tinyshakespeare/input.txt",),
            split="tail",
            validation_fraction=0.1,
        ),
        tokenizer=TokenizerConfig(kind="char"),
        data=DataConfig(seq_len=64, packing="concat", add_bos=False, add_eos=False),
        model=DecoderConfig(
            max_seq_len=64,
            num_layers=4,
            model_dim=128,
            num_heads=4,
            mlp_dim=368,
            mlp="swiglu",
            norm="rmsnorm",
            norm_scale=False,
            qk_norm=True,
            position="rope",
            tie_embeddings=False,
            zero_init_outputs=True,
            zero_init_head=True,
            init_std=None,
            scan_layers=False,
        ),
        optimizer=OptimizerConfig(
            name="muon",
            peak_lr=1.2e-2,
            embedding_lr=8e-3,
            schedule="linear",
            weight_decay=0.0,
            b2=0.95,
            muon_momentum=0.92,
        ),
        num_steps=2000,
        global_batch_size=12,
        log_every=50,
        eval_batch_size=128,
        checkpoint=CheckpointConfig(save_every=500),
        sample=SampleConfig(prompts=("\n",), max_new_tokens=48, num_samples=2),
    )
