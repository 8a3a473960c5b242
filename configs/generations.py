"""The generations of language model side by side on the docstrings of Python's standard library.

    python -m experiments.generations generations

An n-gram, an RNN, an LSTM, a GRU and a decoder read the same BPE-4096 tokens; the trained ones have about a million
parameters each and see the same number of tokens.
"""

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import SampleConfig
from jaxlm.run.generations_config import GenerationsConfig, TrainedConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> GenerationsConfig:
    return GenerationsConfig(
        name="Generations of language models",
        corpus=CorpusConfig(source="stdlib", stdlib_part="docstrings"),
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=4096),
        ngram=NgramConfig(order=4),
        recurrent=TrainedConfig(
            model=RecurrentConfig(model_dim=192, output_dropout=0.1, input_dropout=0.1),
            data=DataConfig(seq_len=64, packing="stream"),
            optimizer=OptimizerConfig(name="adamw", peak_lr=5e-3, schedule="linear", warmup_steps=50, weight_decay=0.1),
            num_steps=900,
            global_batch_size=32,
        ),
        decoder=TrainedConfig(
            model=DecoderConfig(
                max_seq_len=256,
                num_layers=2,
                model_dim=128,
                num_heads=4,
                mlp_dim=344,
                norm_scale=False,
                tie_embeddings=True,
                zero_init_outputs=True,
                scan_layers=False,
            ),
            data=DataConfig(seq_len=256, packing="concat"),
            optimizer=OptimizerConfig(
                name="muon",
                peak_lr=4e-2,
                embedding_lr=1.5e-2,
                schedule="linear",
                weight_decay=0.2,
                decay_embeddings=True,
                b2=0.95,
            ),
            num_steps=900,
            global_batch_size=8,
        ),
        sample=SampleConfig(prompts=("Return the ", "Create a new "), max_new_tokens=60, num_samples=1),
        checkpoint=CheckpointConfig(save_every=300),
    )
