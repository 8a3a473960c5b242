"""TFDS datasets by name, read by random access (``tfds.data_source``), without TensorFlow where the builder allows."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.corpora.hashes import hash_files

_BATCH = 256


def open_builder(name: str, data_dir: str | None) -> Any:
    """The builder of ``name``, prepared: a folder of a prepared dataset, or a name that TFDS knows.

    Raises:
        UserError: unknown name, or a builder that needs TensorFlow where it is not installed.
    """
    import tensorflow_datasets as tfds

    try:
        if (Path(name).expanduser() / "dataset_info.json").exists():
            return tfds.builder_from_directory(os.path.expanduser(name))
        # The default file format needs TensorFlow and has no random access; a dataset already on disk keeps its own.
        try:
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        except ValueError:
            builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        return builder
    except ImportError as error:
        raise UserError(
            f"TFDS dataset {name!r} needs TensorFlow or another package ({error}): pip install 'jaxlm[tfds]'"
        ) from None
    except Exception as error:  # TFDS raises many kinds for a name, a version or a download it cannot serve
        if "tensorflow" in str(error).lower() and "No module" in str(error):
            raise UserError(f"TFDS dataset {name!r} needs TensorFlow: pip install 'jaxlm[tfds]'") from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"TFDS dataset {name!r} cannot be opened: {reason}") from None


def fingerprint(builder: Any, split: str, keep: Path | None) -> list[str]:
    """What identifies a split: full name, the split, its number of examples, and the hashes of its files."""
    info = split_info(builder, split)
    paths = [Path(p) for p in info.filepaths]
    return [builder.info.full_name, split, str(info.num_examples), *hash_files(paths, keep)]


def split_info(builder: Any, split: str) -> Any:
    """Its files and number of examples. Raises UserError for a split that the dataset has not."""
    try:
        return builder.info.splits[split]
    except (KeyError, ValueError):
        known = ", ".join(builder.info.splits) or "none"
        raise UserError(f"TFDS dataset {builder.info.name!r} has no split {split!r}: it has {known}") from None


def read_examples(
    builder: Any, split: str, names: list[str], dataset: str, start: int = 0, stop: int | None = None
) -> Iterator[dict[str, Any]]:
    """The features ``names`` of the examples ``start`` to ``stop``, in stored order; the others are not decoded."""
    import tensorflow_datasets as tfds

    # PartialDecoding needs TensorFlow, and as_data_source fails on it (TFDS 4.9.10): records as bytes, and their part.
    try:
        features: Any = tfds.features.FeaturesDict({name: builder.info.features[name] for name in names})
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    except Exception as error:  # TFDS raises many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"TFDS dataset {dataset!r} has no random access ({reason}): prepare it with file_format='array_record', "
            "or pip install 'jaxlm[tfds]'"
        ) from None
    stop = len(source) if stop is None else stop
    for first in range(start, stop, _BATCH):
        for record in source.__getitems__(list(range(first, min(first + _BATCH, stop)))):
            yield features.deserialize_example_np(record)
