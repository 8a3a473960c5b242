"""From a reward model's config to what its loop reads: rankings, or answers in labelled steps, as rows."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxlm.data.preferences import RankedRows, ranked_rows
from jaxlm.data.step_labels import StepRows, step_rows
from jaxlm.io.conversations import read_rankings, read_steps
from jaxlm.run.align.base import ChatBase, check_length
from jaxlm.run.align.dpo_data import resolved, rows_fingerprint, texts_of
from jaxlm.run.align.records import BadRecords, open_start, read_split
from jaxlm.run.align.reward_config import RewardModelConfig
from jaxlm.run.prepare import Say
from jaxlm.text.tokenizer import Tokenizer


class RewardData(NamedTuple):
    """What a reward model's run reads, and its config with all that only the data could tell."""

    config: RewardModelConfig
    """``model``, ``base_step``, ``num_steps``, ``data.add_bos`` and ``reward.ties`` filled in."""
    base: ChatBase
    train: RankedRows | StepRows
    validation: RankedRows | StepRows
    fingerprint: str

    @property
    def tokenizer(self) -> Tokenizer:
        return self.base.tokenizer


def prepare_reward_data(config: RewardModelConfig, say: Say, *, resumes: bool = False) -> RewardData:
    """Reads and encodes everything. Raises UserError for whatever is wrong in it, with file and record."""
    bad = BadRecords(config.data, say)
    steps = config.reward.of == "steps"
    split = read_split(config.data, read_steps if steps else read_rankings, lambda one: one.prompt, bad)
    config, base = open_start(config, texts_of(split.train), resumes=resumes)
    seq_len = config.data.seq_len
    check_length(base, seq_len + 1)
    encode = step_rows if steps else ranked_rows
    on_bad = None if bad.fails else bad
    train, validation = (encode(base.form, side, seq_len=seq_len, on_bad=on_bad) for side in split)
    bad.tell()
    for name, rows in (("train", train), ("validation", validation)):
        long = rows.num_answers_left_out if isinstance(rows, RankedRows) else rows.num_left_out
        cut = f", {long:,} answers of more than {seq_len} tokens left out" if long else ""
        what = "answers in steps" if steps else f"rankings of up to {rows.arrays['tokens'].shape[1]}"
        say(f"{name}: {len(rows.sources):,} {what}, rows of {rows.arrays['tokens'].shape[-1]}{cut}")
    if not steps and config.reward.ties is None:
        ties = has_ties(train.arrays["ranks"], train.arrays["answer_mask"])
        config = dataclasses.replace(config, reward=dataclasses.replace(config.reward, ties=ties))
    config = resolved(config, base, len(train.sources))
    return RewardData(config, base, train, validation, rows_fingerprint(base, train, validation))


def has_ties(ranks_nk: np.ndarray, mask_nk: np.ndarray) -> bool:
    """Whether two answers to one prompt have one rank."""
    return any(len(set(ranks[mask > 0])) < (mask > 0).sum() for ranks, mask in zip(ranks_nk, mask_nk, strict=True))
