"""The small decoder that studies train again and again: 0.23 M parameters, some 20 s for 600 steps on two cores."""

from jaxlm.data.batches import DataConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.generations_config import TrainedConfig


def proxy(num_steps: int) -> TrainedConfig:
    """That decoder for so many steps of 8 x 128 tokens."""
    return TrainedConfig(
        model=DecoderConfig(
            max_seq_len=128,
            num_layers=2,
            model_dim=64,
            num_heads=4,
            mlp_dim=172,
            norm_scale=False,
            tie_embeddings=True,
            zero_init_outputs=True,
            init_std=0.02,
            scan_layers=False,
        ),
        data=DataConfig(seq_len=128, packing="concat"),
        optimizer=OptimizerConfig(name="muon", peak_lr=4e-2, embedding_lr=1.5e-2, schedule="linear", b2=0.95),
        num_steps=num_steps,
        global_batch_size=8,
    )
