"""The stage that decides: copies, repeated lines and evaluation items go; what is left passes the late rules."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.data.deduplication import RepeatsConfig
from jaxlm.data.ledger import Ledger, StepAccount
from jaxlm.io.shards import REMOVED, Record, ShardWriter, read_origins, read_rows, removal
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.run.corpus.cleaning import Cleaner, Stopwatch, sample_of
from jaxlm.run.corpus.duplicates import (
    CLUSTER,
    COLLECT,
    EXACT_COPY,
    KEPT,
    NEAR_COPY,
    Collected,
)
from jaxlm.run.corpus.evaluation_index import read_index
from jaxlm.run.corpus.repeated_lines import FILE, LINES, is_counted, read_counts
from jaxlm.run.corpus.workspace import LEDGER, TIMES, write_json
from jaxlm.run.corpus.writing import is_held_out
from jaxlm.text.contamination import ItemIndex, Overlap, find_items
from jaxlm.text.recipe import NOTHING_LEFT
from jaxlm.text.repeats import LineCounts, drop_repeated, merge_counts
from jaxlm.text.steps import Recipe

SELECT, TOKENIZER, EVALUATION = "8-select", "2-tokenizer", "2-evaluation"
COMPARE, TOKENISE = "copies_lines_items", "tokenise"
COPIES, REPEATED, CONTAMINATED = "copies", "repeated_lines", "contaminated"


@dataclasses.dataclass(frozen=True)
class Selecting:
    """Goes through the documents of a shard once more, with what is now known of the whole corpus."""

    collected: Collected
    repeats: RepeatsConfig | None
    num_line_parts: int
    overlap: Overlap | None
    """What counts as holding an evaluation item; None = there are none to look for."""
    late_recipe: Recipe
    """Rules that need a model, or the text as it will be."""
    tokenizer: bool
    validation_fraction: float
    """What will be held out is counted apart: the mixture is made of the rest."""

    def __call__(self, number: int, directory: Path) -> None:
        """Task ``number`` writes what is left of shard ``number``, and what went and why."""
        workspace = self.collected.workspace
        place = workspace.task(COLLECT, number)
        bounds = self.collected.bounds
        first, last = bounds[number : number + 2].tolist()
        fate = _Fates(self.collected, first, last)
        repeated = self._repeated()
        index = read_index(workspace.task(EVALUATION, 0), self.overlap) if self.overlap is not None else None
        tokenizer = load_tokenizer(workspace.task(TOKENIZER, 0) / "tokenizer") if self.tokenizer else None
        ledger = Ledger()
        sizes: dict[str, list[int]] = {}
        held_out: dict[str, list[int]] = {}
        tokens: list[np.ndarray] = []
        row = 0
        with (
            ShardWriter(directory / "documents.parquet") as kept,
            ShardWriter(directory / "removed.parquet", REMOVED) as removed,
        ):
            watch = Stopwatch()
            cleaner = Cleaner(ledger, removed.add, watch)
            pass_ = _Pass(ledger, removed.add, fate, repeated, index, self)
            for batch in read_rows(place / "documents.parquet"):
                numbers = np.arange(first + row, first + row + len(batch))
                row += len(batch)
                for group in _by_source(batch):
                    watch.start()
                    records = pass_([batch[i] for i in group], numbers[group])
                    watch.lap(COMPARE, sum(len(batch[i].text.encode()) for i in group))
                    records = cleaner.clean(records, self.late_recipe)
                    if not records:
                        continue
                    texts = [record.text for record in records]
                    lengths = np.zeros(len(texts), np.int64)
                    size = sum(len(text.encode()) for text in texts)
                    if tokenizer is not None:
                        watch.start()
                        lengths += [len(ids) for ids in tokenizer.encode_batch(texts)]
                        watch.lap(TOKENISE, size)
                    tokens.append(lengths)
                    for record in records:
                        kept.add(record)
                    total = sizes.setdefault(records[0].source, [0, 0, 0])
                    total[0] += len(records)
                    total[1] += size
                    total[2] += int(lengths.sum())
                    held = held_out.setdefault(records[0].source, [0, 0, 0])
                    for text, length in zip(texts, lengths.tolist(), strict=True):
                        if is_held_out(text, self.validation_fraction):
                            held[:] = [held[0] + 1, held[1] + len(text.encode()), held[2] + length]
            rows = kept.num_rows
        np.save(directory / "tokens.npy", np.concatenate([np.zeros(0, np.int64), *tokens]))
        write_json(directory / "count.json", {"documents": rows, "sources": sizes, "held_out": held_out})
        write_json(directory / LEDGER, ledger.to_dict())
        write_json(directory / TIMES, watch.spent)

    def _repeated(self) -> LineCounts | None:
        if self.repeats is None:
            return None
        paths = self.collected.workspace.paths(LINES, self.num_line_parts, FILE)
        return merge_counts([read_counts(path) for path in paths])


def _by_source(batch: list[Record]) -> list[list[int]]:
    """Rows of one source each, in order."""
    groups: dict[str, list[int]] = {}
    for i, record in enumerate(batch):
        groups.setdefault(record.source, []).append(i)
    return list(groups.values())


class _Fates:
    """What the search of copies says of the documents of one shard."""

    def __init__(self, collected: Collected, first: int, last: int) -> None:
        directory = collected.workspace.task(CLUSTER, 0)
        self.first = first
        self.kind, self.jaccard, leader = (
            np.array(np.load(directory / f"{name}.npy", mmap_mode="r")[first:last])
            for name in ("kind", "jaccard", "leader")
        )
        self.origins: dict[int, str] = {}
        wanted = np.unique(leader[self.kind != KEPT])
        bounds = collected.bounds
        for shard in range(collected.num_shards):
            inside = wanted[(wanted >= bounds[shard]) & (wanted < bounds[shard + 1])]
            if len(inside):
                path = collected.workspace.task(COLLECT, shard) / "documents.parquet"
                origins = read_origins(path, (inside - bounds[shard]).tolist())
                self.origins.update(zip(inside.tolist(), origins, strict=True))
        self.leader = leader


@dataclasses.dataclass
class _Pass:
    """The three steps over a batch of one source."""

    ledger: Ledger
    note: Callable[[Any], None]
    fates: _Fates
    repeated: LineCounts | None
    index: ItemIndex | None
    stage: Selecting

    def __call__(self, records: list[Record], numbers: np.ndarray) -> list[Record]:
        records, numbers = self._drop_copies(records, numbers)
        rule = self.stage.repeats
        if self.repeated is not None and rule is not None and records and is_counted(records[0], rule):
            records, numbers = self._drop_lines(records, numbers, self.repeated, rule)
        if self.index is not None and records:
            records = self._drop_contaminated(records, self.index)
        return records

    def _drop_copies(self, records: list[Record], numbers: np.ndarray) -> tuple[list[Record], np.ndarray]:
        account = self._account(records, COPIES)
        rows = numbers - self.fates.first
        kept = self.fates.kind[rows] == KEPT
        for i in np.flatnonzero(~kept).tolist():
            row = rows[i]
            reason = {EXACT_COPY: "exact copy", NEAR_COPY: "near copy"}[int(self.fates.kind[row])]
            value = 1.0 if reason == "exact copy" else float(self.fates.jaccard[row])
            self._remove(account, records[i], COPIES, reason, value, self.fates.origins[int(self.fates.leader[row])])
        return self._keep(account, records, kept), numbers[kept]

    def _drop_lines(
        self, records: list[Record], numbers: np.ndarray, repeated: LineCounts, rule: RepeatsConfig
    ) -> tuple[list[Record], np.ndarray]:
        account = self._account(records, REPEATED)
        dropped = drop_repeated(
            [record.text for record in records],
            numbers,
            repeated,
            unit=rule.unit,
            min_chars=rule.min_chars,
            keep_first=rule.keep_first,
        )
        account.changed += int((dropped.lines_n > 0).sum())
        account.changes += int(dropped.lines_n.sum())
        kept = np.array([bool(text.strip()) for text in dropped.texts])
        for i in np.flatnonzero(~kept).tolist():
            self._remove(account, records[i], REPEATED, NOTHING_LEFT)
        edited = [record._replace(text=text) for record, text in zip(records, dropped.texts, strict=True)]
        return self._keep(account, edited, kept), numbers[kept]

    def _drop_contaminated(self, records: list[Record], index: ItemIndex) -> list[Record]:
        account = self._account(records, CONTAMINATED)
        findings = find_items([record.text for record in records], index)
        worst = findings.first(len(records))
        for i in np.flatnonzero(worst >= 0).tolist():
            found = worst[i]
            item, share = index.names[findings.item[found]], float(findings.share[found])
            reason = f"holds an item of {item.split(':')[0]}"
            self._remove(account, records[i], CONTAMINATED, reason, share, item)
        return self._keep(account, records, worst < 0)

    def _account(self, records: list[Record], step: str) -> StepAccount:
        account = self.ledger.at(records[0].source, step) if records else StepAccount()
        account.documents_in += len(records)
        account.bytes_in += sum(len(record.text.encode()) for record in records)
        return account

    def _keep(self, account: StepAccount, records: list[Record], kept: np.ndarray) -> list[Record]:
        left = [records[i] for i in np.flatnonzero(kept).tolist()]
        account.documents_out += len(left)
        account.bytes_out += sum(len(record.text.encode()) for record in left)
        return left

    def _remove(
        self,
        account: StepAccount,
        record: Record,
        step: str,
        reason: str,
        value: float = math.nan,
        detail: str = "",
    ) -> None:
        note = removal(record, step, reason, value, detail)
        account.remove(reason, sample_of(note))
        self.note(note)
