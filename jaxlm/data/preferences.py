"""Ranked answers as arrays: [n, k, t], n prompts with k answers each, for reward models and preference losses.

A prompt and one answer are a row as a conversation has them; only the answer's tokens count, whatever the assistant has
said before. `data.examples.ExamplePlan` makes batches of these arrays, a function of (seed, batch id).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Conversation, Message, Ranking


class RankedRows(NamedTuple):
    """What `ranked_rows` made."""

    arrays: dict[str, np.ndarray]
    """``tokens``, ``targets`` (the next token), ``segment_ids`` (1, 0 = padding on the right) int32 and ``loss_mask``
    f32 [n, k, t]; ``ranks`` int32 and ``answer_mask`` f32 (0 = no such answer) [n, k]; ``margin`` f32 [n]."""
    sources: list[str]
    """Of each prompt, for scores by source."""
    num_left_out: int
    """Rankings of which fewer than two ranks were left within the length."""
    num_answers_left_out: int
    """Answers that were too long, and were left out of their ranking: half an answer is another answer."""


def ranked_rows(form: ChatFormat, rankings: Sequence[Ranking], *, seq_len: int) -> RankedRows:
    """Rows of at most ``seq_len`` predictions, the best answer of each prompt first.

    Raises UserError naming the record where a prompt leaves no room to answer, and where no ranking is left.
    """
    lists: list[tuple[Ranking, list[tuple[int, np.ndarray, int]]]] = []
    num_left_out = num_answers_left_out = 0
    for ranking in rankings:
        start = len(form.prompt(ranking.prompt, ranking.where))
        if start > seq_len:
            raise UserError(
                f"{ranking.where}: the prompt has {start} tokens and leaves no room to answer in seq_len={seq_len}: "
                "raise it or shorten the prompt"
            )
        rows = []
        for rank, answer in sorted(zip(ranking.ranks, ranking.answers, strict=True), key=lambda pair: pair[0]):
            chat = Conversation((*ranking.prompt, Message("assistant", answer)), ranking.where)
            tokens = form.encode(chat).tokens
            if len(tokens) > seq_len + 1:
                num_answers_left_out += 1
            else:
                rows.append((rank, tokens, start))
        if len({rank for rank, _, _ in rows}) < 2:
            num_left_out += 1
        else:
            lists.append((ranking, rows))
    if not lists:
        raise UserError(f"none of {num_left_out} rankings fits into seq_len={seq_len} with two answers: raise it")
    n, k = len(lists), max(len(rows) for _, rows in lists)
    t = max(len(tokens) for _, rows in lists for _, tokens, _ in rows) - 1
    arrays = {name: np.zeros((n, k, t), np.int32) for name in ("tokens", "targets", "segment_ids")}
    arrays["tokens"][:], arrays["targets"][:] = form.tokenizer.pad_id, form.tokenizer.pad_id
    arrays |= {"loss_mask": np.zeros((n, k, t), np.float32), "answer_mask": np.zeros((n, k), np.float32)}
    arrays |= {"ranks": np.zeros((n, k), np.int32), "margin": np.array([r.margin for r, _ in lists], np.float32)}
    for i, (_, rows) in enumerate(lists):
        for j, (rank, tokens, start) in enumerate(rows):
            end = len(tokens) - 1
            arrays["tokens"][i, j, :end], arrays["targets"][i, j, :end] = tokens[:-1], tokens[1:]
            arrays["segment_ids"][i, j, :end], arrays["loss_mask"][i, j, start - 1 : end] = 1, 1
            arrays["answer_mask"][i, j], arrays["ranks"][i, j] = 1, rank
    return RankedRows(arrays, [ranking.source for ranking, _ in lists], num_left_out, num_answers_left_out)
