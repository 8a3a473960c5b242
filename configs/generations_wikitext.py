"""An n-gram, an LSTM and a decoder on WikiText-2 with one tokenizer, to be asked about grammar (BLiMP) side by side.

    python -m experiments.corpus corpus_wikitext
    python -m experiments.generations generations_wikitext
    for model in n-gram lstm decoder; do
        python -m experiments.evaluate runs/generations_wikitext/$model --tasks blimp --data ../shared/data \
            --words ../shared/data/text/wikitext-2/train.recovered.txt.gz
    done

The text is joined again as people write it, for BLiMP's sentences are. LSTM and decoder see the same tokens.
"""

import dataclasses

from configs import generations
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import SampleConfig
from jaxlm.run.generations_config import GenerationsConfig, TrainedConfig
from jaxlm.text.tokenizer import TokenizerConfig

NUM_STEPS = 3600
"""Of 2048 tokens: about three times through the text."""


def config() -> GenerationsConfig:
    return GenerationsConfig(
        name="Generations on WikiText-2",
        corpus=CorpusConfig(
            source="tfds", tfds_name="runs/corpus_wikitext/dataset", tfds_validation_split="validation"
        ),
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=8192),
        ngram=NgramConfig(order=5),
        cells=("lstm",),
        recurrent=dataclasses.replace(generations.config().recurrent, num_steps=NUM_STEPS),
        decoder=TrainedConfig(
            model=DecoderConfig(
                max_seq_len=256,
                num_layers=4,
                model_dim=128,
                num_heads=4,
                norm_scale=False,
                tie_embeddings=True,
                zero_init_outputs=True,
                dropout=0.1,
                scan_layers=False,
            ),
            data=DataConfig(seq_len=256, packing="concat"),
            optimizer=OptimizerConfig(
                name="muon", peak_lr=2e-2, embedding_lr=1.5e-2, schedule="linear", weight_decay=0.2, b2=0.95
            ),
            num_steps=NUM_STEPS,
            global_batch_size=8,
        ),
        sample=SampleConfig(prompts=("The ", "In 1990, "), max_new_tokens=60, num_samples=1),
        checkpoint=CheckpointConfig(save_minutes=5.0),
    )
