"""nanoGPT's own CPU recipe for Tiny Shakespeare: its architecture, optimiser and batch, for comparison.

    python -m experiments.pretrain shakespeare_nanogpt

Published validation loss: 1.88 nats a character (nanoGPT's README). Measured on 2 shared CPU cores:
149 s, 1.9148, 1.8956 and 1.9018 (seeds 0, 1, 2; 1.886 is nanoGPT's own run on such a machine).
"""

import dataclasses

from configs import shakespeare_char
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig


def config() -> PretrainConfig:
    return dataclasses.replace(
        shakespeare_char.config(),
        name="Tiny Shakespeare, nanoGPT's recipe",
        model=DecoderConfig(
            max_seq_len=64,
            num_layers=4,
            model_dim=128,
            num_heads=4,
            mlp="gelu",
            norm="layernorm",
            norm_eps=1e-5,
            qk_norm=False,
            position="learned",
            tie_embeddings=True,
            init_std=0.02,
            scan_layers=False,
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            peak_lr=1e-3,
            schedule="cosine",
            warmup_steps=100,
            final_lr_ratio=0.1,
            b1=0.9,
            b2=0.99,
            weight_decay=0.1,
            decay_embeddings=True,
            clip_norm=1.0,
        ),
    )
