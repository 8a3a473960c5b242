"""Continuations behind their contexts: which tokens are whose, what has no room, in what batches."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.evals.scoring import score_sequences
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
    This is the convention of lm-evaluation-harness.

    ``encode`` puts the start symbol in front, if there is one. Without one, and with no context, the first token cannot
    be predicted, and counts to the context.
    """
    if not context:
        return list(encode(continuation)), 1
    stripped = context.rstrip()
    ids = list(encode(context + continuation))
    return ids, max(1, min(len(ids), len(encode(stripped))))


def score_continuations(
    first_choice_fn: Callable[[np.ndarray, np.ndarray], np.ndarray],
    requests: Sequence[tuple[Sequence[int], int]],
    *,
    context: int,
    tokens_per_batch: int = 8192,
) -> list[Continuation]:
    """Every request's continuation, of ``(ids, how many belong to the context)`` pairs.

    ``first_choice_fn(tokens_bt, targets_bt)``: log-probabilities and 1 for first choices, f32 [b, t, 2]. What is longer
    than the context of a model loses the first tokens of its own context; a continuation that is longer still is read
    in windows (`score_sequences`), with nothing lost. What is asked several times is read once.
    """
    places: dict[tuple[int, ...], int] = {}
    sequences, asked = [], []
    for ids, num_context in requests:
        over = max(0, len(ids) - 1 - context)
        over = over if over < num_context else 0
        kept = tuple(ids[over:])
        if kept not in places:
            places[kept] = len(sequences)
            sequences.append(np.asarray(kept, np.int32))
        asked.append((places[kept], num_context - over - 1, over))
    scores = score_sequences(
        first_choice_fn, sequences, context=context, tokens_per_batch=tokens_per_batch, columns=(2,)
    )
    return [Continuation(scores[place][start:, 0], scores[place][start:, 1] > 0, over) for place, start, over in asked]
