"""BERT large in its own recipe, which is BERT base's at another size.

    python -m experiments.pretrain bert_large --corpus.paths FILE ... --mesh.fsdp N
    python -m tools.plan model bert-large

Values only: never run here to the end. 335,141,888 parameters, counted as BERT base's.
"""

from configs.bert_base import bert
from jaxlm.run.config import PretrainConfig


def config() -> PretrainConfig:
    return bert("BERT large", "bert-large")
