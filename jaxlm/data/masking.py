"""Masked rows for encoders: which tokens are to be predicted, and what stands in their place (Devlin et al. 2019).

A pure function of (seed, row id, place in the row), by hashing: a row of epoch e has an id of its own, so the masks
are new in every epoch, and the same on any number of hosts and after any resume.
"""

import dataclasses

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose
from jaxlm.data.permutation import mix_array, mix_key
from jaxlm.text.tokenizer import MASK, Tokenizer
from jaxlm.text.word_edges import WordEdges, word_edges

EVAL_STREAM = 1
"""Masks of an evaluation: not those of training, and the same whatever the run's seed."""


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """How an encoder's rows are masked while pretraining. Read where the model is an encoder."""

    rate: float = 0.15
    """Share of the tokens that are to be predicted; reserved symbols never are."""
    mask_share: float = 0.8
    """Of these, the share that <mask> stands for."""
    random_share: float = 0.1
    """Of these, the share that a random token stands for; the rest stay as they are."""
    whole_words: bool = False
    """Choose words rather than tokens, each with all its tokens."""

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"masking.rate={self.rate} is outside (0, 1): 0.15 is usual")
        for name in ("mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"masking.{name}={getattr(self, name)} is outside [0, 1]")
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"masking.mask_share={self.mask_share} and random_share={self.random_share} are together more than 1: "
                "0.8 and 0.1 are usual"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Masking:
    """``masking(batch, row_ids)``: the rows with tokens hidden. A `data.batches.Transform`.

    In: ``tokens`` as they are, ``targets`` the same (rows of shift 0), ``loss_mask`` 1 on all that is no padding. Out:
    ``tokens`` corrupted, ``targets`` untouched, ``loss_mask`` 1 at the chosen places alone.
    """

    config: MaskingConfig
    mask_id: int
    ordinary_v: np.ndarray
    """bool [v]: what may be chosen and drawn; False for reserved symbols."""
    edges: WordEdges | None
    """Needed for whole words."""
    key: int

    def __call__(self, batch: dict[str, np.ndarray], row_ids: np.ndarray) -> dict[str, np.ndarray]:
        tokens_nt = batch["tokens"]
        chosen_nt = self._draw(row_ids, tokens_nt.shape, 0)
        if self.config.whole_words:
            chosen_nt = np.take_along_axis(chosen_nt, self._word_starts(batch), axis=1)
        chosen_nt = (chosen_nt < self.config.rate) & (batch["loss_mask"] > 0) & self.ordinary_v[tokens_nt]
        fate_nt = self._draw(row_ids, tokens_nt.shape, 1)
        ordinary = np.flatnonzero(self.ordinary_v)
        drawn_nt = ordinary[(self._draw(row_ids, tokens_nt.shape, 2) * len(ordinary)).astype(np.int64)]
        mask_share, changed_share = self.config.mask_share, self.config.mask_share + self.config.random_share
        out_nt = np.where(chosen_nt & (fate_nt < changed_share), drawn_nt, tokens_nt)
        out_nt = np.where(chosen_nt & (fate_nt < mask_share), self.mask_id, out_nt)
        return batch | {"tokens": out_nt.astype(np.int32), "loss_mask": chosen_nt.astype(np.float32)}

    def _draw(self, row_ids: np.ndarray, shape: tuple[int, ...], number: int) -> np.ndarray:
        """Uniform in [0, 1), float64, of the rows' shape; ``number`` names one of several independent draws."""
        row_keys = mix_array(mix_key(self.key, number), np.asarray(row_ids, np.int64))
        places = mix_array(mix_key(self.key, number, 1), np.arange(shape[1]))
        return (mix_array(0, row_keys[:, None] ^ places[None, :]) >> np.uint64(11)) / float(1 << 53)

    def _word_starts(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Where the word of each token begins, int64 [n, t]. No word reaches over a segment."""
        if self.edges is None:
            raise ValueError("whole words need the tables of text.word_edges")
        tokens_nt = batch["tokens"]
        starts_nt = self.edges.begins_v[tokens_nt]
        starts_nt[:, 1:] |= self.edges.ends_v[tokens_nt[:, :-1]]
        starts_nt[:, 0] = True
        if "segment_ids" in batch:
            starts_nt[:, 1:] |= np.diff(batch["segment_ids"], axis=1) != 0
        places = np.where(starts_nt, np.arange(tokens_nt.shape[1]), 0)
        return np.maximum.accumulate(places, axis=1)


def make_masking(config: MaskingConfig, tokenizer: Tokenizer, *, seed: int, evaluation: bool = False) -> Masking:
    """The masks of a run's training rows, or those of its evaluations, which no seed changes.

    Raises:
      UserError: the tokenizer has no <mask>.
    """
    mask_id = tokenizer.special_tokens.get(MASK)
    if mask_id is None:
        raise UserError(
            f"a {tokenizer.kind} tokenizer has no {MASK}, and an encoder learns from masked text: "
            "set tokenizer.kind to unigram, bpe or byte"
        )
    ordinary_v = np.ones(tokenizer.vocab_size, bool)
    ordinary_v[list(tokenizer.special_tokens.values())] = False
    key = mix_key(0, int(Purpose.MASK), EVAL_STREAM) if evaluation else mix_key(seed, int(Purpose.MASK), 0)
    return Masking(config, mask_id, ordinary_v, word_edges(tokenizer) if config.whole_words else None, key)
