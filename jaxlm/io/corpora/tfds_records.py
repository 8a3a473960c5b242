"""TFDS splits as sources, read by random access."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import Document
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora import tfds_source
from jaxlm.io.corpora.archives import SourceFile
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.records import SET_FIELDS, FieldError, text_of

_FILE_EXAMPLES = 65_536


def find_files(source: SourceConfig) -> list[SourceFile]:
    """The split in pieces of 65,536 examples, so that shards can share one; whole where only its first are taken."""
    info = tfds_source.split_info(_builder(source), source.tfds_split)
    size = sum(Path(path).stat().st_size for path in info.filepaths)
    total = int(info.num_examples)
    step = _FILE_EXAMPLES if source.max_documents is None else max(total, 1)
    return [
        SourceFile(str(source.tfds_name), source.tfds_split, size * min(step, total - start) // total,
                   start, min(start + step, total))
        for start in range(0, total, step)
    ]  # fmt: skip


def _builder(source: SourceConfig) -> Any:
    return tfds_source.open_builder(str(source.tfds_name), source.tfds_data_dir)


def read_tfds(file: SourceFile, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """The examples ``start`` to ``stop`` of a split in stored order; only the features that fields name are read."""
    builder = _builder(source)
    features = builder.info.features
    names = {field.removesuffix("?").split(".")[0]: field for field in source.fields}
    wanted = [name for name in names if name in features]
    missing = [name for name, field in names.items() if name not in features and not field.endswith("?")]
    if missing:
        told = f"has no feature {missing[0]!r} (it has {', '.join(features)})"
        raise UserError(f"TFDS dataset {source.tfds_name!r} {told}: {SET_FIELDS}")
    where = f"{source.tfds_name}/{source.tfds_split}"
    examples = tfds_source.read_examples(
        builder, source.tfds_split, wanted, str(source.tfds_name), file.start, file.stop
    )
    for index, example in enumerate(examples, file.start):
        try:
            text = text_of(_plain(example), source)
        except UnicodeDecodeError as error:
            bad.add_at(where, None, f"is not UTF-8 at byte {error.start} of a field", place=f"example {index}")
        except FieldError as error:
            bad.add_at(where, None, str(error), place=f"example {index}")
        else:
            yield Document(text, f"{where}:{index}")


def _plain(value: Any) -> Any:
    """Bytes as text, arrays as lists."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    return value
