"""From a config of preference tuning to what its loop reads: answers to prompts as rows, the better ones first."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.batches import rows_at
from jaxlm.data.preferences import RankedRows, judged_rows, ranked_rows
from jaxlm.io.conversations import read_judged, read_rankings
from jaxlm.io.corpora.corpus import open_corpus
from jaxlm.io.json_records import json_records
from jaxlm.io.token_dataset import build_token_dataset
from jaxlm.run.align.answers import Prompt, choose_prompts
from jaxlm.run.align.base import ChatBase, check_answers, check_length, check_vocabulary
from jaxlm.run.align.dpo_config import DpoConfig
from jaxlm.run.align.policy import with_dropout
from jaxlm.run.align.records import BadRecords, open_start, read_split, resolve_steps
from jaxlm.run.devices import cache_root
from jaxlm.run.opening import open_base
from jaxlm.run.prepare import Say
from jaxlm.text.chat.messages import Judged, Ranking, Stepped
from jaxlm.text.tokenizer import Tokenizer
from jaxlm.train.objectives import TEXT_TOKENS
from jaxlm.train.preference_objectives import WITH_REFERENCE


class Preferences(NamedTuple):
    """What preference tuning reads, and its config with all that only the data could tell."""

    config: Any
    """``model``, ``base_step``, ``num_steps`` and ``data.add_bos`` filled in."""
    base: ChatBase
    train: RankedRows
    validation: RankedRows
    prompts: list[Prompt]
    """What is answered as a sample."""
    fingerprint: str

    @property
    def tokenizer(self) -> Tokenizer:
        return self.base.tokenizer


def prepare_preferences(config: DpoConfig, say: Say, *, resumes: bool = False) -> Preferences:
    """Reads and encodes everything. Raises UserError for whatever is wrong in it, with file and record."""
    bad = BadRecords(config.data, say)
    kto = config.pairs.loss == "kto"
    split = read_split(config.data, good_and_bad if kto else read_rankings, lambda one: one.prompt, bad)
    if not kto:
        split = split._make([best_and_worst(one) for one in side] for side in split)
    config, base = open_start(config, texts_of(split.train), resumes=resumes)
    check_length(base, config.data.seq_len)
    config = _with_reference(config, base)
    encode = judged_rows if kto else ranked_rows
    on_bad = None if bad.fails else bad
    train, validation = (encode(base.form, side, seq_len=config.data.seq_len, on_bad=on_bad) for side in split)
    bad.tell()
    if config.text.coef:
        train.arrays[TEXT_TOKENS] = text_rows(config, base, len(train.sources), say)
    what = "judged answers" if kto else "pairs"
    for name, rows in (("train", train), ("validation", validation)):
        say(describe_rows(name, rows, what, config.data.seq_len))
    config = resolved(config, base, len(train.sources))
    held_out = (one.prompt for one in split.validation)
    prompts = choose_prompts(config.sample, base.form, held_out, seq_len=config.data.seq_len)
    return Preferences(config, base, train, validation, prompts, rows_fingerprint(base, train, validation))


def text_rows(config: DpoConfig, base: ChatBase, count: int, say: Say) -> np.ndarray:
    """``count`` stretches of the plain text, int32 [count, seq_len + 1], a function of the seed. Of a text that has
    fewer some come again. Raises UserError for a text that is shorter than one, or that the base cannot read."""
    text, tokenizer, width = config.text, base.tokenizer, config.text.seq_len + 1
    check_length(base, text.seq_len)
    split = build_token_dataset(
        open_corpus(text.corpus, data_dir=cache_root()),
        tokenizer,
        cache_dir=cache_root() / "datasets",
        add_bos=bool(config.data.add_bos) and tokenizer.bos_id is not None,
        add_eos=tokenizer.eos_id is not None,
    ).splits["train"]
    num_places = split.num_tokens // width
    if not num_places:
        raise UserError(f"text.corpus holds {split.num_tokens:,} tokens, less than a row of {width}: add text")
    places = rows_at(np.arange(count), num_places, seed=config.seed, shuffle=True, num_epochs=None) % num_places
    say(f"plain text: {count:,} rows of {text.seq_len} tokens, of {split.num_tokens:,} tokens")
    return np.stack(split.read(places * width, np.full(count, width)))


def _with_reference(config: DpoConfig, base: ChatBase) -> DpoConfig:
    """The config with its reference's step. Raises UserError for a reference that reads other symbols."""
    if config.reference is None:
        if config.base is None and config.pairs.loss in WITH_REFERENCE:
            raise UserError(f"pairs.loss={config.pairs.loss!r} needs a reference: name a base, or a reference")
        return config
    reference = open_base(config.reference, config.reference_step, read_params=config.reference_step is None)
    check_answers(reference, f"reference={config.reference}")
    check_vocabulary(base.tokenizer, reference.tokenizer, f"reference={config.reference}")
    check_length(reference, config.data.seq_len, whose=f"reference={config.reference}'s")
    step = reference.step if config.reference_step is None else config.reference_step
    return dataclasses.replace(config, reference_step=step)


def resolved(config: Any, base: ChatBase, num_rows: int) -> Any:
    """The config with its model and its steps."""
    model = with_dropout(base.model, config.dropout)
    return dataclasses.replace(config, model=model, num_steps=resolve_steps(config, num_rows))


def best_and_worst(ranking: Ranking) -> Ranking:
    """The pair of a ranking's first best and last worst answer; a pair is itself."""
    order = sorted(range(len(ranking.ranks)), key=lambda i: ranking.ranks[i])
    first, last = order[0], order[-1]
    margins = (ranking.margins[first], ranking.margins[last]) if ranking.margins else ()
    answers = (ranking.answers[first], ranking.answers[last])
    return ranking._replace(answers=answers, ranks=(0, 1), margins=margins)


def good_and_bad(path: str, *, on_bad: Any = None) -> list[Judged]:
    """Judged answers; or the best and worst of rankings, as good and bad, where the first record is no judgement."""
    first = next((record for _, record in json_records(path)), {})
    if not first or ("label" in first and "output_1" not in first):  # comparisons have labels too
        return list(read_judged(path, on_bad=on_bad))
    out = []
    for ranking in map(best_and_worst, read_rankings(path, on_bad=on_bad)):
        for answer, good in zip(ranking.answers, (True, False), strict=True):
            out.append(Judged(ranking.prompt, answer, good, ranking.source, ranking.where))
    return out


def texts_of(records: Sequence[Ranking | Judged | Stepped]) -> list[str]:
    """All that is said in them."""

    def answers(one: Ranking | Judged | Stepped) -> Sequence[str]:
        if isinstance(one, Judged):
            return (one.answer,)
        return one.steps if isinstance(one, Stepped) else one.answers

    prompts = [message.content for one in records for message in one.prompt]
    return prompts + [text for one in records for text in answers(one)]


def describe_rows(name: str, rows: RankedRows, what: str, seq_len: int) -> str:
    """One line: how many, and what was too long."""
    long = rows.num_answers_left_out
    cut = f", {long:,} answers of more than {seq_len} tokens left out" if long else ""
    return f"{name}: {len(rows.sources):,} {what}, rows of {rows.arrays['tokens'].shape[-1]}{cut}"


def rows_fingerprint(base: ChatBase, *parts: Any) -> str:
    """sha256 (hex) of the template and of the arrays of all parts (`RankedRows`, `data.step_labels.StepRows`)."""
    digest = hashlib.sha256(base.form.template.source.encode())
    for rows in parts:
        for name in sorted(rows.arrays):
            digest.update(np.ascontiguousarray(rows.arrays[name]).tobytes())
    return digest.hexdigest()
