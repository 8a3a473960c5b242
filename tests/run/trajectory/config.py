"""The run whose losses are stored beside this file: AdamW, packed bytes, a decoder that every mesh of 8 can split."""

from pathlib import Path

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> PretrainConfig:
    return PretrainConfig(
        corpus=CorpusConfig(source="text", paths=(str(Path(__file__).parent / "text.txt"),), document="paragraph"),
        tokenizer=TokenizerConfig(kind="byte"),
        data=DataConfig(seq_len=64),
        model=DecoderConfig(max_seq_len=64, num_layers=2, model_dim=64, num_heads=8, mlp_dim=192, vocab_multiple=64),
        optimizer=OptimizerConfig(name="adamw", peak_lr=3e-3, warmup_steps=10),
        sample=SampleConfig(prompts=(), max_new_tokens=8),
        checkpoint=CheckpointConfig(save_every=20),
        num_steps=100,
        global_batch_size=32,
        log_every=1,
    )
