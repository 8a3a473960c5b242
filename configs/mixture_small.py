"""Three kinds of text in Python's standard library, mixed in eight ways, and the mixture that small runs call best.

    python -m experiments.mixture mixture_small

Docstrings, sources without them, and the topics of ``help()``: twelve runs of a 0.23 M-parameter decoder on the text of
this machine, 2.3 processor-minutes.
"""

from configs._proxy import proxy
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
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
        proxy=proxy(300),
        checkpoint=CheckpointConfig(keep_last=1),
    )
