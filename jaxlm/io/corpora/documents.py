"""All documents of some files, for what needs them together: scores of texts, evaluation items looked for in them."""

from collections.abc import Sequence
from pathlib import Path

from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import open_corpus
from jaxlm.io.corpora.archives import without_packing
from jaxlm.io.corpora.sources import SUFFIXES


def read_documents(paths: Sequence[str | Path]) -> list[str]:
    """The documents of .jsonl and .ndjson files (a field "text") and of others (a blank line between them), packed
    (.gz, .zst) or not, whatever the case of the name.

    Raises UserError for a file that is missing or bad.
    """
    texts: list[str] = []
    for path in map(str, paths):
        records = without_packing(path).endswith(SUFFIXES["jsonl"])
        config = CorpusConfig(
            source="jsonl" if records else "text", paths=(path,), document="paragraph", validation_fraction=0.0
        )
        texts += [
            document.text for document in open_corpus(config, data_dir=None, mend="mend it, or name another").train()
        ]
    return texts
