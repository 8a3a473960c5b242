"""What all puzzles share: a generator for each batch, and which questions are held out."""

import numpy as np

HELD_OUT_OF = 16
"""One question in so many belongs to the held-out ones."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing (Knuth, volume 3, 6.4)


def generator(seed: int, cursor: int, *, for_test: bool) -> np.random.Generator:
    """That of batch ``cursor``; those for the test are others."""
    return np.random.default_rng([seed, 11, int(for_test), cursor])


def held_out(digits_bn: np.ndarray, base: int) -> np.ndarray:
    """Whether the questions of these digits are held out, bool [b]; a property of the digits alone, whatever the seed.

    The digits are read as one number of at most 64 bits.
    """
    weights_n = np.uint64(base) ** np.arange(digits_bn.shape[1], dtype=np.uint64)
    hashed_b = digits_bn.astype(np.uint64) @ weights_n * _MULTIPLIER  # wraps, as it should
    return hashed_b >> np.uint64(60) == 0


def draw_digits(rng: np.random.Generator, base: int, width: int, count: int, *, for_test: bool) -> np.ndarray:
    """``count`` questions of ``width`` digits below ``base``, int32 [b, n], all of them held out (``for_test``) or
    none, evenly drawn."""
    found: list[np.ndarray] = []
    while sum(map(len, found)) < count:
        digits_bn = rng.integers(0, base, (2 * count * (HELD_OUT_OF if for_test else 1), width), np.int32)
        found.append(digits_bn[held_out(digits_bn, base) == for_test])
    return np.concatenate(found)[:count]


def supervised(tokens_bt: np.ndarray, num_given: int) -> dict[str, np.ndarray]:
    """A batch for ``train.objectives.causal_objective``: the first ``num_given`` tokens of a row are given, the others
    are to be said."""
    targets_bt = tokens_bt[:, 1:]
    counted_t = np.arange(1, tokens_bt.shape[1]) >= num_given
    mask_bt = np.broadcast_to(counted_t.astype(np.float32), targets_bt.shape)
    return {"tokens": tokens_bt[:, :-1], "targets": targets_bt, "loss_mask": mask_bt}
