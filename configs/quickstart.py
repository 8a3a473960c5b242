"""The quickstart: a 1.8 M-parameter decoder learns the docstrings of Python's standard library in minutes on a laptop.

    python -m experiments.pretrain quickstart

Text, tokenizer and model all come from this machine: nothing is downloaded. Measured: see docs/pretraining.md.
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
        data=DataConfig(seq_len=128, packing="best_fit"),
        model=DecoderConfig(
            max_seq_len=256,
            num_layers=4,
            model_dim=128,
            num_heads=4,
            mlp_dim=344,
            norm_scale=False,
            tie_embeddings=False,
            zero_init_outputs=True,
            zero_init_head=True,
            init_std=None,
            scan_layers=False,
        ),
        optimizer=OptimizerConfig(name="muon", peak_lr=2e-2, embedding_lr=5e-3, schedule="linear", weight_decay=0.0),
        num_steps=2000,
        global_batch_size=16,
        log_every=20,
        eval_every=500,
        eval_batch_size=64,
        checkpoint=CheckpointConfig(save_every=500),
        sample=SampleConfig(prompts=("Return the ", "Create a new "), max_new_tokens=80, num_samples=2),
    )
