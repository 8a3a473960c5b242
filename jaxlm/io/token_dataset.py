"""Documents as tokens on disk: one flat stream a split, cut into blocks, as a TFDS dataset of ArrayRecord files.

Built once, under a name that hashes the corpus, the tokenizer, the flags and this layout's version; read by random
access, without TensorFlow. TFDS's own ``GeneratorBasedBuilder`` holds a split in memory and needs TensorFlow beyond
1 GB; its ``SequentialWriter`` streams, and what it writes is read by ``tfds.builder_from_directory`` all the same.
"""

import errno
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import Document
from jaxlm.io.corpora import Corpus
from jaxlm.io.writing import dead_siblings, drop_sibling, hold_sibling, remove_all
from jaxlm.text.tokenizer import Tokenizer

CODE_VERSION = 1  # raise when the same inputs would give other files
BLOCK_SIZE = 8192  # tokens a record
_NAME = "jaxlm_tokens"
_RECORDS_PER_SHARD = 32_768  # 512 MiB of uint16
_BATCH_CHARACTERS = 2_000_000  # of text tokenised at a time
_RESIDENT_BYTES = 256 << 20  # a split up to this size is held in memory whole
_CACHED_BLOCKS = 256
_THREADED_READS = 64  # a batched read starts threads, which costs more than it saves on fewer records

Progress = Callable[[int, int], None]


class TokenSplit:
    """One split's stream of tokens, its documents' places in it, and random access. Thread-safe."""

    def __init__(self, name: str, directory: Path, counts: dict[str, Any], builder: Any, dtype: np.dtype) -> None:
        self.name = name
        self.num_tokens: int = counts["num_tokens"]
        self.num_documents: int = counts["num_documents"]
        self.num_bytes: int = counts["num_bytes"]  # UTF-8, of the documents' texts
        self.doc_offsets: np.ndarray = np.load(directory / f"{name}.doc_offsets.npy", mmap_mode="r")
        self._directory = directory
        self._source = builder.as_data_source(name) if self.num_tokens else None
        self._resident = self.num_tokens * dtype.itemsize <= _RESIDENT_BYTES
        self._stream: np.ndarray | None = None if self.num_tokens else np.zeros(0, dtype)
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """The tokens ``starts[i] : starts[i] + lengths[i]`` of the stream, one int32 array each.

        Raises:
            IndexError: a slice outside ``0 .. num_tokens``.
            UserError: a damaged record.
        """
        starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        if len(starts) == 0:
            return []
        ends = starts + lengths
        if starts.min() < 0 or lengths.min() < 0 or ends.max() > self.num_tokens:
            raise IndexError(f"a slice of split {self.name!r} is outside its {self.num_tokens} tokens")
        if self._resident:
            stream = self._whole()
            return [stream[a:b].astype(np.int32) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        # Ends are exclusive; an empty slice touches the block of its start, if there is one.
        first = np.minimum(starts, self.num_tokens - 1) // BLOCK_SIZE
        last = np.maximum(ends - 1, first * BLOCK_SIZE) // BLOCK_SIZE
        wanted = {i for a, b in zip(first.tolist(), last.tolist(), strict=True) for i in range(a, b + 1)}
        blocks = self._fetch(sorted(wanted))
        slices = []
        for a, b, i, j in zip(starts.tolist(), ends.tolist(), first.tolist(), last.tolist(), strict=True):
            base = i * BLOCK_SIZE
            run = blocks[i] if i == j else np.concatenate([blocks[k] for k in range(i, j + 1)])
            slices.append(run[a - base : b - base].astype(np.int32))
        return slices

    def _whole(self) -> np.ndarray:
        if self._stream is None:
            with self._lock:
                if self._stream is None:
                    assert self._source is not None
                    parts = [
                        block
                        for start in range(0, len(self._source), 1024)
                        for block in self._load(list(range(start, min(start + 1024, len(self._source)))))
                    ]
                    self._stream = np.concatenate(parts)
        return self._stream

    def _fetch(self, wanted: list[int]) -> dict[int, np.ndarray]:
        with self._lock:
            blocks = {i: self._blocks[i] for i in wanted if i in self._blocks}
        missing = [i for i in wanted if i not in blocks]
        if missing:
            loaded = dict(zip(missing, self._load(missing), strict=True))
            blocks.update(loaded)
            with self._lock:
                self._blocks.update(loaded)
                while len(self._blocks) > _CACHED_BLOCKS:
                    self._blocks.popitem(last=False)
        return blocks

    def _load(self, indices: list[int]) -> list[np.ndarray]:
        assert self._source is not None
        try:
            if len(indices) < _THREADED_READS:
                records = [self._source[index] for index in indices]
            else:
                records = self._source.__getitems__(indices)
            blocks = [np.asarray(record["tokens"]) for record in records]
        except Exception as error:  # the reader raises several kinds for a file that does not decode
            raise UserError(_damaged(self._directory, f"a record cannot be read: {error}")) from error
        for index, block in zip(indices, blocks, strict=True):
            if len(block) != min(BLOCK_SIZE, self.num_tokens - index * BLOCK_SIZE):
                raise UserError(_damaged(self._directory, f"record {index} has {len(block)} tokens"))
        return blocks


class TokenDataset:
    """A built dataset: its directory, its key, and the splits "train" and "validation"."""

    def __init__(self, directory: Path, info: dict[str, Any], splits: dict[str, TokenSplit]) -> None:
        self.directory = directory
        self.key: str = info["key"]
        self.info = info
        self.splits = splits


def dataset_key(corpus: Corpus, tokenizer: Tokenizer, *, add_bos: bool, add_eos: bool) -> str:
    """sha256 (hex) of all that decides the tokens."""
    inputs = [CODE_VERSION, BLOCK_SIZE, corpus.content_hash, tokenizer.fingerprint, add_bos, add_eos]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def build_token_dataset(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    cache_dir: str | Path,
    add_bos: bool,
    add_eos: bool,
    progress: Progress | None = None,
) -> TokenDataset:
    """The corpus as tokens, ``[bos] tokens [eos]`` a document as the flags say; built once, opened after that.

    It is written into a temporary sibling folder and renamed when whole: a killed build leaves nothing that is taken
    as complete, and of two processes building at once the slower opens what the faster made.
    ``progress(done, total)`` is called with UTF-8 bytes of text.

    Raises:
        UserError: a flag that the tokenizer has no token for, a text it refuses, a damaged dataset, a full disk.
    """
    for flag, token_id, name in ((add_bos, tokenizer.bos_id, "bos"), (add_eos, tokenizer.eos_id, "eos")):
        if flag and token_id is None:
            raise UserError(f"a {tokenizer.kind} tokenizer has no <{name}>: set data.add_{name}=False")
    key = dataset_key(corpus, tokenizer, add_bos=add_bos, add_eos=add_eos)
    cache = Path(cache_dir)
    final = cache / f"tokens-{key[:24]}"
    if final.exists():
        return open_token_dataset(final, key=key)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for place in {cache / left.name[1:].split(".")[0] for left in cache.glob(".tokens-*")}:
            remove_all(dead_siblings(place))
        building = hold_sibling(final)
        building.mkdir()
    except OSError as error:
        raise UserError(f"cannot write token datasets under {cache}: {error.strerror}") from None
    try:
        _write(building, key, corpus, tokenizer, add_bos, add_eos, progress)
        _sync(building)
        try:
            os.rename(building, final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    except OSError as error:
        raise UserError(f"cannot write the token dataset {final}: {error.strerror or error}") from error
    finally:
        drop_sibling(building)
    return open_token_dataset(final, key=key)


def open_token_dataset(directory: str | Path, *, key: str | None = None) -> TokenDataset:
    """Opens a built dataset after checking its info against its files.

    Raises:
        UserError: missing, unfinished, changed, of another version, or (where ``key`` is given) of other inputs.
    """
    import tensorflow_datasets as tfds

    directory = Path(directory)
    try:
        info = json.loads((directory / "info.json").read_bytes())
        if info["code_version"] != CODE_VERSION or (key is not None and info["key"] != key):
            raise UserError(_damaged(directory, "it was made by another version or from other inputs"))
        for name, size in info["files"].items():
            if (directory / name).stat().st_size != size:
                raise UserError(_damaged(directory, f"{name} does not have the size that info.json states"))
        builder = tfds.builder_from_directory(directory)
        dtype = np.dtype(info["dtype"])
        splits = {}
        for name, counts in info["splits"].items():
            offsets = directory / f"{name}.doc_offsets.npy"
            with offsets.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != counts["doc_offsets_sha256"]:
                    raise UserError(_damaged(directory, f"{offsets.name} is not what info.json states"))
            split = TokenSplit(name, directory, counts, builder, dtype)
            records = builder.info.splits[name].num_examples if split.num_tokens else 0
            ends = split.doc_offsets
            if len(ends) != split.num_documents + 1 or ends[-1] != split.num_tokens:
                raise UserError(_damaged(directory, f"{offsets.name} does not end where info.json states"))
            if records != -(-split.num_tokens // BLOCK_SIZE):
                raise UserError(_damaged(directory, f"split {name!r} has {records} records"))
            splits[name] = split
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(_damaged(directory, f"{type(error).__name__}: {error}")) from None
    return TokenDataset(directory, info, splits)


def _damaged(directory: Path, why: str) -> str:
    return f"token dataset {directory} does not match its info.json ({' '.join(why.split())}): delete it to rebuild it"


def _write(
    directory: Path,
    key: str,
    corpus: Corpus,
    tokenizer: Tokenizer,
    add_bos: bool,
    add_eos: bool,
    progress: Progress | None,
) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    feature = tfds.features.Tensor(shape=(None,), dtype=dtype.type, encoding=tfds.features.Encoding.BYTES)
    identity = DatasetIdentity(
        name=_NAME, version=tfds.core.Version("1.0.0"), data_dir=str(directory), module_name=__name__
    )
    ds_info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict({"tokens": feature}))
    writer = tfds.core.SequentialWriter(ds_info, _RECORDS_PER_SHARD, file_format="array_record")
    head = [tokenizer.bos_id] if add_bos else []
    tail = [tokenizer.eos_id] if add_eos else []
    total = corpus.report.train.bytes + corpus.report.validation.bytes
    done = 0
    splits: dict[str, dict[str, Any]] = {}
    for name, documents in (("train", corpus.train()), ("validation", corpus.validation())):
        lengths: list[np.ndarray] = [np.zeros(1, np.int64)]
        rest = np.zeros(0, dtype)
        num_bytes = 0
        writer.initialize_splits([name])
        for texts in _batches(iter(documents)):
            encoded = tokenizer.encode_batch(texts)
            lengths.append(np.array([len(ids) + len(head) + len(tail) for ids in encoded], np.int64))
            pieces = [np.asarray(part, dtype) for ids in encoded for part in (head, ids, tail) if len(part)]
            stream = np.concatenate([rest, *pieces])
            whole = len(stream) - len(stream) % BLOCK_SIZE
            _add_blocks(writer, name, stream[:whole])
            rest = stream[whole:]
            size = sum(len(text.encode()) for text in texts)
            num_bytes += size
            done += size
            if progress is not None:
                progress(done, total)
        _add_blocks(writer, name, rest)
        offsets = np.cumsum(np.concatenate(lengths))
        path = directory / f"{name}.doc_offsets.npy"
        np.save(path, offsets)
        splits[name] = {
            "num_tokens": int(offsets[-1]),
            "num_documents": len(offsets) - 1,
            "num_bytes": num_bytes,
            "doc_offsets_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    writer.close_all()
    info = {
        "key": key,
        "code_version": CODE_VERSION,
        "block_size": BLOCK_SIZE,
        "dtype": dtype.name,
        "corpus_hash": corpus.content_hash,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "add_bos": add_bos,
        "add_eos": add_eos,
        "splits": splits,
        "files": {path.name: path.stat().st_size for path in sorted(directory.iterdir())},
    }
    (directory / "info.json").write_text(json.dumps(info, indent=1))


def _add_blocks(writer: Any, name: str, stream: np.ndarray) -> None:
    """Writes ``stream`` as records of BLOCK_SIZE tokens; only the last may be shorter."""
    blocks = [{"tokens": stream[start : start + BLOCK_SIZE]} for start in range(0, len(stream), BLOCK_SIZE)]
    if blocks:
        writer.add_examples({name: blocks})


def _batches(documents: Iterator[Document]) -> Iterator[list[str]]:
    """Texts in groups of about _BATCH_CHARACTERS characters."""
    texts: list[str] = []
    characters = 0
    for document in documents:
        texts.append(document.text)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts


def _sync(directory: Path) -> None:
    """Flushes the files to disk before the rename that declares them whole."""
    for path in directory.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
