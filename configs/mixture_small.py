"""Three kinds of text in Python's standard library, mixed in eight ways, and the mixture that small runs call best.

    python -m experiments.mixture mixture_small

Docstrings, sources without them, and the topics of ``help()``: twelve runs of a 0.23 M-parameter decoder on the text of
this machine, about four minutes on two cores.
"""

from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.generations_config import TrainedConfig
from jaxlm.run.mixture_config import DomainConfig, MixtureStudyConfig
from jaxlm.text.tokenizer import TokenizerConfig

TOPICS = r"pydoc_data\.topics"


def config() -> MixtureStudyConfig:
    docstrings = CorpusConfig(source="stdlib", stdlib_part="docstrings")
    return MixtureStudyConfig(
        name="Mixtures of the standard library",
        domains=(
            DomainConfig("docstrings", docstrings, origins=rf"(?!{TOPICS}$).*"),
            DomainConfig("sources", CorpusConfig(source="stdlib", stdlib_part="sources")),
            DomainConfig("topics", docstrings, origins=TOPICS, hold_out_pieces=True),
        ),
        num_candidates=8,
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=2048),
        proxy=TrainedConfig(
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
            num_steps=300,
            global_batch_size=8,
        ),
        checkpoint=CheckpointConfig(keep_last=1),
    )
