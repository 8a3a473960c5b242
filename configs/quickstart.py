"""The quickstart: a 0.9 M-parameter decoder learns the docstrings of Python's standard library in minutes on a laptop.

    python -m experiments.pretrain quickstart

Text, tokenizer and model all come from this machine: nothing is downloaded. Measured on 2 shared CPU cores, seed 0:
128 s, 1.912 bits per byte on held-out modules (`xz -9e` primed with the training docstrings: 2.029).
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
        name="Quickstart: docstrings of the standard library",
        corpus=CorpusConfig(source="stdlib", stdlib_part="docstrings"),
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=4096),
        data=DataConfig(seq_len=256, packing="concat"),
        # Shallow, with one table for embedding and head: in minutes on two cores, many steps beat many layers.
        model=DecoderConfig(
            max_seq_len=256,
            num_layers=2,
            model_dim=128,
            num_heads=4,
            mlp_dim=344,
            norm_scale=False,
            tie_embeddings=True,
            zero_init_outputs=True,
            init_std=0.02,
            scan_layers=False,
        ),
        # Four passes over half a million tokens overfit without decay, of the embeddings too (experiments/LOG.md).
        optimizer=OptimizerConfig(
            name="muon",
            peak_lr=4e-2,
            embedding_lr=1.5e-2,
            schedule="linear",
            weight_decay=0.2,
            decay_embeddings=True,
            b2=0.95,
        ),
        num_steps=900,
        global_batch_size=8,
        log_every=10,
        eval_every=300,
        eval_batch_size=64,
        checkpoint=CheckpointConfig(save_every=300),
        sample=SampleConfig(prompts=("Return the ", "Create a new "), max_new_tokens=80, num_samples=2),
    )
