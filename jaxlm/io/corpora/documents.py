"""All documents of some files, for what needs them together: scores of texts, evaluation items looked for in them."""

from collections.abc import Sequence
from pathlib import Path

from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import open_corpus


def read_documents(paths: Sequence[str | Path]) -> list[str]:
    """The documents of .jsonl files (a field "text") and of others (a blank line between them), packed or not.

    Raises UserError for a file that is missing or bad.
    """
    texts: list[str] = []
    for path in map(str, paths):
        records = path.removesuffix(".gz").endswith(".jsonl")
        config = CorpusConfig(
            source="jsonl" if records else "text", paths=(path,), document="paragraph", validation_fraction=0.0
        )
        texts += [document.text for document in open_corpus(config, data_dir=None).train()]
    return texts
