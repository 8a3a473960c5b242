"""Labelled examples as arrays: texts, pairs of texts or words with tags, one to a row."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.batches import rows_at
from jaxlm.text.tokenizer import Tokenizer


class Example(NamedTuple):
    """One line of a file of labelled data."""

    texts: tuple[str, ...]
    """One text, the two of a pair, or the words of a sentence."""
    labels: tuple[str, ...]
    """The label, or one tag for each word; a number as it is written."""
    where: str
    """File and line, for errors."""


class EncodedRows(NamedTuple):
    """Rows of one width, padded on the right."""

    arrays: dict[str, np.ndarray]
    """``tokens`` and ``segment_ids`` (1, 0 = padding) int32 [n, t]; ``token_types`` (1 = second text) for a pair."""
    first_token: list[list[int]]
    """Where each word begins, for words; else empty."""
    num_cut: int
    """Examples that were too long and lost their end."""


def encode_rows(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], *, seq_len: int, words: bool, token_types: bool
) -> EncodedRows:
    """``<bos> text <eos>``, ``<bos> text <eos> text <eos>``, or the words of a sentence with spaces between, as far as
    the tokenizer has the symbols; cut to ``seq_len`` tokens, of a pair the longer text first.

    Raises:
      UserError: a pair under a tokenizer without <eos>, or a text or word with nothing in it to read.
    """
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    eos = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    if not eos and not words and any(len(parts) > 1 for parts in texts):
        raise UserError(f"a {tokenizer.kind} tokenizer has no <eos> to set two texts apart: use a model with another")
    # All texts in one call: a tokenizer is faster so.
    spaced = [[(" " if words and i else "") + part for i, part in enumerate(parts)] for parts in texts]
    encoded = iter(tokenizer.encode_batch([part for parts in spaced for part in parts]))
    rows, types, first_token, num_cut = [], [], [], 0
    for parts in spaced:
        pieces = [next(encoded).tolist() for _ in parts]
        if words and not all(pieces):
            word = parts[[len(piece) > 0 for piece in pieces].index(False)].removeprefix(" ")
            raise UserError(f"the word {word!r} has no token under this tokenizer, and its tag no place: drop it")
        room = seq_len - len(bos) - (len(eos) if words else len(eos) * len(pieces))
        kept = _cut_words(pieces, room) if words else _cut_texts(pieces, room)
        num_cut += sum(map(len, kept)) < sum(map(len, pieces))
        row = list(bos)
        kinds = [0] * len(row)
        starts = []
        for number, piece in enumerate(kept):
            starts.append(len(row))
            row += piece + ([] if words else eos)
            kinds += [0 if words else number] * (len(row) - len(kinds))
        if words:
            row += eos
            kinds += [0] * len(eos)
        rows.append(row)
        types.append(kinds)
        first_token.append(starts if words else [])
    width = max(map(len, rows), default=0)
    if not width or not all(rows):
        raise UserError("an empty text has no tokens under this tokenizer: remove it from the data")
    arrays = {name: np.zeros((len(rows), width), np.int32) for name in ("tokens", "segment_ids", "token_types")}
    arrays["tokens"][:] = tokenizer.pad_id
    for i, (row, kinds) in enumerate(zip(rows, types, strict=True)):
        arrays["tokens"][i, : len(row)], arrays["token_types"][i, : len(row)] = row, kinds
        arrays["segment_ids"][i, : len(row)] = 1
    if not token_types:
        del arrays["token_types"]
    return EncodedRows(arrays, first_token, num_cut)


def _cut_texts(pieces: list[list[int]], room: int) -> list[list[int]]:
    """The pieces without their ends, so that they fit: one token at a time off the longest, in closed form for one."""
    lengths = [len(piece) for piece in pieces]
    while sum(lengths) > room and max(lengths):
        longest = lengths.index(max(lengths))
        others = max([n for i, n in enumerate(lengths) if i != longest], default=0)
        lengths[longest] -= max(1, min(sum(lengths) - room, lengths[longest] - others))
    return [piece[:length] for piece, length in zip(pieces, lengths, strict=True)]


def _cut_words(pieces: list[list[int]], room: int) -> list[list[int]]:
    """The first words that fit whole."""
    ends = np.cumsum([len(piece) for piece in pieces])
    return pieces[: int(np.searchsorted(ends, room, side="right"))]


def label_arrays(
    labels: Sequence[Sequence[int]] | np.ndarray, rows: EncodedRows, *, words: bool, dtype: str
) -> dict[str, np.ndarray]:
    """``labels`` and ``loss_mask``: [n], or for words [n, t] with each tag at its word's first token."""
    if not words:
        values = np.asarray([label[0] for label in labels], dtype)
        return {"labels": values, "loss_mask": np.ones(len(values), np.float32)}
    shape = rows.arrays["tokens"].shape
    out = {"labels": np.zeros(shape, dtype), "loss_mask": np.zeros(shape, np.float32)}
    for i, (tags, places) in enumerate(zip(labels, rows.first_token, strict=True)):
        out["labels"][i, places], out["loss_mask"][i, places] = tags[: len(places)], 1
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class ExamplePlan:
    """Batches of rows held in memory, as `data.batches.BatchPlan` has them: a function of (seed, batch id)."""

    arrays: dict[str, np.ndarray]
    global_batch_size: int
    seed: int = 0
    shuffle: bool = True
    num_epochs: int | None = None

    @property
    def num_rows(self) -> int:
        return len(self.arrays["tokens"])

    @property
    def num_batches(self) -> int | None:
        """Batches until the data ends, the last one filled up; None = they do not end."""
        return None if self.num_epochs is None else -(-self.num_epochs * self.num_rows // self.global_batch_size)

    def batch(self, batch_id: int) -> dict[str, np.ndarray]:
        """The arrays of a batch. A row past the end of the data is padding that nothing counts."""
        places = np.arange(batch_id * self.global_batch_size, (batch_id + 1) * self.global_batch_size, dtype=np.int64)
        options = {"seed": self.seed, "shuffle": self.shuffle, "num_epochs": self.num_epochs}
        ids = rows_at(places, self.num_rows, **options)
        batch = {name: array[ids % self.num_rows] for name, array in self.arrays.items()}
        for name in ("segment_ids", "loss_mask", "answer_mask"):
            if name in batch:
                batch[name][ids < 0] = 0
        return batch
