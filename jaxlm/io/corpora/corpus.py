"""Open a corpus: find its documents, split them, count them, and refuse bad input before anything expensive runs."""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig, Document
from jaxlm.data.source import ReadLimits, SourceConfig
from jaxlm.io.corpora import archives, sources, stdlib, tfds_source
from jaxlm.io.corpora.files import MAX_LISTED, ON_BAD, BadInput
from jaxlm.io.corpora.hashes import hash_files
from jaxlm.io.corpora.held_out import check_held_out
from jaxlm.io.corpora.report import CorpusReport, Documents, count, count_parts, load_cached, store_cached
from jaxlm.text.dedup import unit_hash

# Raise when the same files would give other documents than before.
READER_VERSION = 2

Stream = Callable[[BadInput], Iterator[Document]]


@dataclass(frozen=True)
class Corpus:
    """Two splits of documents, what they hold, and a hash of what they were made from."""

    content_hash: str
    report: CorpusReport
    train_documents: Documents
    validation_documents: Documents

    def train(self) -> Documents:
        """The training documents; iterate as often as you like."""
        return self.train_documents

    def validation(self) -> Documents:
        """The validation documents; with split="hash" no copy of one is a training document."""
        return self.validation_documents


def open_corpus(config: CorpusConfig, *, data_dir: str | Path | None, mend: str = ON_BAD) -> Corpus:
    """Opens the corpus that ``config`` describes. Its counts are kept under ``data_dir`` (None keeps nothing).
    ``mend`` is what is advised where input is bad.

    The first opening reads everything; later ones, with the same ``data_dir``, read the files that have changed.

    Raises:
        UserError: bad input (unless ``on_bad="skip"``), or a split without a document.
    """
    cache = None if data_dir is None else Path(data_dir) / "corpora"
    if config.source == "stdlib":
        train, validation, report, content_hash = stdlib.load(config, cache)
        corpus = Corpus(content_hash, report, Documents(lambda: iter(train)), Documents(lambda: iter(validation)))
    else:
        corpus = _open_streams(config, cache, mend)
    _check_splits(corpus, config)
    return corpus


def _open_streams(config: CorpusConfig, cache: Path | None, mend: str) -> Corpus:
    found = BadInput(skip=config.on_bad == "skip", mend=mend)  # bad paths; bad content is found while reading
    stream, held_out, identity = _streams(config, found, cache)
    content_hash = hashlib.sha256(json.dumps([READER_VERSION, *identity]).encode()).hexdigest()
    cached = None if cache is None else cache / f"{content_hash[:24]}.json"
    train, validation = _split(stream, held_out, config)
    try:
        report = CorpusReport.from_dict(load_cached(cached))
    except (KeyError, TypeError):
        noted = BadInput(skip=found.skip, mend=mend)
        if held_out is not None:
            counts = count(stream(noted)), count(held_out(noted))
        elif config.split == "hash":
            counts = count_parts(stream(noted), functools.partial(_held, fraction=config.validation_fraction))
        else:
            for _ in stream(noted):  # all of it: the passes below stop at the cut
                pass
            counts = count(train), count(validation)
        report = CorpusReport(*counts, found.count + noted.count, (*found.listed, *noted.listed)[:MAX_LISTED])
        store_cached(cached, report.to_dict())
    return Corpus(content_hash, report, train, validation)


def _split(stream: Stream, held_out: Stream | None, config: CorpusConfig) -> tuple[Documents, Documents]:
    """(train, validation) as ``config.split`` says, or as given."""

    def passing(source: Stream) -> Iterator[Document]:
        return source(BadInput(skip=config.on_bad == "skip"))

    held = functools.partial(_held, fraction=config.validation_fraction)
    if held_out is not None:
        return Documents(lambda: passing(stream)), Documents(lambda: passing(held_out))
    if config.split == "hash":
        return (
            Documents(lambda: itertools.filterfalse(held, passing(stream))),
            Documents(lambda: filter(held, passing(stream))),
        )

    @functools.cache
    def cut() -> int:  # costs one more pass, once
        return int(count(passing(stream)).characters * (1.0 - config.validation_fraction))

    return Documents(lambda: _head(passing(stream), cut())), Documents(lambda: _tail(passing(stream), cut()))


def _held(document: Document, fraction: float) -> bool:
    return unit_hash(document.text) < fraction


def _streams(config: CorpusConfig, bad: BadInput, cache: Path | None) -> tuple[Stream, Stream | None, list[object]]:
    """(all or training documents, validation documents if they are named, what identifies them)."""
    rules: list[object] = [config.source, config.text_field, config.max_documents, config.on_bad]
    groups = _sources(config)
    files = [sources.find_files(source, bad) for source in groups]
    if config.source == "tfds":
        builder = tfds_source.open_builder(str(config.tfds_name), config.tfds_data_dir)
        rules += [tfds_source.fingerprint(builder, source.tfds_split, cache) for source in groups]
    else:
        paths = [list(dict.fromkeys(file.path for file in found)) for found in files]
        packing = [[_packing(path) for path in found] for found in paths]
        hashes = [hash_files([Path(path) for path in found], cache) for found in paths]
        if len(groups) == 2:
            check_held_out(paths[0], paths[1], ("corpus.paths", "corpus.validation_paths"), hashes)
        rules += [config.document, packing, *hashes]
    streams: list[Stream] = [
        lambda noted, source=source, found=found: itertools.chain.from_iterable(
            sources.read_source(file, source, noted) for file in found
        )
        for source, found in zip(groups, files, strict=True)
    ]

    def first_ones(bad: BadInput) -> Iterator[Document]:
        return itertools.islice(streams[0](bad), config.max_documents)

    if len(streams) == 1:
        return first_ones, None, [*rules, config.split, config.validation_fraction]
    return first_ones, streams[1], rules


def _sources(config: CorpusConfig) -> list[SourceConfig]:
    """All text, or the training and the validation text where both are named, each as a source. What it reads is the
    user's own: one document may be as large as its file."""
    assert config.source != "stdlib"
    base = functools.partial(
        SourceConfig,
        name="corpus",
        format=config.source,
        document=config.document,
        fields=(config.text_field,),
        limits=ReadLimits(max_document_bytes=1 << 40),
    )
    if config.source == "tfds":
        splits = [split for split in (config.tfds_split, config.tfds_validation_split) if split is not None]
        dataset = functools.partial(base, tfds_name=config.tfds_name, tfds_data_dir=config.tfds_data_dir)
        return [dataset(tfds_split=split) for split in splits]
    return [base(paths=paths) for paths in (config.paths, config.validation_paths) if paths]


def _packing(path: str) -> str:
    """What the name says of how the bytes are read: ``.gz``, ``.zip``..., or nothing."""
    return next((end for end in (*archives.TARS, *archives.ZIPS, *archives.PACKED) if path.lower().endswith(end)), "")


def _head(documents: Iterator[Document], characters: int) -> Iterator[Document]:
    for document in documents:
        if characters <= 0:
            return
        yield document._replace(text=document.text[:characters])
        characters -= len(document.text)


def _tail(documents: Iterator[Document], characters: int) -> Iterator[Document]:
    for document in documents:
        if characters < len(document.text):
            yield document._replace(text=document.text[max(0, characters) :])
        characters -= len(document.text)


def _check_splits(corpus: Corpus, config: CorpusConfig) -> None:
    train, validation = corpus.report.train, corpus.report.validation
    where = " ".join(config.paths) or config.tfds_name or config.source
    named = " ".join(config.validation_paths) or config.tfds_validation_split
    if not train.documents:
        mend = "add text" if named or not validation.documents else _mend(config, "lower", validation.documents)
        raise UserError(
            f"corpus {where!r} has no training document ({validation.documents} for validation, "
            f"{corpus.report.num_skipped} skipped): {mend}"
        )
    if not validation.documents and (named or config.validation_fraction > 0):
        mend = f"add text to {named}" if named else _mend(config, "raise", train.documents)
        raise UserError(f"corpus {where!r} has no validation document among {train.documents}: {mend}")


def _mend(config: CorpusConfig, change: str, num_documents: int) -> str:
    """How both splits get a document, by the fields that this source has. ``change``: lower or raise the fraction."""
    fields = []
    if config.split == "hash" and config.source != "stdlib":
        fields.append("corpus.split=tail")
        if config.source == "text" and config.document != "line":
            fields.append(f"corpus.document={'paragraph' if config.document == 'file' else 'line'}")
    if config.source != "stdlib":
        fields.append("corpus.tfds_validation_split" if config.source == "tfds" else "corpus.validation_paths")
    mends = [f"set {' or '.join(fields)}"] if fields else []
    if num_documents > 1 or config.split == "tail" or not fields:  # no fraction splits one document by its hash
        mends.append(f"{change} corpus.validation_fraction ({config.validation_fraction:g})")
    return ", or ".join(mends)
