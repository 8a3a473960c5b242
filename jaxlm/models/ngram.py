"""N-gram language models: a vocabulary's unigrams and one hash table for each higher order, scored with whole arrays.

An n-gram is found by (row of its context in the table below, word), so each order costs one search a token. How the
orders are joined is the smoothing's rule, with h the longest history, n - 1 words or back to the start of the sequence:

- ``kneser-ney``, ``ml`` and ``imported`` (ARPA files): p(w | h) if h w is known, else backoff(h) p(w | shorter h); an
  unknown context has backoff 1.
- ``backoff`` (stupid backoff, Brants et al. 2007): the same with the constant alpha for every order given up, seen or
  not. A score, not a probability.
- ``add-k``: (count + k) / (total + k V) after the longest context seen in training; shorter ones are not mixed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.models.ngram_table import EMPTY, pack, search, word_bits

CHUNK = 1 << 16
"""Tokens scored at once: what they touch stays in the cache."""


@dataclass(frozen=True)
class NgramModel:
    """A fitted model. Its arrays may lie in files; they are only read."""

    config: NgramConfig
    bos_id: int
    """The start symbol: a context, never predicted. May be vocab_size - 1, an id that no tokenizer has."""
    eos_id: int | None
    unk_id: int | None
    unigrams: np.ndarray
    """Log-probability and log backoff of each id, f32 [v, 2]."""
    tables: tuple[np.ndarray, ...]
    """Rows of the orders 2 .. order, uint64 [r, 2 or 3]: key, and log-probability and log backoff as two f32."""
    facts: dict[str, Any]
    """num_grams of each order; discounts."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, the start symbol's among them."""
        return len(self.unigrams)

    @property
    def order(self) -> int:
        """The longest n-gram."""
        return len(self.tables) + 1

    def num_contexts(self, n: int) -> int:
        """Numbers that an n-gram of order ``n`` may have as a context of the next order."""
        return self.vocab_size if n == 1 else len(self.tables[n - 2])

    def find(self, n: int, context: np.ndarray, word: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, found, and f32 [m, 2] of the n-grams (context number int64 [m], word int64 [m]).

        Rows and values have no meaning where an n-gram is not found."""
        rows = self.tables[n - 2]
        slots, found, payload = search(rows, pack(context, word, rows.shape[1] - 1, self.vocab_size))
        return slots, found, payload.view(np.float32).reshape(-1, 2)

    def score(self, tokens: np.ndarray) -> np.ndarray:
        """Log-probability of each token given those before it in its sequence, f32 [t]; 0 for start symbols.

        Args:
          tokens: ids [t] of whole sequences behind one another, each behind ``bos_id``. What stands before the first
            start symbol has no history.
        """
        out = np.empty(len(tokens), np.float32)
        begin = 0
        while begin < len(tokens):
            # A chunk begins order - 1 tokens early, for the history; those are not written.
            early = max(0, begin - (self.order - 1))
            end = min(len(tokens), begin + CHUNK)
            out[begin:end] = self._score_chunk(np.asarray(tokens[early:end]))[begin - early :]
            begin = end
        return out

    def _score_chunk(self, tokens: np.ndarray) -> np.ndarray:
        stupid, direct = self.config.smoothing == "backoff", self.config.smoothing == "add-k"
        given_up = np.float32(np.log(self.config.alpha))
        words = tokens.astype(np.int64)
        starts = words == self.bos_id
        goes_on = np.append(~starts[1:], False)
        unigrams = self.unigrams.take(words, axis=0)
        logprobs = unigrams[:, 0].copy()
        reached = np.ones(len(words), bool)  # as many tokens of history as the order has
        # Positions whose history is a known context, and that context's number and weight.
        before = np.flatnonzero(goes_on)
        at, number, weight = before + 1, words.take(before), unigrams[:, 1].take(before)
        for n in range(2, self.order + 1):
            slots, found, values = self.find(n, number, words.take(at))
            old = logprobs.take(at)
            if stupid:
                reached = np.append(False, reached[:-1] & goes_on[:-1])
                logprobs[reached] += given_up
                old += given_up
            elif direct:
                old = np.where(np.isnan(weight), old, weight)
            else:
                old += weight
            np.copyto(old, values[:, 0], where=found)
            logprobs[at] = old
            kept = np.flatnonzero(found & goes_on.take(at))
            at, number, weight = at.take(kept) + 1, slots.take(kept), values[:, 1].take(kept)
        logprobs[starts] = 0.0
        return logprobs

    def log_distribution(self, history: Sequence[int]) -> np.ndarray:
        """Log-probability of every id after a history of ids (its newest order - 1 count), f32 [v].

        ``-inf`` for the start symbol. Under stupid backoff the scores, which do not sum to 1.
        """
        words = np.arange(self.vocab_size)
        logprobs = self.unigrams[:, 0].copy()
        contexts = self._contexts(history)
        for n, (number, weight) in enumerate(contexts, start=2):
            if number is None:
                if self.config.smoothing == "backoff":
                    logprobs += np.float32(np.log(self.config.alpha))
                continue
            _, found, values = self.find(n, np.full(self.vocab_size, number), words)
            if self.config.smoothing == "add-k":
                rest = logprobs if np.isnan(weight) else np.full_like(logprobs, weight)
            else:
                rest = logprobs + np.float32(weight)
            logprobs = np.where(found, values[:, 0], rest)
        logprobs[self.bos_id] = -np.inf
        return logprobs

    def _contexts(self, history: Sequence[int]) -> list[tuple[int | None, float]]:
        """Number and weight of the newest 1, 2, .. order - 1 ids, as contexts; a None number is unknown."""
        newest = list(history)[-(self.order - 1) :] if self.order > 1 else []
        if self.bos_id in newest:
            newest = newest[len(newest) - 1 - newest[::-1].index(self.bos_id) :]
        contexts: list[tuple[int | None, float]] = []
        for size in range(1, len(newest) + 1):
            ids = newest[-size:]
            number: int | None = ids[0]
            weight = float(self.unigrams[ids[0], 1])
            for n, word in enumerate(ids[1:], start=2):
                slots, found, values = self.find(n, np.array([number]), np.array([word]))
                if not found[0]:
                    number = None
                    break
                number, weight = int(slots[0]), float(values[0, 1])
            contexts.append((number, weight))
        return contexts

    def num_rows_used(self, n: int) -> int:
        """The n-grams of order ``n`` >= 2 in the model, those added to an ARPA file's included."""
        return int(np.count_nonzero(self.tables[n - 2][:, 0] != EMPTY))

    def walk(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number and log backoff of n-grams int64 [m, n] as contexts: int64 [m] (-1 = not in the model), f32 [m]."""
        number, weight = ids[:, 0].copy(), self.unigrams[ids[:, 0], 1].copy()
        for n in range(2, ids.shape[1] + 1):
            known = np.flatnonzero(number >= 0)
            slots, found, values = self.find(n, number[known], ids[known, n - 1])
            number[known], weight[known] = np.where(found, slots, -1), values[:, 1]
        return number, weight

    def last_logprob(self, ids: np.ndarray) -> np.ndarray:
        """Log-probability of the last word of each n-gram int64 [m, n] after its others, f32 [m]; orders joined by
        backing off."""
        logprobs = self.unigrams[ids[:, -1], 0].copy()
        for size in range(1, ids.shape[1]):
            number, weight = self.walk(ids[:, -1 - size : -1])
            known = np.flatnonzero(number >= 0)
            _, found, values = self.find(size + 1, number[known], ids[known, -1])
            logprobs[known] = np.where(found, values[:, 0], logprobs[known] + weight[known])
        return logprobs

    def grams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """All n-grams of order ``n`` in the order of their ids, int64 [g, n], and their f32 [g, 2]."""
        if n == 1:
            return np.arange(self.vocab_size)[:, None], np.asarray(self.unigrams)
        _, words, values = self._unpacked(n)
        order = np.lexsort(words.T[::-1])
        return words[order], values[order]

    def _unpacked(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows in use, their words int64 [g, n] and their f32 [g, 2]."""
        rows = np.asarray(self.tables[n - 2])
        slots = np.flatnonzero(rows[:, 0] != EMPTY)
        used = rows[slots]
        if rows.shape[1] == 3:
            context, word = used[:, 0].astype(np.int64), used[:, 1].astype(np.int64)
        else:
            bits = np.uint64(word_bits(self.vocab_size))
            context = (used[:, 0] >> bits).astype(np.int64)
            word = (used[:, 0] & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
        if n == 2:
            before = context[:, None]
        else:
            below, words, _ = self._unpacked(n - 1)
            before = words[np.searchsorted(below, context)]
        return (
            slots,
            np.concatenate([before, word[:, None]], axis=1),
            used[:, -1].copy().view(np.float32).reshape(-1, 2),
        )
