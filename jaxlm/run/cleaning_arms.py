"""One way of cleaning at work on the raw mixture: what is left, what became of good text and of each kind of junk."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.data.deduplication import DeduplicationConfig, RepeatsConfig
from jaxlm.run.cleaning_config import COPIES, REPEATED, Cleaning
from jaxlm.run.cleaning_data import Planted
from jaxlm.text.column import TextColumn
from jaxlm.text.duplicates import band_pairs, cluster, exact_keys, exact_pairs, merge_pairs, verify
from jaxlm.text.minhash import Shingles, sign
from jaxlm.text.recipe import clean
from jaxlm.text.repeats import count_lines, drop_repeated, merge_counts


class Cleaned(NamedTuple):
    """What became of every document, in order."""

    texts: list[str]
    """"" where it is removed."""
    removed_by: list[str]
    """The step; "" where it is kept."""


def apply_cleaning(texts: Sequence[str], cleaning: Cleaning, batch: int = 1000) -> Cleaned:
    """The recipe, then copies, then repeated lines: the order of ``jaxlm corpus``, and its functions."""
    found, removed = [], []
    for start in range(0, len(texts), batch):
        for fate in clean(texts[start : start + batch], cleaning.recipe):
            found.append("" if fate.step >= 0 else fate.text)
            removed.append(cleaning.recipe[fate.step].name if fate.step >= 0 else "")
    result = Cleaned(found, removed)
    if cleaning.deduplication is not None:
        _drop_copies(result, cleaning.deduplication)
    if cleaning.repeats is not None:
        _drop_lines(result, cleaning.repeats)
    return result


def _drop_copies(result: Cleaned, config: DeduplicationConfig) -> None:
    alive = [i for i, gone in enumerate(result.removed_by) if not gone]
    texts = [result.texts[i] for i in alive]
    if not texts:
        return
    exact = exact_pairs(exact_keys(texts)) if config.exact else np.zeros((0, 2), np.uint32)
    parts = [exact]
    if config.near:
        signed = [sign(TextColumn(texts[start : start + 1000]), config.minhash) for start in range(0, len(texts), 1000)]
        sizes = np.concatenate([one.shingles.sizes for one in signed])
        hashes = np.concatenate([one.shingles.hashes for one in signed])
        shingles = Shingles(hashes, np.concatenate([[0], np.cumsum(sizes)]))
        rest = np.ones(len(texts), bool)
        rest[exact[:, 1]] = False
        numbers = np.flatnonzero(rest)
        keys = np.concatenate([one.keys_nb for one in signed])[numbers]
        bands = [band_pairs(keys[:, band], numbers, reach=config.reach) for band in range(keys.shape[1])]
        parts.append(verify(merge_pairs(bands), shingles, config.threshold).pairs)
    kept_n = cluster(np.concatenate(parts), np.zeros(len(texts), np.int64)).kept_n
    for place in np.flatnonzero(~kept_n).tolist():
        result.texts[alive[place]], result.removed_by[alive[place]] = "", COPIES


def _drop_lines(result: Cleaned, config: RepeatsConfig) -> None:
    alive = [i for i, gone in enumerate(result.removed_by) if not gone]
    if not alive:
        return
    texts, numbers = [result.texts[i] for i in alive], np.array(alive)
    counts = count_lines(texts, numbers, unit=config.unit, min_chars=config.min_chars)
    repeated = merge_counts([counts]).above(config.max_documents)
    dropped = drop_repeated(
        texts, numbers, repeated, unit=config.unit, min_chars=config.min_chars, keep_first=config.keep_first
    )
    for i, text in zip(alive, dropped.texts, strict=True):
        result.texts[i] = text if text.strip() else ""
        result.removed_by[i] = "" if text.strip() else REPEATED


@dataclasses.dataclass
class Tally:
    """What a cleaning did to the documents of one kind. Words are what stands between white space."""

    documents: int = 0
    bytes: int = 0
    removed_documents: int = 0
    bytes_left: int = 0
    wanted_words: int = 0
    """Words of the good text, also those that damage has made unreadable."""
    wanted_left: int = 0
    good_words: int = 0
    """Those that stand in the raw text."""
    good_gone: int = 0
    junk_words: int = 0
    """All other words of the raw text."""
    junk_gone: int = 0
    steps: Counter[str] = dataclasses.field(default_factory=Counter)
    """Step -> documents that it removed."""


class Words(NamedTuple):
    """The words of a document, with their counts."""

    wanted: Counter[str]
    have: Counter[str]


def words_of(document: Planted) -> Words:
    """Of a piece of a page only those words of its main text are wanted that stand in the piece."""
    wanted, have = Counter(document.good.split()), Counter(document.text.split())
    if document.kind in ("flattened", "markup"):
        wanted &= Counter(document.text.replace("<", " <").replace(">", "> ").split())
    return Words(wanted, have)


def tally(documents: Sequence[Planted], words: Sequence[Words], cleaned: Cleaned) -> dict[str, Tally]:
    """Kind -> what was done to it."""
    found: dict[str, Tally] = {}
    for one, (wanted, have), text, step in zip(documents, words, cleaned.texts, cleaned.removed_by, strict=True):
        row, left = found.setdefault(one.kind, Tally()), Counter(text.split())
        good, junk = have & wanted, have - wanted
        row.documents += 1
        row.bytes += len(one.text.encode("utf-8", "replace"))
        row.bytes_left += len(text.encode("utf-8", "replace"))
        row.removed_documents += bool(step)
        row.wanted_words += wanted.total()
        row.wanted_left += (wanted & left).total()
        row.good_words += good.total()
        row.good_gone += (good - left).total()
        row.junk_words += junk.total()
        row.junk_gone += (junk - left).total()
        if step:
            row.steps[step] += 1
    return found


def precision_recall(rows: Iterable[Tally]) -> dict[str, float | None]:
    """Of the words that went the share that was junk; of the junk words, and of the good ones, the share that went."""
    rows = list(rows)
    good_gone, junk_gone = sum(row.good_gone for row in rows), sum(row.junk_gone for row in rows)
    good, junk = sum(row.good_words for row in rows), sum(row.junk_words for row in rows)
    return {
        "precision": junk_gone / (junk_gone + good_gone) if junk_gone + good_gone else None,
        "recall": junk_gone / junk if junk else None,
        "good_lost": good_gone / good if good else None,
    }
