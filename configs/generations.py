"""The generations of language model side by side on the docstrings of Python's standard library.

    python -m experiments.generations generations

An n-gram, an RNN, an LSTM, a GRU, the quickstart's decoder and an encoder read the same BPE-4096 tokens; the trained
ones have about a million parameters each and see the same number of tokens.
"""

from configs import encoder_tiny, quickstart
from jaxlm.data.batches import DataConfig
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import SampleConfig
from jaxlm.run.generations_config import GenerationsConfig, TrainedConfig


def config() -> GenerationsConfig:
    base, masked = quickstart.config(), encoder_tiny.config()
    return GenerationsConfig(
        name="Generations of language models",
        corpus=base.corpus,
        tokenizer=base.tokenizer,
        ngram=NgramConfig(order=4),
        recurrent=TrainedConfig(
            model=RecurrentConfig(model_dim=192, output_dropout=0.1, input_dropout=0.1),
            data=DataConfig(seq_len=64, packing="stream"),
            optimizer=OptimizerConfig(name="adamw", peak_lr=5e-3, schedule="linear", warmup_steps=50, weight_decay=0.1),
            num_steps=base.num_steps,
            global_batch_size=32,
        ),
        decoder=TrainedConfig(base.model, base.data, base.optimizer, base.num_steps, base.global_batch_size),
        encoder=TrainedConfig(masked.model, masked.data, masked.optimizer, base.num_steps, 2 * base.global_batch_size),
        masking=masked.masking,
        sample=SampleConfig(prompts=base.sample.prompts, max_new_tokens=60, num_samples=1),
        checkpoint=base.checkpoint,
    )
