"""BPE and unigram tokenizers of 1,024 to 16,384 ids on English and code of Python's standard library, beside bytes.

python -m experiments.tokenizers tokenizers_small
python -m experiments.tokenizers tokenizers_small --references path/to/tokenizer.json path/to/spiece.model
"""

from jaxlm.data.corpus import CorpusConfig
from jaxlm.run.tokenizer_study import StudiedSource, TokenizerStudyConfig


def config() -> TokenizerStudyConfig:
    return TokenizerStudyConfig(
        name="Tokenizers on the standard library",
        sources=(
            StudiedSource("docstrings", "en", CorpusConfig(stdlib_part="docstrings")),
            StudiedSource("sources", "", CorpusConfig(stdlib_part="sources")),
        ),
    )
