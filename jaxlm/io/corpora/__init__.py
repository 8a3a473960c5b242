"""Corpora: documents from the standard library, local files or TFDS, split into train and validation."""

from jaxlm.io.corpora.corpus import Corpus, open_corpus
from jaxlm.io.corpora.report import CorpusReport, Documents, SplitCount

__all__ = ["Corpus", "CorpusReport", "Documents", "SplitCount", "open_corpus"]
