"""Making n-gram models: from tokens, from sequences of any tokenizer's ids, from lists of n-grams (ARPA files)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.models.ngram import NgramModel
from jaxlm.models.ngram_counts import Grams, count_ngrams, join_sequences
from jaxlm.models.ngram_estimate import IMPORTED, SMOOTHINGS, Estimate, NgramConfig, estimate
from jaxlm.models.ngram_prune import prune_by_entropy
from jaxlm.models.ngram_sort import BLOCK, Allocate, Sorter, sort_in_memory, spans
from jaxlm.models.ngram_table import KEY_BITS, Store, in_memory, is_wide, make_rows, pack, payload_of


def build_model(
    grams: Sequence[Grams],
    levels: Sequence[Estimate],
    config: NgramConfig,
    facts: dict[str, Any],
    *,
    bos_id: int,
    eos_id: int | None = None,
    unk_id: int | None = None,
    store: Callable[[int], Store] = lambda n: in_memory,
    sorter: Sorter = sort_in_memory,
    allocate: Allocate = np.empty,
    key_bits: int = KEY_BITS,
) -> NgramModel:
    """Lays counted and estimated n-grams out in tables; ``store(n)`` keeps the one of order ``n``."""
    vocab_size = len(grams[0].word)
    unigrams = np.stack([levels[0].logprobs, levels[0].backoffs], axis=1)
    numbers, num_contexts = np.arange(vocab_size), vocab_size
    tables = []
    for n, (here, level) in enumerate(zip(grams[1:], levels[1:], strict=True), start=2):
        kept = None if level.kept is None else np.flatnonzero(level.kept)
        size = len(here.word) if kept is None else len(kept)
        wide = is_wide(num_contexts, vocab_size, key_bits)
        columns = tuple(allocate(size, np.uint64) for _ in range(1 + wide))
        payload = allocate(size, np.uint64)
        for span in spans(size):
            chosen = span if kept is None else kept[span]
            context, word = numbers[here.context[chosen]], here.word[chosen].astype(np.int64)
            for column, values in zip(columns, pack(context, word, 1 + wide, vocab_size), strict=True):
                column[span] = values
            payload[span] = payload_of(level.logprobs[chosen], level.backoffs[chosen])
        rows, slots = make_rows(columns, payload, store(n), sorter, allocate)
        tables.append(rows)
        numbers, num_contexts = slots, len(rows)
        if kept is not None:
            numbers = allocate(len(here.word), np.int64)
            numbers[kept] = slots
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
    store: Callable[[int], Store] = lambda n: in_memory,
    block_size: int = BLOCK,
    key_bits: int = KEY_BITS,
    say: Callable[[str], None] = lambda line: None,
) -> NgramModel:
    """The model of tokens that already stand behind their start symbols (see `count_ngrams` for the arguments)."""
    if config.smoothing not in SMOOTHINGS:
        raise UserError(f"smoothing={config.smoothing!r} cannot be fitted: choose one of {', '.join(SMOOTHINGS)}")
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
    levels, facts = estimate(grams, config, bos_id=bos_id, allocate=allocate)
    if config.prune_entropy:
        levels, facts["num_grams"] = prune_by_entropy(
            grams, levels, config.prune_entropy, bos_id=bos_id, allocate=allocate
        )
        say(f"pruning leaves {', '.join(f'{size:,}' for size in facts['num_grams'])}")
    say("laying out the tables")
    ends = {"bos_id": bos_id, "eos_id": eos_id, "unk_id": unk_id}
    return build_model(
        grams,
        levels,
        config,
        facts,
        **ends,
        store=store,
        sorter=sorter,
        allocate=allocate,
        key_bits=key_bits,
    )


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
      options: ``k``, ``alpha``, ``prune`` and ``prune_entropy`` of `NgramConfig`; the others go to `fit_tokens`.

    Raises UserError where there is nothing to count, or for ids outside the vocabulary.
    """
    if vocab_size < 1:
        raise UserError(f"vocab_size={vocab_size}: the vocabulary is empty")
    own = {name: options.pop(name) for name in ("k", "alpha", "prune", "prune_entropy") if name in options}
    try:
        config = NgramConfig(order=order, smoothing=smoothing, **own)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise UserError(str(error)) from error
    start = vocab_size if bos_id is None else bos_id
    tokens = join_sequences(sequences, vocab_size=vocab_size, bos_id=start, eos_id=eos_id)
    size = vocab_size + 1 if bos_id is None else vocab_size
    return fit_tokens(tokens, config, vocab_size=size, bos_id=start, eos_id=eos_id, **options)


def model_from_lists(
    unigrams: np.ndarray,
    lists: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    bos_id: int,
    eos_id: int | None,
    unk_id: int,
) -> NgramModel:
    """The model of listed n-grams, as an ARPA file holds them.

    Args:
      unigrams: log-probability and log backoff (natural) of each id, f32 [v, 2].
      lists: for the orders 2, 3, ...: ids int64 [g, n] and f32 [g, 2]; no n-gram stands twice in one.

    A listed n-gram whose first n-1 words are not listed gets them added, with the probability that they have anyway.
    """
    vocab_size = len(unigrams)
    config = NgramConfig(order=len(lists) + 1, smoothing=IMPORTED)
    facts = {"num_grams": [vocab_size, *(len(ids) for ids, _ in lists)]}
    lists = _with_prefixes(lists)
    model = NgramModel(config, bos_id, eos_id, unk_id, unigrams, (), facts)
    for n, (ids, values) in enumerate(lists, start=2):
        context, weights = model.walk(ids[:, :-1])
        blank = np.isnan(values[:, 0])
        if blank.any():
            values = values.copy()
            values[blank, 0] = weights[blank] + model.last_logprob(ids[blank, 1:])
        wide = is_wide(model.num_contexts(n - 1), vocab_size)
        columns = pack(context, ids[:, -1], 1 + wide, vocab_size)
        rows, _ = make_rows(columns, payload_of(values[:, 0], values[:, 1]))
        model = NgramModel(config, bos_id, eos_id, unk_id, unigrams, (*model.tables, rows), facts)
    return model


def _with_prefixes(lists: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The lists with every missing first part of an n-gram added: log-probability NaN, backoff 0."""
    full = list(lists)
    for n in range(len(full), 1, -1):  # full[n - 1] has order n + 1; its first parts belong into full[n - 2]
        prefixes = np.unique(full[n - 1][0][:, :-1], axis=0)
        ids, values = full[n - 2]
        both, first = np.unique(np.concatenate([ids, prefixes]), axis=0, return_index=True)
        missing = both[first >= len(ids)]
        if len(missing):
            blank = np.tile(np.array([np.nan, 0.0], np.float32), (len(missing), 1))
            full[n - 2] = np.concatenate([ids, missing]), np.concatenate([values, blank])
    return full
