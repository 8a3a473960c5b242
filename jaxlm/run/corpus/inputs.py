"""What a build reads, found and checked before it reads anything: source files, evaluation sets, a given tokenizer."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.io.corpora.archives import SourceFile
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import find_files
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.run.corpus.collecting import assign_files
from jaxlm.run.corpus.config import CorpusBuildConfig


class Inputs(NamedTuple):
    """What was found."""

    shards: list[Any]
    """The files of every shard, as JSON data."""
    bad_paths: list[str]
    """What is wrong with paths."""
    facts: dict[str, Any]
    """Hashes of it: a build is not gone on with over other input."""


def find_inputs(config: CorpusBuildConfig) -> Inputs:
    """Raises UserError for no source, a source or evaluation set without a file, a tokenizer that cannot be read."""
    if not config.sources:
        raise UserError("the config names no source: give sources=(SourceConfig(...), ...)")
    bad = BadInput(skip=True)
    files: list[list[SourceFile]] = [find_files(source, bad) for source in config.sources]
    items: list[list[SourceFile]] = [find_files(source, bad) for source in config.evaluation]
    shards = assign_files(files, config.num_shards)
    facts = {"files_hash": _hash_of(shards), "files_changed": _hash_of(_times(files))}
    if items:
        facts["evaluation_hash"] = _hash_of([items, _times(items)])
    if config.tokenizer_dir is not None:
        load_tokenizer(config.tokenizer_dir)
        inside = sorted(path for path in Path(config.tokenizer_dir).rglob("*") if path.is_file())
        facts["tokenizer_hash"] = _hash_of([hashlib.sha256(path.read_bytes()).hexdigest() for path in inside])
    return Inputs(shards, list(bad.listed), facts)


def _hash_of(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _times(files: Sequence[Sequence[SourceFile]]) -> list[int | None]:
    """When each file was last written: an edit may leave its size. None for what is no file (a TFDS split)."""
    paths = dict.fromkeys(file.path for found in files for file in found)
    return [_written(path) for path in paths]


def _written(path: str) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return None
