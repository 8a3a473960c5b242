"""What the published shapes are trained with here: AdamW with a cosine to a tenth, weight decay 0.1 and clipping at 1
(Brown et al. 2020, appendix B), bfloat16 compute, recomputed layers.

The corpus is the standard library's docstrings, so that no config needs files: name your own with
``--corpus.source jsonl --corpus.paths FILES``. Each needs the devices of its mesh. A shape keeps its published
vocabulary; the tokenizer trained here may have fewer ids, and the table's other rows stay unused.
"""

import dataclasses

from jaxlm.data.batches import DataConfig
from jaxlm.models.presets import preset
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.sharding.mesh import MeshConfig
from jaxlm.text.tokenizer import TokenizerConfig


def recipe(
    model: str,
    *,
    peak_lr: float,
    seq_len: int,
    global_batch_size: int,
    num_steps: int,
    warmup_steps: int = 2000,
    grad_accum_steps: int = 1,
    mesh: MeshConfig | None = None,
) -> PretrainConfig:
    """The shape of that name under the common recipe; its vocabulary is padded to divide over mesh.model."""
    mesh = MeshConfig() if mesh is None else mesh
    shape = dataclasses.replace(preset(model), vocab_multiple=mesh.model)
    return PretrainConfig(
        name=model,
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=8192),
        data=DataConfig(seq_len=seq_len),
        model=dataclasses.replace(shape, compute_dtype="bfloat16", remat_policy="full"),
        optimizer=OptimizerConfig(
            peak_lr=peak_lr,
            warmup_steps=warmup_steps,
            final_lr_ratio=0.1,
            b2=0.95,
            weight_decay=0.1,
            clip_norm=1.0,
        ),
        mesh=mesh,
        sample=SampleConfig(prompts=("The ",), max_new_tokens=64),
        num_steps=num_steps,
        global_batch_size=global_batch_size,
        grad_accum_steps=grad_accum_steps,
        eval_every=2000,
    )
