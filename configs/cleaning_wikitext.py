"""What cleaning is worth, with encyclopedia articles (WikiText-2) as the good text.

    python -m experiments.cleaning cleaning_wikitext

As ``cleaning_small`` in all but the text and the recipe, which is WEB_ENGLISH but for one threshold: in this text
punctuation stands between spaces, so that fewer than 80 % of what stands between spaces has a letter.
"""

import dataclasses

from configs import cleaning_small
from jaxlm.data.corpus import CorpusConfig
from jaxlm.run.cleaning_config import CleaningStudyConfig
from jaxlm.text.rules.gopher import GopherQuality
from jaxlm.text.rules.presets import WEB_ENGLISH

FOLDER = "../shared/data/text/wikitext-2"
SPACED = GopherQuality(min_alphabetic=0.7)


def config() -> CleaningStudyConfig:
    return dataclasses.replace(
        cleaning_small.config(),
        name="What cleaning is worth, on WikiText-2",
        corpus=CorpusConfig(
            source="text",
            paths=(f"{FOLDER}/train.recovered.txt.gz",),
            validation_paths=(f"{FOLDER}/valid.txt",),
            document="line",
        ),
        recipe=tuple(SPACED if step.name == SPACED.name else step for step in WEB_ENGLISH),
    )
