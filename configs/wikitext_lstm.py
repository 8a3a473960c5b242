"""WikiText-2 words with an LSTM: the full vocabulary of 33,278, the state carried through the text.

    python -m experiments.pretrain wikitext_lstm

Reads ../shared/data/text/wikitext-2; ``--corpus.paths`` and ``--corpus.validation-paths`` name another place. The
held-out figure is over the words and line ends of the official validation split, empty lines left out: what the n-gram
models are scored on (but for the first word, which has nothing before it). Measured on 2 shared CPU cores, seed 0: a
perplexity of 205.8 after 1.7 epochs, in 30 minutes (modified Kneser-Ney of order 5: 240.0).
"""

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config() -> PretrainConfig:
    return PretrainConfig(
        name="WikiText-2, LSTM",
        corpus=CorpusConfig(
            source="text",
            paths=("../shared/data/text/wikitext-2/train.recovered.txt.gz",),
            validation_paths=("../shared/data/text/wikitext-2/valid.txt",),
            document="line",
        ),
        tokenizer=TokenizerConfig(kind="word"),
        data=DataConfig(seq_len=32, packing="stream", add_bos=False, add_eos=True),
        model=RecurrentConfig(
            cell="lstm",
            num_layers=1,
            model_dim=256,
            embed_dropout=0.05,
            input_dropout=0.2,
            output_dropout=0.2,
        ),
        optimizer=OptimizerConfig(
            name="adamw", peak_lr=3e-3, schedule="linear", warmup_steps=100, weight_decay=0.0, b2=0.99, clip_norm=1.0
        ),
        num_steps=3_500,
        global_batch_size=32,
        log_every=100,
        eval_every=1_000,
        eval_batch_size=16,
        checkpoint=CheckpointConfig(save_every=1_000),
        sample=SampleConfig(prompts=("= ",), max_new_tokens=40, num_samples=2),
    )
