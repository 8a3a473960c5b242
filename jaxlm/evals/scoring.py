"""Log-likelihood of token sequences of any length: windows of the context, grouped into few batch shapes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.generate.decode import bucket_length


class Window(NamedTuple):
    """Predictions ``start`` to ``end`` of a sequence, of which those from ``counted`` on are new."""

    sequence: int
    start: int
    end: int
    counted: int


def plan_windows(num_predictions: int, context: int, stride: int, sequence: int = 0) -> list[Window]:
    """Windows of at most ``context`` predictions whose ends advance by ``stride``: each prediction counts once.

    Past the first window, every prediction sees at least ``context - stride`` tokens before it.

    >>> [tuple(w[1:]) for w in plan_windows(10, context=4, stride=2)]
    [(0, 4, 0), (2, 6, 4), (4, 8, 6), (6, 10, 8)]
    """
    if not 1 <= stride <= context:
        raise ValueError(f"stride={stride} must lie between 1 and the context of {context}")
    windows, counted = [], 0
    while counted < num_predictions:
        end = min(num_predictions, counted + (stride if counted else context))
        windows.append(Window(sequence, max(0, end - context), end, counted))
        counted = end
    return windows


def score_sequences(
    logprob_fn: Callable[[np.ndarray, np.ndarray], np.ndarray],
    sequences: Sequence[np.ndarray],
    *,
    context: int,
    stride: int | None = None,
    tokens_per_batch: int = 8192,
    columns: tuple[int, ...] = (),
) -> list[np.ndarray]:
    """Log-probability of every token but the first of each sequence, f32 arrays of length ``len(sequence) - 1``.

    ``logprob_fn(tokens_bt, targets_bt) -> logprobs_bt`` must be causal (rows are padded on the right, with token 0).
    With ``columns=(k,)`` it gives k figures of each token, [b, t, k], and the arrays are [length - 1, k].
    ``stride``: how far windows advance on sequences longer than the context (default: half of it).
    Rows of one length bucket share a shape, so a jitted ``logprob_fn`` compiles about once for each bucket.
    """
    stride = max(1, context // 2) if stride is None else stride
    groups: dict[int, list[Window]] = {}
    for number, sequence in enumerate(sequences):
        for window in plan_windows(len(sequence) - 1, context, stride, number):
            groups.setdefault(min(context, bucket_length(window.end - window.start)), []).append(window)
    scores = [np.zeros((max(0, len(sequence) - 1), *columns), np.float32) for sequence in sequences]
    for length, windows in sorted(groups.items(), reverse=True):
        most_rows = max(1, tokens_per_batch // length)
        for first in range(0, len(windows), most_rows):
            rows = windows[first : first + most_rows]
            # A short last batch is padded with empty rows to a power of two, so that few shapes are compiled.
            tokens_bt = np.zeros((min(most_rows, 1 << (len(rows) - 1).bit_length()), length), np.int32)
            targets_bt = np.zeros_like(tokens_bt)
            for row, window in enumerate(rows):
                piece = sequences[window.sequence][window.start : window.end + 1]
                tokens_bt[row, : len(piece) - 1] = piece[:-1]
                targets_bt[row, : len(piece) - 1] = piece[1:]
            logprobs_bt = np.asarray(logprob_fn(tokens_bt, targets_bt))
            for row, window in enumerate(rows):
                new = logprobs_bt[row, window.counted - window.start : window.end - window.start]
                scores[window.sequence][window.counted : window.end] = new
    return scores
