"""How much of each source: shares from sizes and weights, a cap on repetition, stages, and each document's copies.

Where the n_i tokens of source i have weight w_i, its share is

    p_i = w_i n_i^(1/T) / sum_j w_j n_j^(1/T)

T = 1 takes sources by their size, a larger T flatter (Devlin et al. 2019 for languages; Arivazhagan et al. 2019), and
without T the weights alone are the shares. No source is repeated more than ``max_epochs`` times over the whole run
(4 cost nearly nothing against new text, Muennighoff et al. 2023); what the cap cuts goes to the others, in proportion.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.permutation import mix_array, mix_key

_UNIT_BITS = 32
_ONE = 1 << _UNIT_BITS
_ORDER = 1
"""Keeps the key of a document's place apart from that of its copies."""


@dataclass(frozen=True)
class StageConfig:
    """A part of the run with weights of its own. Stages follow each other in the order of the config."""

    name: str
    share: float
    """Of the mixture's tokens; those of all stages sum to 1."""
    weights: tuple[tuple[str, float], ...] = ()
    """(source, weight): in place of the source's own weight; 0 leaves it out of this stage."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share} of stage {self.name!r} is outside 0 .. 1 (0 excluded)")
        names = [name for name, _ in self.weights]
        if len(set(names)) < len(names):
            raise ValueError(f"stage {self.name!r} gives a source two weights: {names}")
        for name, weight in self.weights:
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"weight {weight} of source {name!r} in stage {self.name!r} is not 0 or more")


@dataclass(frozen=True)
class MixtureConfig:
    """What is made of the sources' sizes and weights."""

    temperature: float | None = 1.0
    """T above: 1 = by size, larger = flatter; None = the weights alone are the shares."""
    max_epochs: float | None = 4.0
    """Most times that a source is taken over all stages; its own ``max_epochs`` goes before this. None = no cap."""
    num_tokens: int | None = None
    """Tokens of the mixture; None = those of each source times its weight, which at T = 1 is its number of epochs."""
    stages: tuple[StageConfig, ...] = ()
    """A curriculum; () = one stage with the sources' own weights."""

    def __post_init__(self) -> None:
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature={self.temperature} is not above 0: use None for the weights alone")
        if self.max_epochs is not None and not (math.isfinite(self.max_epochs) and self.max_epochs > 0):
            raise ValueError(f"max_epochs={self.max_epochs} is not above 0: use None for no cap")
        if self.num_tokens is not None and self.num_tokens < 1:
            raise ValueError(f"num_tokens={self.num_tokens} is below 1: use None for what there is")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages of one name: {', '.join(names)}")
        if self.stages and abs(sum(stage.share for stage in self.stages) - 1) > 1e-6:
            raise ValueError(
                f"the shares of the stages sum to {sum(s.share for s in self.stages):g}: make them sum to 1"
            )


class SourceSize(NamedTuple):
    """What is there of one source, after cleaning."""

    name: str
    tokens: int
    """Or bytes: any measure that all sources share."""
    weight: float = 1.0
    max_epochs: float | None = None
    """Overrides the mixture's."""


@dataclass(frozen=True)
class SourcePlan:
    """What is taken of one source."""

    name: str
    tokens: int
    """There are so many."""
    weight: float
    wanted_share: float
    """Before the cap."""
    share: float
    """Of the tokens taken."""
    epochs: float
    stage_epochs: tuple[float, ...]
    """Of each stage; they sum to ``epochs``."""
    cut_tokens: float
    """Tokens that the cap took from this source."""
    gained_tokens: float
    """Tokens that it took over from capped ones."""

    @property
    def taken_tokens(self) -> float:
        """Tokens in the mixture, repeats counted."""
        return self.epochs * self.tokens


@dataclass(frozen=True)
class MixturePlan:
    """The mixture: what each source gives to each stage."""

    stages: tuple[str, ...]
    wanted_tokens: float
    num_tokens: float
    """Tokens taken; less than wanted where every source that could give more is capped."""
    sources: tuple[SourcePlan, ...]

    def source(self, name: str) -> SourcePlan:
        """The plan of one source. Raises KeyError for a source that is not in the mixture."""
        for one in self.sources:
            if one.name == name:
                return one
        raise KeyError(f"source {name!r} is not in the mixture of {', '.join(s.name for s in self.sources)}")

    @property
    def short_tokens(self) -> float:
        """Wanted and not to be had under the caps."""
        return max(0.0, self.wanted_tokens - self.num_tokens)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data, for reports."""
        return asdict(self) | {"short_tokens": self.short_tokens}


def plan_mixture(sizes: Sequence[SourceSize], config: MixtureConfig) -> MixturePlan:
    """Shares and epochs of every source in every stage; the same sizes and config give the same plan.

    A source over its cap keeps the proportions of its stages, and what it loses in a stage goes to the sources of that
    stage which are not capped, in proportion to what they had. So no stage shrinks while one of its sources can give.

    Raises UserError for no source, two of one name, one without tokens or with a weight that is not above 0, a stage
    that names an unknown source or leaves none.
    """
    _check_sizes(sizes, config)
    names = [size.name for size in sizes]
    tokens_s = np.array([size.tokens for size in sizes], np.float64)
    weight_s = np.array([size.weight for size in sizes], np.float64)
    caps = [config.max_epochs if size.max_epochs is None else size.max_epochs for size in sizes]
    room_s = tokens_s * np.array([math.inf if cap is None else cap for cap in caps])
    wanted = float(config.num_tokens or weight_s @ tokens_s)
    stages = config.stages or (StageConfig("all", 1.0),)
    power_s = tokens_s ** (0.0 if config.temperature is None else 1.0 / config.temperature)
    target_ks = np.zeros((len(stages), len(sizes)))
    for row_s, stage in zip(target_ks, stages, strict=True):
        own = dict(stage.weights)
        row_s[:] = [own.get(name, weight) for name, weight in zip(names, weight_s.tolist(), strict=True)]
        row_s *= power_s
        row_s *= wanted * stage.share / row_s.sum()
    taken_ks = _within(target_ks, room_s)
    # Whole 2^-32 of an epoch, so that taking is exact: an epoch of 1 is every document once.
    epochs_ks = np.round(taken_ks / tokens_s * _ONE) / _ONE
    taken_s, target_s = (epochs_ks * tokens_s).sum(0), target_ks.sum(0)
    moved_s = taken_s - target_s
    moved_s[np.abs(moved_s) < 1e-6 * target_s.sum()] = 0.0
    return MixturePlan(
        stages=tuple(stage.name for stage in stages),
        wanted_tokens=wanted,
        num_tokens=float(taken_s.sum()),
        sources=tuple(
            SourcePlan(
                name=name,
                tokens=sizes[s].tokens,
                weight=sizes[s].weight,
                wanted_share=float(target_s[s] / target_s.sum()),
                share=float(taken_s[s] / taken_s.sum()),
                epochs=float(epochs_ks[:, s].sum()),
                stage_epochs=tuple(epochs_ks[:, s].tolist()),
                cut_tokens=max(0.0, -float(moved_s[s])),
                gained_tokens=max(0.0, float(moved_s[s])),
            )
            for s, name in enumerate(names)
        ),
    )


def _within(target_ks: np.ndarray, room_s: np.ndarray) -> np.ndarray:
    """``target_ks`` with no source above its room; each stage keeps its sum while a source in it can give."""
    given_ks, capped_s = target_ks.copy(), np.zeros(len(room_s), bool)
    while True:
        total_s = given_ks.sum(0)
        over_s = ~capped_s & (total_s > room_s * (1 + 1e-12))
        if not over_s.any():
            return given_ks
        given_ks[:, over_s] *= room_s[over_s] / total_s[over_s]
        capped_s |= over_s
        for given_s, target_s in zip(given_ks, target_ks, strict=True):
            free = target_s[~capped_s]
            if free.sum() > 0:
                given_s[~capped_s] = (target_s.sum() - given_s[capped_s].sum()) * free / free.sum()


def take(
    plan: MixturePlan, source: str, numbers: np.ndarray | int, seed: int, *, stage: int | None = None
) -> np.ndarray:
    """How many copies of each document of ``source`` are taken: int64, the shape of ``numbers``.

    A function of seed, source and the document's number alone: shards may be gone through in any order, on any number
    of machines. Of 2.3 epochs each document is taken twice and three in ten a third time; none is taken again while
    another of the source waits, through all stages. ``stage``: of this stage alone, from 0; their sum is that of all.

    Raises KeyError for a source that is not in the plan.
    """
    epochs = plan.source(source).stage_epochs
    ends = np.rint(np.cumsum([0.0, *epochs]) * _ONE).astype(np.int64)
    first, last = (0, len(epochs)) if stage is None else (stage, stage + 1)
    unit = (_mix(_key(seed, source), numbers) >> np.uint64(64 - _UNIT_BITS)).astype(np.int64)
    return ((unit + ends[last]) >> _UNIT_BITS) - ((unit + ends[first]) >> _UNIT_BITS)


def order_keys(source: str, numbers: np.ndarray | int, seed: int, *, stage: int = 0, copy: int = 0) -> np.ndarray:
    """A number for each copy of a document by which to sort the documents of a stage into a random order: uint64.

    As for `take`, a function of what the copy is, never of where it was read.
    """
    return _mix(_key(seed, source, _ORDER, stage, copy), numbers)


def _mix(key: int, numbers: np.ndarray | int) -> np.ndarray:
    # A scalar's overflow would warn; an array's is meant.
    return mix_array(key, np.atleast_1d(numbers)).reshape(np.shape(numbers))


def _key(seed: int, source: str, *parts: int) -> int:
    name = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "little")
    return mix_key(seed, name, *parts)


def _check_sizes(sizes: Sequence[SourceSize], config: MixtureConfig) -> None:
    names = [size.name for size in sizes]
    if not names:
        raise UserError("a mixture of no source: name at least one")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two sources are named {twice!r}: give each a name of its own")
    for size in sizes:
        if size.tokens < 1:
            raise UserError(
                f"source {size.name!r} has no token to take ({size.tokens}): nothing of it is left after cleaning, "
                "loosen its recipe or leave it out"
            )
        if not (math.isfinite(size.weight) and size.weight > 0):
            raise UserError(f"source {size.name!r} has weight {size.weight}: give more than 0, or leave it out")
        if size.max_epochs is not None and not size.max_epochs > 0:
            raise UserError(f"source {size.name!r} has max_epochs={size.max_epochs}: give more than 0, or None")
    for stage in config.stages:
        for name, _ in stage.weights:
            if name not in names:
                raise UserError(
                    f"stage {stage.name!r} weighs {name!r}, which is no source (there are {', '.join(names)})"
                )
        if all(dict(stage.weights).get(name, 1.0) == 0 for name in names):
            raise UserError(f"stage {stage.name!r} gives every source weight 0: leave one in")
