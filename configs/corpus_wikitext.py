"""WikiText-2's articles as they are written: what its tokenizer set apart is joined again.

    python -m experiments.corpus corpus_wikitext

Each line is a document, headings too; of copies one stays. ``configs/generations_wikitext.py`` trains on it.
"""

from jaxlm.data.source import SourceConfig
from jaxlm.run.corpus.config import CorpusBuildConfig
from jaxlm.text.edits.detokenize import Detokenize
from jaxlm.text.edits.unicode import RepairUnicode


def config() -> CorpusBuildConfig:
    return CorpusBuildConfig(
        title="WikiText-2, as it is written",
        sources=(
            SourceConfig(
                name="wikitext",
                format="text",
                paths=("../shared/data/text/wikitext-2/train.recovered.txt.gz",),
                document="line",
                licence="CC-BY-SA-3.0",
                language="en",
                recipe=(RepairUnicode(), Detokenize()),
            ),
        ),
        tokenizer=None,
        repeats=None,
    )
