"""What the tests of readers share: one source read whole."""

from typing import Any

import pytest

from jaxlm.data.corpus import Document
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import find_files, read_source


def read(path, format: Any = "text", **fields) -> tuple[list[Document], BadInput]:
    """(documents, what was bad or passed over) of one source at ``path``."""
    source = SourceConfig("test", format, (str(path),), **fields)
    bad = BadInput(skip=True)
    return [document for file in find_files(source, bad) for document in read_source(file, source, bad)], bad


def texts(documents) -> list[str]:
    """Their texts."""
    return [document.text for document in documents]


def zst(content: bytes) -> bytes:
    """``content`` as one Zstandard frame; skips the test where the optional package is not installed."""
    return pytest.importorskip("zstandard", reason="pip install 'jaxlm[clean]'").compress(content)
