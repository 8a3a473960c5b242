"""Continuations behind their contexts: which tokens are whose, what has no room, in what batches."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.evals.scoring import score_sequences
from jaxlm.evals.shared_contexts import LEAST_CONTEXT, SharedFn, score_shared
from jaxlm.evals.tasks.task import Likelihood


class Continuation(NamedTuple):
    """What a model says to one request."""

    logprobs: np.ndarray
    """Natural log-probability of each token of the continuation, f32 [t]."""
    first_choice: np.ndarray
    """Whether each of them is the model's first choice, bool [t]."""
    truncated: int
    """Tokens of the context that had no room."""

    def reply(self, continuation: str) -> Likelihood:
        """The same, summed in float64."""
        return Likelihood(
            logprob=float(np.sum(self.logprobs, dtype=np.float64)),
            num_tokens=len(self.logprobs),
            num_bytes=len(continuation.lstrip().encode("utf-8")),
            is_greedy=bool(self.first_choice.all()),
            token_logprobs=tuple(round(float(one), 6) for one in self.logprobs),
            truncated=self.truncated,
        )


def split_request(context: str, continuation: str, encode: Callable[[str], Sequence[int]]) -> tuple[list[int], int]:
    """(ids of context and continuation, how many of them belong to the context).

    Both are encoded as one text, so that words keep their tokens, and the continuation is what goes beyond the
    context's own number of tokens; white space at the context's end goes to the continuation, where tokenizers put it.
    This is the convention of lm-evaluation-harness, which has no answer where a tokenizer merges all of the
    continuation into the context's last tokens; see `own_start`.

    ``encode`` puts the start symbol in front, if there is one. Without one, and with no context, the first token cannot
    be predicted, and counts to the context.
    """
    if not context:
        return list(encode(continuation)), 1
    stripped = context.rstrip()
    ids = list(encode(context + continuation))
    return ids, own_start(ids, encode(stripped))


def own_start(ids: Sequence[int], before: Sequence[int]) -> int:
    """How many of ``ids`` (of a context and its continuation) belong to the context, whose own ids are ``before``.

    Where none would be left, the first that differs is the continuation's: it is then scored with the end of its
    context, which stands in the same token. All of them where none differs either, and at least one.

    >>> own_start([7, 8, 9], [7, 8]), own_start([7, 5], [7, 8]), own_start([7, 8], [7, 8])
    (2, 1, 2)
    """
    if len(before) < len(ids):
        return max(1, len(before))
    return max(1, next((i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), len(ids)))


def score_continuations(
    first_choice_fn: Callable[[np.ndarray, np.ndarray], np.ndarray],
    requests: Sequence[tuple[Sequence[int], int]],
    *,
    context: int,
    tokens_per_batch: int = 8192,
    shared_fn: SharedFn | None = None,
) -> list[Continuation]:
    """Every request's continuation, of ``(ids, how many belong to the context)`` pairs.

    ``first_choice_fn(tokens_bt, targets_bt)``: log-probabilities and 1 for first choices, f32 [b, t, 2]. What is longer
    than the context of a model loses the first tokens of its own context; a continuation that is longer still is read
    in windows (`score_sequences`), with nothing lost. What is asked several times is read once.

    ``shared_fn``: where the model has it, contexts of `LEAST_CONTEXT` tokens or more that fit are read once for all
    their continuations.
    """
    whole, behind = _sort_out(requests, context, shared=shared_fn is not None)
    found: list[Continuation | None] = [None] * len(requests)
    if behind:
        assert shared_fn is not None
        contexts = list(behind)
        tails = [[requests[i][0][len(ids) :] for i in behind[ids]] for ids in contexts]
        scores = score_shared(shared_fn, contexts, tails, context=context, predictions_per_batch=tokens_per_batch)
        for ids, each in zip(contexts, scores, strict=True):
            for i, one in zip(behind[ids], each, strict=True):
                found[i] = Continuation(one[:, 0], one[:, 1] > 0, 0)
    places: dict[tuple[int, ...], int] = {}
    asked = {}
    for i in whole:
        ids, num_context = requests[i]
        over = max(0, len(ids) - 1 - context)
        over = over if over < num_context else 0
        asked[i] = (places.setdefault(tuple(ids[over:]), len(places)), num_context - over - 1, over)
    sequences = [np.asarray(ids, np.int32) for ids in places]
    scores = score_sequences(
        first_choice_fn, sequences, context=context, tokens_per_batch=tokens_per_batch, columns=(2,)
    )
    for i, (place, start, over) in asked.items():
        found[i] = Continuation(scores[place][start:, 0], scores[place][start:, 1] > 0, over)
    return [one for one in found if one is not None]


def _sort_out(
    requests: Sequence[tuple[Sequence[int], int]], context: int, *, shared: bool
) -> tuple[list[int], dict[tuple[int, ...], list[int]]]:
    """(requests to be read whole, those to be read behind a context, by the context)."""
    behind: dict[tuple[int, ...], list[int]] = {}
    whole = []
    for i, (ids, num_context) in enumerate(requests):
        fits = LEAST_CONTEXT <= num_context < len(ids) <= context + 1
        if shared and fits:
            behind.setdefault(tuple(ids[:num_context]), []).append(i)
        else:
            whole.append(i)
    return whole, behind
