"""The texts of a study of quality, as files: each made once, from the seed and the documents alone."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.agree import say
from jaxlm.io.corpora.corpus import Corpus, open_corpus
from jaxlm.io.run_dir import RunDir
from jaxlm.run.devices import cache_root
from jaxlm.run.ladder_quality_config import QualityConfig, TextConfig
from jaxlm.text.dedup import copied_shares, unit_hash
from jaxlm.text.junk import misread, numbers, shuffled, tagged, typographic

TEXT, HELD_OUT = "text.jsonl", "held_out.jsonl"
DAMAGES: dict[str, Callable[[str, np.random.Generator], str]] = {
    "shuffled": shuffled,
    "tagged": tagged,
    "misread": lambda text, rng: misread(typographic(text)),
    "numbers": lambda text, rng: numbers(len(text), rng),
}
_MOST_SHARED = 0.5
"""Of a document's runs of five words that stand in held-out text."""
_DAMAGE, _COPIES = 0x5154, 0x5155


def write_texts(config: QualityConfig, directory: Path) -> tuple[dict[str, Path], Path]:
    """(name -> the file to train on, the held-out file); what is there is kept.

    Raises UserError where a text of that name was made otherwise, and where nothing is left of one.
    """
    held_out_file = directory / HELD_OUT
    files = {one.name: directory / one.name / TEXT for one in config.texts}
    for one in config.texts:
        RunDir(directory / one.name).check_config(one)
    missing = [one for one in config.texts if not files[one.name].exists()]
    if missing or not held_out_file.exists():
        own = open_corpus(config.ladder.run.corpus, data_dir=cache_root())
        held_out = [document.text for document in own.validation()]
        read: dict[CorpusConfig | None, list[str]] = {}
        _write(held_out_file, held_out)
        for one in missing:
            if one.corpus not in read:
                corpus = own if one.corpus is None else open_corpus(one.corpus, data_dir=cache_root())
                read[one.corpus] = _unseen(corpus, held_out)
            if not read[one.corpus]:
                raise UserError(f"text {one.name!r} has no document that does not stand in the held-out text")
            place = RunDir(directory / one.name)
            place.path.mkdir(exist_ok=True)
            place.write_config(one)
            _write(files[one.name], make_text(one, read[one.corpus], config.ladder.run.seed))
    return files, held_out_file


def _unseen(corpus: Corpus, held_out: Sequence[str]) -> list[str]:
    """The training documents, but those that are copies of held-out ones."""
    documents = [document.text for document in corpus.train()]
    shares = copied_shares(documents, held_out)
    found = [text for text, share in zip(documents, shares, strict=True) if share <= _MOST_SHARED and text.strip()]
    if len(found) < len(documents):
        say(f"{len(documents) - len(found)} documents left out: more than half of each stands in the held-out text")
    return found


def make_text(text: TextConfig, documents: Sequence[str], seed: int) -> Iterator[str]:
    """The documents that a text has, each a function of the seed and its own words. Copies follow each other a whole
    pass apart: side by side, they would teach to copy."""
    chosen = documents
    if text.copies > 1:
        order = sorted(documents, key=lambda one: _generator(seed, _COPIES, one).random())
        ends = np.cumsum([len(one.encode("utf-8", "replace")) for one in order])
        chosen = order[: int(np.searchsorted(ends, ends[-1] / text.copies)) + 1]
    damage = DAMAGES[text.how]
    made = []
    for one in chosen:
        rng = _generator(seed, _DAMAGE, one)
        made.append(damage(one, rng) if rng.random() < text.damaged else one)
    for _ in range(text.copies):
        yield from made


def _generator(seed: int, purpose: int, document: str) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, int(unit_hash(document) * 2**53)])


def _write(path: Path, texts: Iterable[str]) -> None:
    """JSONL, whole or not at all, never in memory at once."""
    if path.exists():
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "w", encoding="utf-8", errors="replace") as file:
            for text in texts:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
