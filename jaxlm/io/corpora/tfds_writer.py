"""Write documents as shards of a TFDS dataset (ArrayRecord), each shard by a process of its own, without TensorFlow.

The same documents give the same bytes: TFDS's own serialisation leaves the order of a record's fields open.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

NAME = "jaxlm_corpus"
VERSION = "1.0.0"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FIELDS = {
    "text": "The document.",
    "source": "Name of the source that it came from.",
    "origin": "Where it stands there: file, member, line.",
    "part": "Its kind within the source.",
}


class WrittenShard(NamedTuple):
    """What a shard holds."""

    num_records: int
    num_bytes: int
    """Of the records."""
    sha256: str
    """Of the records, one after the other."""


def shard_name(split: str, number: int, count: int) -> str:
    """The file name of one shard of a split."""
    return f"{NAME}-{split}.array_record-{number:05d}-of-{count:05d}"


class DocumentWriter:
    """Writes one shard."""

    def __init__(self, path: str | Path) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        self._features = _features()
        self._serializer = ExampleSerializer(self._features.get_serialized_info())
        # One record a group: any document is read alone.
        self._writer: Any = ArrayRecordWriter(str(path), "group_size:1")
        self._hash = hashlib.sha256()
        self._records = self._bytes = 0

    def add(self, text: str, source: str, origin: str, part: str) -> None:
        """Appends one document."""
        example = self._features.encode_example({"text": text, "source": source, "origin": origin, "part": part})
        record = self._serializer.get_tf_example(example).SerializeToString(deterministic=True)
        self._writer.write(record)
        self._hash.update(len(record).to_bytes(8, "little") + record)
        self._records += 1
        self._bytes += len(record)

    def close(self) -> WrittenShard:
        """Ends the file and says what it holds."""
        self._writer.close()
        return WrittenShard(self._records, self._bytes, self._hash.hexdigest())


def write_metadata(
    directory: str | Path, splits: Mapping[str, Sequence[WrittenShard]], *, description: str, licence: str
) -> None:
    """Makes a TFDS dataset of a directory that holds the shards of each split; ``tfds.builder_from_directory`` and a
    corpus of ``source="tfds"`` open it. Splits without a record are left out."""
    import tensorflow_datasets as tfds
    from etils import epath

    def template(split: str) -> Any:
        return tfds.core.ShardedFileTemplate(
            dataset_name=NAME,
            data_dir=epath.Path(directory),
            split=split,
            filetype_suffix="array_record",
            template=_TEMPLATE,
        )

    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.num_records for shard in shards],
            num_bytes=sum(shard.num_bytes for shard in shards),
            filename_template=template(split),
        )
        for split, shards in splits.items()
        if any(shard.num_records for shard in shards)
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=str(directory),
        features=_features(),
        split_infos=infos,
        filename_template=_TEMPLATE,
        version=VERSION,
        description=description,
        license=licence,
        check_data=False,
    )


def _features() -> Any:
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict({name: tfds.features.Text(doc=doc) for name, doc in _FIELDS.items()})
