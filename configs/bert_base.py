"""BERT base in its own recipe: batches of 256 rows of 512, a million steps, on text that you name.

    python -m experiments.pretrain bert_base --corpus.paths FILE ... --mesh.fsdp N
    python -m tools.plan model bert-base

Values only: never run here to the end. 109,482,240 parameters (with the pooler, without the head of the masked
objective) at the published vocabulary of 30,522 symbols; the tokenizer is one of ours of about that size.
"""

import dataclasses

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.masking import MaskingConfig
from jaxlm.models.presets import ENCODERS
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> PretrainConfig:
    return bert("BERT base", "bert-base")


def bert(name: str, shape: str) -> PretrainConfig:
    """The shape of that name in ``ENCODERS`` under the recipe that both sizes share (Devlin et al. 2019, A.2)."""
    return PretrainConfig(
        name=name,
        corpus=CorpusConfig(source="text", paths=("../shared/data/text/wikitext-2",)),
        tokenizer=TokenizerConfig(kind="unigram", vocab_size=30464),
        data=DataConfig(seq_len=512, packing="best_fit"),
        masking=MaskingConfig(rate=0.15),
        model=dataclasses.replace(ENCODERS[shape](), vocab_size=None, vocab_multiple=128, compute_dtype="bfloat16"),
        optimizer=OptimizerConfig(
            name="adamw",
            peak_lr=1e-4,
            schedule="linear",
            warmup_steps=10_000,
            b1=0.9,
            b2=0.999,
            eps=1e-6,
            weight_decay=0.01,
            clip_norm=1.0,
        ),
        num_steps=1_000_000,
        global_batch_size=256,
        eval_every=10_000,
    )
