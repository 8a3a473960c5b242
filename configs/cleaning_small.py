"""What cleaning is worth: docstrings mixed with junk from this machine's HTML pages, raw, cleaned, and by step.

    python -m experiments.cleaning cleaning_small
    python -m experiments.cleaning cleaning_small --filters-only        (trains nothing: half a minute)

The recipe is WEB_ENGLISH but for two thresholds that docstrings cannot meet: they show code, so a brace is no sign of
junk, and say "Return ..." and "Raises ..." again and again. About 40 runs of a 0.23 M-parameter decoder.
"""

from configs._proxy import proxy
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.run.cleaning_config import CleaningStudyConfig
from jaxlm.text.rules.c4 import C4Pages
from jaxlm.text.rules.fineweb import FineWeb
from jaxlm.text.rules.presets import WEB_ENGLISH
from jaxlm.text.tokenizer import TokenizerConfig

FITTED = {"c4_pages": C4Pages(forbidden=("lorem ipsum",)), "fineweb": FineWeb(max_repeated_chars=0.2)}


def config() -> CleaningStudyConfig:
    return CleaningStudyConfig(
        name="What cleaning is worth, on docstrings",
        corpus=CorpusConfig(source="stdlib", stdlib_part="docstrings"),
        recipe=tuple(FITTED.get(step.name, step) for step in WEB_ENGLISH),
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=2048),
        proxy=proxy(600),
        checkpoint=CheckpointConfig(keep_last=1),
    )
