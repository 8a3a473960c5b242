"""Answers in labelled steps as rows, for process-reward models: the label of a step stands at its last token."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Message, Stepped

STEP_END = "\n"
"""What ends a step."""


class StepRows(NamedTuple):
    """What `step_rows` made."""

    arrays: dict[str, np.ndarray]
    """``tokens`` and ``segment_ids`` (1, 0 = padding on the right) int32, ``labels`` and ``loss_mask`` (1 = the last
    token of a step) f32, [n, t]."""
    sources: list[str]
    num_left_out: int
    """Answers that were too long; half of one would be another."""


def encode_steps(
    form: ChatFormat, prompt: Sequence[Message], steps: Sequence[str], where: str
) -> tuple[list[int], list[int]]:
    """The ids of a prompt with an answer in steps, each ended by a line break, and the place of each step's last id. No
    token reaches over a step's border."""
    ids, ends = list(form.prompt(prompt, where)), []
    for step in steps:
        ids += form.continued(step + STEP_END)
        ends.append(len(ids) - 1)
    return ids, ends


def step_rows(
    form: ChatFormat,
    answers: Sequence[Stepped],
    *,
    seq_len: int,
    on_bad: Callable[[UserError], None] | None = None,
) -> StepRows:
    """Rows of at most ``seq_len`` tokens.

    ``on_bad`` None: what the template refuses is a UserError naming the record; else it is called with that error.
    Raises UserError where no answer fits.
    """
    rows: list[tuple[Stepped, list[int], list[int]]] = []
    num_left_out = 0
    for one in answers:
        try:
            ids, ends = encode_steps(form, one.prompt, one.steps, one.where)
        except UserError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        if len(ids) > seq_len:
            num_left_out += 1
        else:
            rows.append((one, ids, ends))
    if not rows:
        raise UserError(f"none of {num_left_out} answers in steps fits into seq_len={seq_len}: raise it")
    n, t = len(rows), max(len(ids) for _, ids, _ in rows)
    arrays = {"tokens": np.full((n, t), form.tokenizer.pad_id, np.int32), "segment_ids": np.zeros((n, t), np.int32)}
    arrays |= {name: np.zeros((n, t), np.float32) for name in ("labels", "loss_mask")}
    for i, (one, ids, ends) in enumerate(rows):
        arrays["tokens"][i, : len(ids)], arrays["segment_ids"][i, : len(ids)] = ids, 1
        arrays["labels"][i, ends], arrays["loss_mask"][i, ends] = one.labels, 1
    return StepRows(arrays, [one.source for one, _, _ in rows], num_left_out)
