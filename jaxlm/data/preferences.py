"""Ranked answers as arrays: [n, k, t], n prompts with k answers each, for reward models and preference losses.

A prompt and one answer are a row as a conversation has them; only the answer's tokens count, whatever the assistant has
said before. `data.examples.ExamplePlan` makes batches of these arrays, a function of (seed, batch id).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.text.chat.encoding import ChatFormat, EncodedChat
from jaxlm.text.chat.messages import Judged, Message, Ranking

OnBad = Callable[[UserError], None]
_RANKED = {"ranks": np.int32, "margins": np.float32}


class RankedRows(NamedTuple):
    """What `ranked_rows` or `judged_rows` made."""

    arrays: dict[str, np.ndarray]
    """``tokens``, ``targets`` (the next token), ``segment_ids`` (1, 0 = padding on the right) int32 and ``loss_mask``
    f32 [n, k, t]; ``ranks`` int32, ``margins`` and ``answer_mask`` f32 (0 = no such answer) [n, k]. Of judged answers
    ``desirable`` f32 [n] in place of ranks and margins."""
    sources: list[str]
    """Of each prompt, for scores by source."""
    num_left_out: int
    """Rankings of which fewer than two ranks were left within the length."""
    num_answers_left_out: int
    """Answers that were too long, and were left out of their ranking: half an answer is another answer."""


def ranked_rows(
    form: ChatFormat, rankings: Sequence[Ranking], *, seq_len: int, on_bad: OnBad | None = None
) -> RankedRows:
    """Rows of at most ``seq_len`` predictions, the best answer of each prompt first.

    ``on_bad`` None: a prompt that leaves no room to answer, or that the template refuses, is a UserError naming the
    record. Else it is called with that error, and the record is passed over. Raises UserError where no ranking is left.
    """
    lists: list[tuple[Ranking, list[_Answer]]] = []
    num_left_out = num_answers_left_out = 0
    for ranking in rankings:
        try:
            margins = ranking.margins or (0.0,) * len(ranking.answers)
            found = [
                (rank, margin, _answer(form, ranking.prompt, answer, seq_len, ranking.where))
                for rank, margin, answer in sorted(
                    zip(ranking.ranks, margins, ranking.answers, strict=True), key=lambda one: one[0]
                )
            ]
        except UserError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        rows = [_Answer(*made, rank, margin) for rank, margin, made in found if made is not None]
        num_answers_left_out += len(found) - len(rows)
        if len({row.rank for row in rows}) < 2:
            num_left_out += 1
        else:
            lists.append((ranking, rows))
    if not lists:
        raise UserError(f"none of {num_left_out} rankings fits into seq_len={seq_len} with two answers: raise it")
    arrays = _stack([rows for _, rows in lists], form.tokenizer.pad_id)
    arrays |= {name: np.zeros(arrays["answer_mask"].shape, kind) for name, kind in _RANKED.items()}
    for i, (_, rows) in enumerate(lists):
        arrays["ranks"][i, : len(rows)] = [row.rank for row in rows]
        arrays["margins"][i, : len(rows)] = [row.margin for row in rows]
    return RankedRows(arrays, [ranking.source for ranking, _ in lists], num_left_out, num_answers_left_out)


def judged_rows(form: ChatFormat, judged: Sequence[Judged], *, seq_len: int, on_bad: OnBad | None = None) -> RankedRows:
    """Single answers as rows [n, 2, t]: the answer, and in second place the answer of the next record that is to
    another prompt, set behind this record's prompt, for KTO's reference point. ``desirable`` f32 [n], 1 = good.

    A second place that nothing fits into has ``answer_mask`` 0. ``on_bad`` as for `ranked_rows`. Raises UserError where
    all answers are to one prompt, or none fits.
    """
    kept: list[tuple[Judged, _Answer]] = []
    num_left_out = 0
    for one in judged:
        try:
            made = _answer(form, one.prompt, one.answer, seq_len, one.where)
        except UserError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        if made is None:
            num_left_out += 1
        else:
            kept.append((one, _Answer(*made)))
    if not kept:
        raise UserError(f"none of {num_left_out} answers fits into seq_len={seq_len}: raise it")
    if len({one.prompt for one, _ in kept}) < 2:
        raise UserError("all answers are to one prompt, and KTO compares with the answers to others: give more prompts")
    lists = []
    for i, (one, row) in enumerate(kept):
        others = (kept[(i + step) % len(kept)][0] for step in range(1, len(kept)))
        other = next(other for other in others if other.prompt != one.prompt)
        made = _answer(form, one.prompt, other.answer, seq_len, one.where)
        lists.append([row] if made is None else [row, _Answer(*made)])
    arrays = _stack(lists, form.tokenizer.pad_id, width=2)
    arrays["desirable"] = np.array([one.desirable for one, _ in kept], np.float32)
    return RankedRows(arrays, [one.source for one, _ in kept], 0, num_left_out)


class _Answer(NamedTuple):
    """A prompt with one answer."""

    tokens: np.ndarray
    loss_mask: np.ndarray
    """1 = a token of the answer."""
    rank: int = 0
    margin: float = 0.0


def _answer(form: ChatFormat, prompt: Sequence[Message], answer: str, seq_len: int, where: str) -> EncodedChat | None:
    """Tokens and mask up to the answer's end symbol, as an answer is drawn, or None where they are more than
    ``seq_len + 1``. Raises UserError for a prompt that leaves no room."""
    chat = form.encode_answer(prompt, answer, where)
    start = int(np.flatnonzero(chat.loss_mask)[0])
    if start > seq_len:
        raise UserError(
            f"{where}: the prompt has {start} tokens and leaves no room to answer in seq_len={seq_len}: "
            "raise it or shorten the prompt"
        )
    return None if len(chat.tokens) > seq_len + 1 else chat


def _stack(lists: Sequence[Sequence[_Answer]], pad_id: int, width: int | None = None) -> dict[str, np.ndarray]:
    """Answers to prompts as arrays [n, k, t]; ``width``: k, by default that of the longest list."""
    n, k = len(lists), width or max(map(len, lists))
    t = max(len(row.tokens) for rows in lists for row in rows) - 1
    arrays = {name: np.zeros((n, k, t), np.int32) for name in ("tokens", "targets", "segment_ids")}
    arrays["tokens"][:], arrays["targets"][:] = pad_id, pad_id
    arrays |= {"loss_mask": np.zeros((n, k, t), np.float32), "answer_mask": np.zeros((n, k), np.float32)}
    for i, rows in enumerate(lists):
        for j, (tokens, loss_mask, *_) in enumerate(rows):
            end = len(tokens) - 1
            arrays["tokens"][i, j, :end], arrays["targets"][i, j, :end] = tokens[:-1], tokens[1:]
            arrays["segment_ids"][i, j, :end], arrays["loss_mask"][i, j, :end] = 1, loss_mask[1:]
            arrays["answer_mask"][i, j] = 1
    return arrays
