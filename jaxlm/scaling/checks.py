"""What a table of runs must have before a law is fitted to it: else one line says what is missing."""

from collections.abc import Mapping, Sequence

import numpy as np

_SAME = 0.01
"""Sizes nearer than this, relatively, are one value."""
_LARGEST_GAP = 1000.0
"""Between neighbouring sizes: beyond it, two units are mixed."""
_LEAST_SIZE = 1000.0
"""No model has fewer parameters and no run fewer tokens: such a number counts millions or billions."""
_LARGEST_LOSS = float(np.log(300_000))
"""Nats a token: guessing among so many, more than vocabularies hold. A perplexity, or bits of a document."""
_FEWEST_PER_PARAM, _MOST_PER_PARAM = 0.01, 1e5
"""Tokens a parameter, the median of the runs: beyond, one of the two is in other units."""


class BadRunError(ValueError):
    """Of single runs: ``text`` has a ``{}`` for each of ``runs``, which are known by their number here, and by where
    they stand in a file to whoever read it (`named`)."""

    def __init__(self, text: str, *runs: int):
        super().__init__(text.format(*(f"run {run}" for run in runs)))
        self._text, self._runs = text, runs

    def named(self, places: Sequence[str] | np.ndarray) -> str:
        return self._text.format(*(places[run] for run in self._runs))


def distinct(values: np.ndarray) -> int:
    """How many values there are, those within a hundredth of each other counted once."""
    logs = np.sort(np.log(values))
    return int(1 + (np.diff(logs) > _SAME).sum())


def check_positive(columns: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError for a column that is not one finite number above 0 of each run."""
    shape = next(iter(columns.values())).shape
    for name, values in columns.items():
        if values.shape != shape or not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"{name} must be one number above 0 of each run, and not NaN")


def check_unlike(*columns: np.ndarray) -> None:
    """Raises ValueError for a run that is there twice, to nine places of a logarithm: D = C / 6N rounds its last."""
    table = np.round(np.log(np.stack(columns)), 9)
    _, first, back = np.unique(table, axis=1, return_index=True, return_inverse=True)
    if len(first) < table.shape[1]:
        second = next(i for i in range(table.shape[1]) if first[back[i]] != i)
        text = "{} and {} are the same: leave one out, or it counts twice"
        raise BadRunError(text, int(first[back[second]]), second)


def check_runs(
    sizes: Mapping[str, np.ndarray], loss_n: np.ndarray, *, num_constants: int, least: int = 3, spread: bool = True
) -> None:
    """Raises ValueError, with what is missing, for runs that no law can be read off.

    Args:
      sizes: what varies, by name: N, D, ... in single parameters and tokens.
      loss_n: nats a token.
      num_constants: of the law; one run more is needed.
      least: values that each size must take.
      spread: whether the sizes must vary apart from each other.
    """
    for name, values in {**sizes, "loss": loss_n}.items():
        if values.ndim != 1 or len(values) != len(loss_n):
            raise ValueError(f"{name} has shape {values.shape} and loss {loss_n.shape}: give one number of each a run")
        if not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise BadRunError(f"{name} of {{}} is {values[at]}: leave the run out or mend it", at)
        if not (values > 0).all():
            at = int(np.flatnonzero(values <= 0)[0])
            why = "no irreducible loss lies below it" if name == "loss" else "it must be above 0"
            raise BadRunError(f"{name} of {{}} is {values[at]:g}: {why}", at)
    if len(loss_n) < num_constants + 1:
        raise ValueError(f"{len(loss_n)} runs: a law of {num_constants} constants needs at least {num_constants + 1}")
    for name, values in sizes.items():
        _check_units(name, values)
    if {"N", "D"} <= sizes.keys():
        _check_ratio(sizes["N"], sizes["D"])
    if loss_n.max() > _LARGEST_LOSS:
        at = int(loss_n.argmax())
        raise BadRunError(
            f"loss of {{}} is {loss_n[at]:g}, above {_LARGEST_LOSS:.3g} nats a token, a guess among 300,000: a "
            "perplexity? Take its log",
            at,
        )
    check_unlike(*sizes.values(), loss_n)
    for name, values in sizes.items():
        if distinct(values) < least:
            raise ValueError(f"needs at least {least} values of {name}, and there are {distinct(values)}")
    if spread and len(sizes) == 2:
        (one, x), (other, y) = sizes.items()
        if distinct(y / x) < 2:
            raise ValueError(f"{other} / {one} is {np.median(y / x):.3g} in every run: needs runs where it differs")


def _check_units(name: str, values: np.ndarray) -> None:
    ordered = np.sort(values)
    gaps = ordered[1:] / ordered[:-1]
    if len(gaps) and gaps.max() > _LARGEST_GAP:
        at = int(gaps.argmax())
        raise ValueError(
            f"{name} jumps from {ordered[at]:.4g} to {ordered[at + 1]:.4g}: mixed units? Give single parameters and "
            "tokens"
        )
    if name in ("N", "D") and ordered[0] < _LEAST_SIZE:
        raise ValueError(
            f"{name}={ordered[0]:g} is below {_LEAST_SIZE:g}: give single parameters and tokens, no billions"
        )


def _check_ratio(num_params: np.ndarray, num_tokens: np.ndarray) -> None:
    ratio = float(np.median(num_tokens / num_params))
    if not _FEWEST_PER_PARAM <= ratio <= _MOST_PER_PARAM:
        raise ValueError(
            f"N is {np.median(num_params):.4g} and D {np.median(num_tokens):.4g} in the median run, {ratio:.3g} tokens "
            "a parameter: give both in single parameters and tokens (COLUMN*1e6 multiplies)"
        )
