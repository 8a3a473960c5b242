"""PaLM 540B on two slices of 3,072 chips of TPU v4, the machine it was trained on, at its largest batch, 4 million
tokens (Chowdhery et al. 2022, sections 4 and 5). Twelve ways over each slice for heads, 256 for rows, as there.

    python -m tools.compile_tpu palm_540b --topology v4:12x16x16 --slices 2
"""

import dataclasses

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    mesh = MeshConfig(data=2, fsdp=256, model=12)
    run = recipe(
        "palm-540b",
        peak_lr=1e-4,
        seq_len=2048,
        global_batch_size=2048,
        num_steps=190_000,
        grad_accum_steps=2,
        mesh=mesh,
    )
    model = dataclasses.replace(run.model, vocab_multiple=12 * 128)  # each device's rows fill whole tiles
    return dataclasses.replace(run, model=model, loss_chunk=512)
