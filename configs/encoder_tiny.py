"""A small encoder learns to restore masked words in the docstrings of Python's standard library; minutes on a laptop.

python -m experiments.pretrain encoder_tiny
python -m experiments.pretrain encoder_tiny --corpus.source text --corpus.paths FILE ...
"""

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.masking import MaskingConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> PretrainConfig:
    return PretrainConfig(
        name="A small encoder",
        corpus=CorpusConfig(source="stdlib", stdlib_part="docstrings"),
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=4096),
        data=DataConfig(seq_len=128, packing="best_fit"),
        masking=MaskingConfig(rate=0.15, whole_words=True),
        model=EncoderConfig(max_seq_len=128, num_layers=3, model_dim=128, num_heads=4, scan_layers=False),
        optimizer=OptimizerConfig(
            name="muon",
            peak_lr=2e-2,
            embedding_lr=1e-2,
            schedule="linear",
            warmup_steps=50,
            weight_decay=0.1,
            b2=0.95,
        ),
        num_steps=1500,
        global_batch_size=16,
        log_every=25,
        eval_every=500,
        eval_batch_size=64,
        checkpoint=CheckpointConfig(save_every=500),
    )
