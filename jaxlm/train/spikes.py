"""Spikes: steps whose loss or gradient norm stands far above those of the steps before, or is not finite.

A spike is told from the figures of the steps alone, in their order, and is confirmed at a step that depends on nothing
else: not on when the host looked, nor on how often the run was started. (PaLM went back about 100 steps and skipped 200
to 500 batches at each of its spikes: Chowdhery et al. 2022, section 5.1.)
"""

import bisect
import dataclasses
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

Response = Literal["note", "rollback"]

_FEWEST = 16
"""Steps that must have been seen before any can stand out."""
_IQR_OF_NORMAL = 1.349
"""The interquartile range of a normal distribution in standard deviations."""


@dataclasses.dataclass(frozen=True)
class SpikeConfig:
    """What counts as a spike, and what is done then."""

    response: Response = "rollback"
    """rollback: go back to the last checkpoint before it, skip its batches, and stop where that does not help. note:
    write it down and go on."""
    window: int = 128
    """Steps that a step is compared with: those before it that did not stand out."""
    threshold: float = 8.0
    """How far above their median it must lie, in standard deviations of their noise (robust: from the quartiles of the
    changes from step to step)."""
    loss_rise: float = 0.1
    """And by at least this share of the median loss."""
    grad_norm_factor: float = 10.0
    """The gradient norm is compared by its logarithm, and must be at least so many times its median."""
    patience: int = 3
    """Steps in a row that must stand out; fewer are written down and nothing is done, for one odd batch does little."""
    max_not_finite: int = 4
    """Updates dropped as not finite within a window that count as a spike, in a row or not."""
    rewind_steps: int = 4
    """Steps before the spike whose batches are skipped with its own: what breaks a model shows a little later."""
    skip_ahead: int = 16
    """Batches after the spike that are left out with its own: bad ones come in stretches."""
    rate_factor: float = 1.0
    """Where a spike comes back after a rollback, within ``window`` steps of the same place, the learning rate is
    multiplied by this, and again by the next rollback there; 1 = left alone."""
    b2: float | None = None
    """AdamW's and Lion's second beta then; None = left alone."""
    adjust_steps: int | None = 200
    """Steps for which rate and beta stay so, counted from where the spike began; None = to the end."""
    max_rollbacks: int = 3
    """Rollbacks within ``within_steps``, or to one checkpoint, after which the next spike stops the run."""
    within_steps: int = 1000

    def __post_init__(self) -> None:
        if self.response not in get_args(Response):
            raise ValueError(f"spikes.response={self.response!r} is neither 'note' nor 'rollback'")
        if self.window < _FEWEST:
            raise ValueError(f"spikes.window={self.window} must be at least {_FEWEST}")
        for name in ("patience", "max_not_finite", "max_rollbacks", "within_steps", "adjust_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"spikes.{name}={value} must be at least 1")
        if self.patience > self.window:
            raise ValueError(
                f"spikes.patience={self.patience} is more than spikes.window={self.window}: none would be met"
            )
        for name in ("rewind_steps", "skip_ahead"):
            if getattr(self, name) < 0:
                raise ValueError(f"spikes.{name}={getattr(self, name)} is negative: give 0 or more")
        if not 0 < self.rate_factor <= 1:
            raise ValueError(f"spikes.rate_factor={self.rate_factor} is outside (0, 1]: 1 leaves the rate alone")
        if self.b2 is not None and not 0 <= self.b2 < 1:
            raise ValueError(f"spikes.b2={self.b2} is outside [0, 1): use None to leave it alone")
        if not (self.threshold > 0 and self.loss_rise >= 0 and self.grad_norm_factor >= 1):
            raise ValueError(
                f"spikes.threshold={self.threshold} must be above 0, loss_rise={self.loss_rise} at least 0, and "
                f"grad_norm_factor={self.grad_norm_factor} at least 1"
            )


class Seen(NamedTuple):
    """The figures of one step; what is not finite is None."""

    step: int
    batch_id: int
    loss: float | None
    grad_norm: float | None

    @property
    def finite(self) -> bool:
        return self.loss is not None and self.grad_norm is not None


class Limits(NamedTuple):
    """What the steps before make of a step: their medians, and beyond what it stands out."""

    loss_median: float
    loss_limit: float
    grad_norm_median: float
    grad_norm_limit: float


class Spike(NamedTuple):
    """Steps that stood out. ``confirmed`` where they are enough for a response."""

    bad: tuple[Seen, ...]
    """In order; the last is the step at which it was confirmed."""
    before: tuple[tuple[int, int], ...]
    """(step, batch id) of the ``rewind_steps`` steps before the first, or as many as there were."""
    limits: Limits | None
    """None where too few steps were seen before."""
    confirmed: bool

    @property
    def onset(self) -> int:
        """The first step of it."""
        return self.bad[0].step

    @property
    def stretch(self) -> int:
        """The first step of its last unbroken row. Steps apart are dropped updates, which left the model as it was."""
        steps = [seen.step for seen in self.bad]
        return next((step for step in reversed(steps) if step - 1 not in steps), self.onset)

    @property
    def first(self) -> int:
        """The first step whose batch is to be skipped: its rewound steps count."""
        return self.before[0][0] if self.before else self.onset

    @property
    def batch_ids(self) -> list[int]:
        """Its batches and those of the steps before it that are undone with it, sorted."""
        return sorted({batch_id for _, batch_id in self.before} | {seen.batch_id for seen in self.bad})


class Rolling:
    """Median and noise of the last ``size`` values, kept sorted: a value costs some microseconds."""

    def __init__(self, size: int, values: Sequence[float] = ()) -> None:
        self.values: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []
        self._changes: list[float] = []
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        return len(self.values)

    def add(self, value: float) -> None:
        """Takes in a value, and lets the oldest go where they are too many."""
        values = self.values
        if len(values) == values.maxlen:
            _remove(self._sorted, values[0])
            _remove(self._changes, values[1] - values[0])
        if values:
            bisect.insort(self._changes, value - values[-1])
        bisect.insort(self._sorted, value)
        values.append(value)

    def median(self) -> float:
        return _quantile(self._sorted, 0.5)

    def deviation(self) -> float:
        """The standard deviation of normal noise whose changes from value to value have this interquartile range. A
        trend, such as that of a falling loss, does not count."""
        return (_quantile(self._changes, 0.75) - _quantile(self._changes, 0.25)) / (_IQR_OF_NORMAL * math.sqrt(2))


def _remove(ordered: list[float], value: float) -> None:
    del ordered[bisect.bisect_left(ordered, value)]


def _quantile(ordered: Sequence[float], q: float) -> float:
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


class SpikeMonitor:
    """Sees every step's figures in order, and tells spikes. Its memory is JSON: a checkpoint holds it.

    Args:
      config: what counts.
      memory: what ``to_json`` gave at the step that is gone on from; empty at step 0.
    """

    def __init__(self, config: SpikeConfig, memory: Mapping[str, Any] | None = None) -> None:
        memory = memory or {}
        self.config = config
        self._loss = Rolling(config.window, memory.get("loss", ()))
        self._log_norm = Rolling(config.window, memory.get("log_grad_norm", ()))
        self._recent = deque((tuple(pair) for pair in memory.get("recent", ())), maxlen=config.rewind_steps)
        self._pending = [Seen(*seen) for seen in memory.get("pending", ())]
        self._not_finite = [Seen(*seen) for seen in memory.get("not_finite", ())]
        self._told = bool(memory.get("told", False))

    def to_json(self) -> dict[str, Any]:
        """All that it remembers, as JSON values that come back the same to the bit."""
        return {
            "loss": list(self._loss.values),
            "log_grad_norm": list(self._log_norm.values),
            "recent": [list(pair) for pair in self._recent],
            "pending": [list(seen) for seen in self._pending],
            "not_finite": [list(seen) for seen in self._not_finite],
            "told": self._told,
        }

    @property
    def suspected_since(self) -> int | None:
        """The first of the last steps that stand out, of which a spike may come; None where the last did not."""
        return self._pending[0].step if self._pending else None

    def look(self, step: int, batch_id: int, loss: float, grad_norm: float) -> Spike | None:
        """The spike that this step confirms, or the few steps that stood out before it and were none."""
        seen = Seen(step, batch_id, _finite(loss), _finite(grad_norm))
        self._not_finite = [one for one in self._not_finite if one.step > step - self.config.window]
        if not seen.finite:
            self._not_finite.append(seen)
        if self._stands_out(seen):
            return self._add_bad(seen)
        ended, told = self._pending, self._told
        found = None if told or not any(one.finite for one in ended) else self._spike(ended, confirmed=False)
        self._pending, self._told = [], False
        self._recent.extend((one.step, one.batch_id) for one in (*ended, seen))
        assert loss is not None
        self._loss.add(float(loss))
        self._log_norm.add(_log(grad_norm))
        return found

    def limits(self) -> Limits | None:
        """Beyond what the next step stands out; None while too few were seen."""
        if len(self._loss) < _FEWEST:
            return None
        config, loss, norm = self.config, self._loss.median(), self._log_norm.median()
        loss_limit = loss + max(config.threshold * self._loss.deviation(), config.loss_rise * abs(loss))
        norm_rise = max(config.threshold * self._log_norm.deviation(), math.log(config.grad_norm_factor))
        return Limits(loss, loss_limit, math.exp(norm), math.exp(min(norm + norm_rise, 700.0)))

    def _stands_out(self, seen: Seen) -> bool:
        if seen.loss is None or seen.grad_norm is None:
            return True
        limits = self.limits()
        return limits is not None and (seen.loss > limits.loss_limit or seen.grad_norm > limits.grad_norm_limit)

    def _add_bad(self, seen: Seen) -> Spike | None:
        self._pending.append(seen)
        if len(self._pending) > self.config.window:
            # So long that it is no spike: what was usual before is usual no more.
            self._loss, self._log_norm = Rolling(self.config.window), Rolling(self.config.window)
            self._pending = self._pending[-1:]
        if self._told:
            return None
        if len(self._pending) >= self.config.patience:
            self._told = True
            return self._spike(self._pending, confirmed=True)
        if not seen.finite and len(self._not_finite) >= self.config.max_not_finite:
            self._told = True
            bad = {one.step: one for one in (*self._not_finite, *self._pending)}
            return self._spike([bad[step] for step in sorted(bad)], confirmed=True)
        return None

    def _spike(self, bad: Sequence[Seen], *, confirmed: bool) -> Spike:
        before = tuple(pair for pair in self._recent if pair[0] < bad[0].step)
        return Spike(tuple(bad), before, self.limits(), confirmed)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _log(value: float) -> float:
    return math.log(max(float(value), 1e-30))
