"""Signs that reinforcement learning has left the road, seen at rollouts, and why the run should stop.

What is remembered between rollouts is a few numbers in the train state: a run that was killed and started again stops
at the same rollout.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

SIGNS = ("kl", "negative_kl", "entropy", "length", "not_finite")
"""What is counted, in this order: `CollapseState`."""


@dataclasses.dataclass(frozen=True)
class CollapseConfig:
    """Beyond what a rollout is a bad sign. The run stops after ``patience`` bad ones of a kind in a row."""

    max_kl: float | None = 100.0
    """Nats an answer against the reference; None = never."""
    min_kl: float | None = -1.0
    """A mean KL below this, nats an answer: it cannot be negative, so the sampler and the trainer disagree, or answers
    are drawn from something else than the policy."""
    min_entropy: float | None = 0.005
    """Nats a token; counted where it has halved since the first rollout, and the reward has not risen since: a policy
    that has solved its tasks is sure of itself too."""
    max_truncated: float | None = 0.9
    """Share of answers that reach ``max_new_tokens`` without an end; counted where the mean length has grown by
    ``length_growth`` too."""
    length_growth: float = 2.0
    """Over the mean length of the first rollout."""
    patience: int = 3

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"collapse.patience={self.patience} must be at least 1")
        if self.max_kl is not None and not self.max_kl > 0:
            raise ValueError(f"collapse.max_kl={self.max_kl} must be above 0, or None")
        if self.length_growth < 1:
            raise ValueError(f"collapse.length_growth={self.length_growth} must be at least 1")


@dataclasses.dataclass(frozen=True)
class CollapseState:
    """What is remembered: how many rollouts in a row showed each sign, and figures of the first rollout (a length of 0
    = there was none yet)."""

    counts: tuple[int, ...] = (0,) * len(SIGNS)
    first_length: float = 0.0
    first_entropy: float = 0.0
    first_reward: float = 0.0

    def to_arrays(self) -> dict[str, np.float32]:
        """f32 scalars by name."""
        first = {name: getattr(self, name) for name in _FIRST}
        return {name: np.float32(value) for name, value in (dict(zip(SIGNS, self.counts, strict=True)) | first).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "CollapseState":
        """What `to_arrays` gave."""
        return cls(tuple(int(arrays[sign]) for sign in SIGNS), *(float(arrays[name]) for name in _FIRST))


_FIRST = ("first_length", "first_entropy", "first_reward")


def look(
    figures: Mapping[str, float], state: CollapseState, config: CollapseConfig
) -> tuple[CollapseState, str | None]:
    """What is remembered after a rollout with these figures (`rollout_figures`), and the diagnosis, if it is bad."""
    if not state.first_length:
        # Rounded as it will be remembered.
        first = (figures["length"], figures["entropy"], figures["reward"])
        state = CollapseState.from_arrays(CollapseState(state.counts, *first).to_arrays())
    signs = _signs(figures, state, config)
    counts = tuple(count + 1 if sign else 0 for count, sign in zip(state.counts, signs, strict=True))
    found = next((i for i, count in enumerate(counts) if count >= config.patience), None)
    diagnosis = None
    if found is not None:
        in_a_row = f"in {config.patience} rollouts in a row" if config.patience > 1 else "in a rollout"
        diagnosis = f"{_describe(SIGNS[found], figures, state, config)} {in_a_row}: {_MENDS[SIGNS[found]]}"
    return dataclasses.replace(state, counts=counts), diagnosis


def _signs(figures: Mapping[str, float], first: CollapseState, config: CollapseConfig) -> tuple[bool, ...]:
    finite = all(math.isfinite(figures[name]) for name in ("kl", "entropy", "reward"))
    kl, entropy = figures["kl"], figures["entropy"]
    long = figures["length"] >= config.length_growth * first.first_length
    sure = entropy <= 0.5 * first.first_entropy and figures["reward"] <= first.first_reward
    return (
        finite and config.max_kl is not None and kl > config.max_kl,
        finite and config.min_kl is not None and kl < config.min_kl,
        finite and config.min_entropy is not None and entropy < config.min_entropy and sure,
        config.max_truncated is not None and figures["truncated"] > config.max_truncated and long,
        not finite,
    )


def _describe(sign: str, figures: Mapping[str, float], first: CollapseState, config: CollapseConfig) -> str:
    if sign == "kl":
        return f"the KL to the reference has run away: {figures['kl']:.4g} nats an answer, over {config.max_kl:g}"
    if sign == "negative_kl":
        return f"the KL to the reference is negative: {figures['kl']:.4g} nats an answer, under {config.min_kl:g}"
    if sign == "entropy":
        return (
            f"the entropy is gone and the reward has not risen: {figures['entropy']:.3g} nats a token, under "
            f"{config.min_entropy:g} (at first {first.first_entropy:.3g})"
        )
    if sign == "length":
        return (
            f"answers do not end any more: {figures['truncated']:.0%} are cut, at {figures['length']:.4g} tokens "
            f"(at first {first.first_length:.4g})"
        )
    shown = ", ".join(f"{name} {figures[name]:.4g}" for name in ("reward", "kl", "entropy"))
    return f"figures of the rollout are not finite ({shown})"


_MENDS = {
    "kl": "raise kl.coef or set kl.target, lower optimizer.peak_lr, or look whether the reward can be gamed "
    "(samples.jsonl), in another run directory",
    "negative_kl": "the answers are not the policy's own: look at rollout/gap_mean, and use temperature 1 and "
    "compute_dtype float32 to tell",
    "entropy": "raise entropy_coef or kl.coef, or lower optimizer.peak_lr and ppo_epochs, in another run directory",
    "length": "set advantages.truncated='penalise', raise rollout.max_new_tokens, or look whether the reward grows "
    "with length, in another run directory",
    "not_finite": "lower optimizer.peak_lr or optimizer.clip_norm, in another run directory",
}
