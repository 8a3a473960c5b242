"""N-gram language models: a vocabulary's unigrams and one hash table for each higher order, scored with whole arrays.

An n-gram is found by (row of its context in the table below, word), so each order costs one search a token. How the
orders are joined is the smoothing's rule, with h the longest history, n - 1 words or back to the start of the sequence:

- ``kneser-ney``, ``ml`` and ARPA files: p(w | h) if h w is known, else backoff(h) p(w | shorter h); an unknown context
  has backoff 1.
- ``backoff`` (stupid backoff, Brants et al. 2007): the same with the constant alpha for every order given up, seen or
  not. A score, not a probability.
- ``add-k``: (count + k) / (total + k V) after the longest context seen in training; shorter ones are not mixed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.models.ngram_counts import (
    KEY_BITS,
    Allocate,
    Grams,
    Sorter,
    count_ngrams,
    join_sequences,
    sort_in_memory,
)
from jaxlm.models.ngram_estimate import Estimate, NgramConfig, estimate
from jaxlm.models.ngram_table import EMPTY, make_rows, search

__all__ = ["NgramConfig", "NgramModel", "build_model", "fit_ngram", "fit_tokens"]

CHUNK = 1 << 16
"""Tokens scored at once: what they touch stays in the cache."""

AllocateRows = Callable[[tuple[int, int], type], np.ndarray]


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
        """Rows (-1 = absent), found, and f32 [m, 2] of the n-grams (context number int64 [m], word int64 [m])."""
        rows = self.tables[n - 2]
        slots, found, payload = search(rows, pack(context, word, rows.shape[1] - 1, self.vocab_size))
        return slots, found, payload.view(np.float32).reshape(-1, 2)

    def score(self, tokens: np.ndarray, *, count_first: bool = False) -> np.ndarray:
        """Log-probability of each token given those before it in its sequence, f32 [t]; 0 for start symbols.

        Args:
          tokens: ids [t] of whole sequences behind one another, each behind ``bos_id``. What stands before the first
            start symbol has no history.
          count_first: unused places are NaN instead of 0 where False is not wanted by a caller that counts.
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
        starts = tokens == self.bos_id
        stupid, direct = self.config.smoothing == "backoff", self.config.smoothing == "add-k"
        given_up = np.float32(np.log(self.config.alpha))
        unigrams = self.unigrams[tokens]
        logprobs = unigrams[:, 0].copy()
        # number and weight of the n-gram that ends at each position, as a context for the next
        number, weight = tokens.astype(np.int64), unigrams[:, 1].copy()
        known = np.ones(len(tokens), bool)
        reach = np.ones(len(tokens), bool) if stupid else known
        for n in range(2, self.order + 1):
            after = np.flatnonzero(known[:-1] & ~starts[1:])
            at = after + 1
            slots, found, values = self.find(n, number[after], tokens[at].astype(np.int64))
            if stupid:
                reach[1:] = reach[:-1] & ~starts[1:]
                reach[0] = False
                logprobs[reach] += given_up
                logprobs[at[found]] = values[found, 0]
            elif direct:
                floor = weight[after]
                logprobs[at] = np.where(found, values[:, 0], np.where(np.isnan(floor), logprobs[at], floor))
            else:
                logprobs[at] = np.where(found, values[:, 0], logprobs[at] + weight[after])
            if n < self.order:
                known = np.zeros(len(tokens), bool)
                known[at] = found
                number[at], weight[at] = slots, values[:, 1]
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

    def grams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """All n-grams of order ``n`` in the order of their ids, int64 [g, n], and their f32 [g, 2]."""
        if n == 1:
            return np.arange(self.vocab_size)[:, None], np.asarray(self.unigrams)
        slots, words, values = self._unpacked(n)
        del slots
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
        return slots, np.concatenate([before, word[:, None]], axis=1), used[:, -1].copy().view(np.float32).reshape(-1, 2)


def word_bits(vocab_size: int) -> int:
    """Bits of an id in a packed key."""
    return max(1, (vocab_size - 1).bit_length())


def pack(context: np.ndarray, word: np.ndarray, num_columns: int, vocab_size: int) -> tuple[np.ndarray, ...]:
    """The key columns of (context int64 [m], word int64 [m])."""
    if num_columns == 1:
        return (((context << word_bits(vocab_size)) | word).view(np.uint64),)
    return context.view(np.uint64), word.view(np.uint64)


def payload_of(logprobs: np.ndarray, backoffs: np.ndarray) -> np.ndarray:
    """Two f32 [m] as one uint64 [m]."""
    return np.stack([logprobs, backoffs], axis=1).astype(np.float32).view(np.uint64)[:, 0]


def add_table(
    context: np.ndarray,
    word: np.ndarray,
    payload: np.ndarray,
    *,
    num_contexts: int,
    vocab_size: int,
    allocate: AllocateRows = np.empty,
    key_bits: int = KEY_BITS,
) -> tuple[np.ndarray, np.ndarray]:
    """The table of one order, and the row of each of its n-grams.

    Args:
      context: number of each n-gram's context, int64 [g], below ``num_contexts``.
      key_bits: (context, word) takes two columns where it needs as many bits or more.
    """
    wide = num_contexts.bit_length() + word_bits(vocab_size) >= key_bits
    return make_rows(pack(context, word, 2 if wide else 1, vocab_size), payload, allocate)


def build_model(
    grams: Sequence[Grams],
    levels: Sequence[Estimate],
    config: NgramConfig,
    facts: dict[str, Any],
    *,
    bos_id: int,
    eos_id: int | None = None,
    unk_id: int | None = None,
    allocate: AllocateRows = np.empty,
    key_bits: int = KEY_BITS,
) -> NgramModel:
    """Lays counted and estimated n-grams out in tables."""
    vocab_size = len(grams[0].word)
    unigrams = np.stack([levels[0].logprobs, levels[0].backoffs], axis=1)
    numbers = np.arange(vocab_size)
    num_contexts = vocab_size
    tables = []
    for here, level in zip(grams[1:], levels[1:], strict=True):
        kept = slice(None) if level.kept is None else level.kept
        context = numbers[here.context[kept]]
        payload = payload_of(level.logprobs[kept], level.backoffs[kept])
        rows, slots = add_table(
            context,
            here.word[kept].astype(np.int64),
            payload,
            num_contexts=num_contexts,
            vocab_size=vocab_size,
            allocate=allocate,
            key_bits=key_bits,
        )
        tables.append(rows)
        if level.kept is None:
            numbers = slots
        else:
            numbers = np.full(len(here.word), -1, np.int64)
            numbers[level.kept] = slots
        num_contexts = len(rows)
    return NgramModel(config, bos_id, eos_id, unk_id, unigrams, tuple(tables), facts)


def fit_tokens(
    tokens: np.ndarray,
    config: NgramConfig,
    *,
    vocab_size: int,
    bos_id: int,
    eos_id: int | None = None,
    unk_id: int | None = None,
    sorter: Sorter = sort_in_memory,
    allocate: Allocate = np.empty,
    allocate_rows: AllocateRows = np.empty,
    block_size: int | None = None,
    key_bits: int = KEY_BITS,
    say: Callable[[str], None] = lambda line: None,
) -> NgramModel:
    """The model of tokens that already stand behind their start symbols (see `count_ngrams` for the arguments)."""
    if not (tokens != bos_id).any():
        raise UserError("no token to count: the text is empty")
    say(f"counting {len(tokens):,} tokens")
    grams = count_ngrams(
        tokens,
        order=config.order,
        vocab_size=vocab_size,
        bos_id=bos_id,
        sorter=sorter,
        allocate=allocate,
        block_size=block_size,
        key_bits=key_bits,
    )
    say(f"estimating {', '.join(f'{len(g.word):,}' for g in grams)} n-grams")
    levels, facts = estimate(grams, config, bos_id=bos_id)
    say("laying out the tables")
    ends = {"bos_id": bos_id, "eos_id": eos_id, "unk_id": unk_id}
    return build_model(grams, levels, config, facts, **ends, allocate=allocate_rows, key_bits=key_bits)


def fit_ngram(
    sequences: Sequence[np.ndarray | Sequence[int]],
    vocab_size: int,
    order: int = 5,
    *,
    bos_id: int | None = None,
    eos_id: int | None = None,
    smoothing: str = "kneser-ney",
    **options: Any,
) -> NgramModel:
    """The model of sequences of token ids, of any tokenizer.

    Args:
      sequences: documents or sentences, each an array of ids; no n-gram reaches from one into the next.
      vocab_size: ids lie below it.
      bos_id: begins every sequence (added where it does not stand there). None = an id of the model's own, vocab_size,
        is used as the start, and the model's vocabulary is one larger.
      eos_id: ends every sequence, and is predicted (added where it does not stand there). None = nothing is added.
      options: ``k``, ``alpha`` and ``prune`` of `NgramConfig`; the others go to `fit_tokens`.

    Raises UserError where there is nothing to count, or for ids outside the vocabulary.
    """
    if vocab_size < 1:
        raise UserError(f"vocab_size={vocab_size}: the vocabulary is empty")
    own = {name: options.pop(name) for name in ("k", "alpha", "prune") if name in options}
    try:
        config = NgramConfig(order=order, smoothing=smoothing, **own)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise UserError(str(error)) from error
    start = vocab_size if bos_id is None else bos_id
    tokens = join_sequences(sequences, vocab_size=vocab_size, bos_id=start, eos_id=eos_id)
    size = vocab_size + 1 if bos_id is None else vocab_size
    return fit_tokens(tokens, config, vocab_size=size, bos_id=start, eos_id=eos_id, **options)
