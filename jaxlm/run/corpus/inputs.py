"""What a build reads, found and checked before it reads anything: source files, evaluation sets, a given tokenizer."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.archives import SourceFile
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import find_files, read_source
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.run.corpus.collecting import assign_files
from jaxlm.run.corpus.config import CorpusBuildConfig
from jaxlm.text.rules.badwords import BadWords
from jaxlm.text.steps import Recipe


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
    recipes = (config.late_recipe, *map(config.recipe_of, config.sources))
    scores = [score for recipe in recipes for step in recipe if (score := getattr(step, "score", None)) is not None]
    if scores:
        facts["scores_hash"] = _hash_of([_fingerprint(score) for score in scores])
    if config.tokenizer_dir is not None:
        load_tokenizer(config.tokenizer_dir)
        inside = sorted(path for path in Path(config.tokenizer_dir).rglob("*") if path.is_file())
        facts["tokenizer_hash"] = _hash_of([hashlib.sha256(path.read_bytes()).hexdigest() for path in inside])
    return Inputs(shards, list(bad.listed), facts)


def with_bad_words(config: CorpusBuildConfig) -> CorpusBuildConfig:
    """The config with the words of its ``bad_words`` files as a step of every recipe.

    Raises UserError for a file that is missing, is not UTF-8 or holds no word.
    """
    words = tuple(dict.fromkeys(word for path in config.bad_words for word in _read_words(Path(path).expanduser())))
    if not words:
        return config
    rule = BadWords(words)

    def extended(recipe: Recipe) -> Recipe:
        return recipe if any(step.name == rule.name for step in recipe) else (*recipe, rule)

    sources = tuple(
        source if source.recipe is None else dataclasses.replace(source, recipe=extended(source.recipe))
        for source in config.sources
    )
    return dataclasses.replace(config, recipe=extended(config.recipe), sources=sources)


def _read_words(path: Path) -> list[str]:
    """The words of a file, one a line; ``#`` begins a remark. Raises UserError for none, or what is no text."""
    source = SourceConfig(name="bad_words", format="text", paths=(str(path),), document="line")
    noted = BadInput(skip=True)
    files = find_files(source, noted)
    lines = (document.text.strip() for file in files for document in read_source(file, source, noted))
    words = [line for line in lines if not line.startswith("#")]
    if not words or noted.count:
        raise UserError(f"bad_words: {noted.listed[0] if noted.listed else f'{path} holds no word'}")
    return words


def _fingerprint(score: Any) -> str | None:
    """Of the model behind a score of ours, which may be fitted again under its name; None for another function."""
    try:
        return getattr(score, "fingerprint", None)
    except OSError as error:
        raise UserError(f"a recipe's score {score} cannot be read: {error.strerror or error}") from error


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
