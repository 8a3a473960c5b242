"""Conversations as a stream of tokens with a mask of its own: what packing and batches need to train on them.

The stream is a `data.rows.TokenSource`, so that rows, epochs and batches are those of pretraining, a function of (seed,
cursor). Packed by best fit, conversations stand side by side and no position attends to another's.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.text.chat.encoding import EncodedChat


class ConversationSource:
    """Encoded conversations laid end to end, in memory: 5 bytes a token.

    Args:
      tokens: int32 [n].
      loss_mask: uint8 [n], 1 = a token that the model must say.
      doc_offsets: int64 [conversations + 1], where each begins.
    """

    def __init__(self, tokens: np.ndarray, loss_mask: np.ndarray, doc_offsets: np.ndarray):
        if len(tokens) != len(loss_mask) or doc_offsets[-1] != len(tokens):
            raise ValueError(f"{len(tokens)} tokens, {len(loss_mask)} of the mask, offsets up to {doc_offsets[-1]}")
        self.tokens = np.asarray(tokens, np.int32)
        self.loss_mask = np.asarray(loss_mask, np.uint8)
        self.doc_offsets = np.asarray(doc_offsets, np.int64)
        self.num_tokens = len(self.tokens)

    @property
    def num_counted(self) -> int:
        """Tokens that a pass over all conversations learns to say. A first token is never predicted."""
        first = self.loss_mask[self.doc_offsets[:-1][np.diff(self.doc_offsets) > 0]]
        return int(self.loss_mask.sum(dtype=np.int64) - first.sum(dtype=np.int64))

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Slices of the tokens, int32."""
        return self._slices(self.tokens, starts, lengths)

    def read_loss_mask(self, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """The same slices of the mask, uint8."""
        return self._slices(self.loss_mask, starts, lengths)

    @staticmethod
    def _slices(array: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        ends = (starts + lengths).tolist()
        return [array[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]


class Laid(NamedTuple):
    """What `lay_out` made of the conversations."""

    source: ConversationSource
    num_cut: int
    """Conversations that lost their end."""
    num_left_out: int
    """Conversations whose first answer begins beyond the limit."""


def lay_out(chats: Iterable[EncodedChat], *, seq_len: int) -> Laid:
    """Conversations of at most ``seq_len + 1`` tokens, ``seq_len`` predictions, one after the other.

    A longer one loses its end, never its beginning: a row that begins in the middle would have the model answer what it
    has not read. One whose answers all lie beyond the limit is left out.

    Raises UserError where none is left.
    """
    tokens, masks, num_cut, num_left_out = [], [], 0, 0
    for chat in chats:
        kept = chat.loss_mask[: seq_len + 1]
        if not kept[1:].any():
            num_left_out += 1
            continue
        num_cut += len(kept) < len(chat.tokens)
        tokens.append(chat.tokens[: seq_len + 1])
        masks.append(kept)
    if not tokens:
        raise UserError(
            f"none of {num_left_out} conversations has an answer within seq_len={seq_len} tokens: raise it, or shorten "
            "the prompts"
        )
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in tokens])]).astype(np.int64)
    return Laid(ConversationSource(np.concatenate(tokens), np.concatenate(masks), offsets), num_cut, num_left_out)
