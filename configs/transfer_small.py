"""The best rate at widths 64 to 512 in the standard parametrisation and under muP: characters of Tiny Shakespeare.

    python -m experiments.transfer transfer_small

The decoder is the default one but for two layers, a context of 64 and heads of width 32, which grow in number: tied
embeddings, QK-norm, SwiGLU, weights of deviation 0.02. Under muP it starts at 1/sqrt(fan in); ``--parametrisations
standard --run.model.init-std None`` in a run directory of its own shows what that start alone does.
"""

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.run.transfer_config import TransferConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> TransferConfig:
    return TransferConfig(
        name="Best rates by width",
        run=PretrainConfig(
            corpus=CorpusConfig(
                source="text",
                paths=("../shared/data/text/tinyshakespeare/input.txt",),
                split="tail",
                validation_fraction=0.1,
            ),
            tokenizer=TokenizerConfig(kind="char"),
            data=DataConfig(seq_len=64, packing="concat", add_bos=False, add_eos=False),
            model=DecoderConfig(max_seq_len=64, num_layers=2, num_heads=4, head_dim=32, scan_layers=False),
            optimizer=OptimizerConfig(schedule="constant", warmup_steps=10, weight_decay=0.1),
            num_steps=140,
            global_batch_size=8,
            sample=SampleConfig(prompts=()),
        ),
        widths=(64, 128, 256, 512),
        standard_log2_lrs=(-13, -8),
        mup_log2_lrs=(-9, -5),
    )
