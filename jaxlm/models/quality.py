"""Scores of texts: a linear classifier of good against bad, and the rule that keeps what scores well.

The classifier is that of fastText (Joulin et al. 2017) without its hidden layer, which two classes do not need: a text
is the mean of its unit n-grams (`text.column`: words, signs, single Han characters), hashed into buckets,

    p(good) = sigmoid(b + 1/m sum_i w[bucket(g_i)])

with logistic loss, each class weighing half, and an L2 penalty. That is convex: L-BFGS finds the one answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.text.column import TextColumn
from jaxlm.text.dedup import unit_hash
from jaxlm.text.steps import Verdicts, above, below, decide

Score = Callable[[Sequence[str]], np.ndarray]
"""Texts -> one figure each, f32 [n]; that of a text depends on it alone. nan: it has none."""

_BATCH_BYTES = 2_000_000
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Scored:
    """A rule (`text.steps`) over any score: keeps the texts within ``minimum`` .. ``maximum``, and those with nan."""

    name: str
    score: Score
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if self.minimum is None and self.maximum is None:
            raise ValueError(f"{self.name}: neither minimum nor maximum is given, so nothing would be removed")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"{self.name}: minimum={self.minimum} is above maximum={self.maximum}")

    def judge(self, texts: TextColumn) -> Verdicts:
        """One verdict a text. Raises ValueError where the score gives another number of figures than texts."""
        value_n = np.asarray(self.score(texts.texts), np.float32)
        if value_n.shape != (len(texts),):
            raise ValueError(f"{self.name} gave figures of shape {value_n.shape} for {len(texts)} texts")
        checks = []
        if self.minimum is not None:
            checks.append(below(f"{self.name} below {self.minimum:g}", value_n, self.minimum))
        if self.maximum is not None:
            checks.append(above(f"{self.name} above {self.maximum:g}", value_n, self.maximum))
        return decide(checks)


@dataclass(frozen=True)
class QualityConfig:
    """How the classifier is made."""

    longest: int = 2
    """n-grams of 1 .. longest units."""
    num_buckets: int = 1 << 18
    """A power of two. Two n-grams of one bucket share a weight."""
    penalty: float = 1e-6
    """Times half the squared weights, beside the mean loss of a text."""
    num_iterations: int = 200
    held_out: float = 0.1
    """Share of the samples, by the hash of their text, that are only scored: `facts` of the model."""

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise ValueError(f"longest={self.longest} is below 1")
        if self.num_buckets < 2 or self.num_buckets & (self.num_buckets - 1):
            raise ValueError(f"num_buckets={self.num_buckets} is no power of two")
        if not self.penalty > 0:
            raise ValueError(f"penalty={self.penalty} is not above 0")
        if self.num_iterations < 1:
            raise ValueError(f"num_iterations={self.num_iterations} is below 1")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out={self.held_out} is outside 0 .. 1 (1 excluded)")


@dataclass(frozen=True, eq=False)
class QualityModel:
    """A fitted classifier; called, it scores texts."""

    config: QualityConfig
    weights: np.ndarray = field(repr=False)
    """f32 [num_buckets]."""
    bias: float
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the fit: samples, and accuracy and AUC on those held out."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The probability of good, f32 [n]; 0.5 = as good as bad, whatever the classes' sizes were."""
        logits = np.concatenate([np.zeros(0), *(self._logits(batch) for batch in _batches(texts))])
        return _sigmoid(logits).astype(np.float32)

    def _logits(self, texts: Sequence[str]) -> np.ndarray:
        column = TextColumn(texts)
        total_n, count_n = np.zeros(len(column)), np.zeros(len(column), np.int64)
        for buckets, owners in _features(column, self.config):
            total_n += np.bincount(owners, self.weights[buckets], minlength=len(column))
            count_n += np.bincount(owners, minlength=len(column))
        return self.bias + total_n / np.maximum(count_n, 1)


def fit_quality(good: Sequence[str], bad: Sequence[str], config: QualityConfig | None = None) -> QualityModel:
    """The classifier of two samples; the same samples give the same model, whatever their order.

    Raises UserError where a class has fewer than two texts to learn from.
    """
    from scipy import optimize, sparse

    config = config or QualityConfig()
    texts = [*good, *bad]
    label_n = np.repeat([1.0, 0.0], [len(good), len(bad)])
    held_n = np.array([unit_hash(text) < config.held_out for text in texts], bool)
    for name, value in (("good", 1.0), ("bad", 0.0)):
        count = int(((label_n == value) & ~held_n).sum())
        if count < 2:
            raise UserError(f"{count} {name} texts to learn quality from: give at least two")
    train = np.flatnonzero(~held_n)
    label_n, x_nf = label_n[train], _matrix([texts[i] for i in train], config)
    share_n = np.where(label_n == 1, 0.5 / label_n.sum(), 0.5 / (1 - label_n).sum())
    x_fn = sparse.csr_array(x_nf.T)

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = point[:-1], point[-1]
        logit_n = x_nf @ weights + bias
        # -log p of the label, from the logit of the right side.
        nats = share_n @ np.logaddexp(0.0, np.where(label_n == 1, -logit_n, logit_n))
        slope_n = share_n * (_sigmoid(logit_n) - label_n)
        return nats + config.penalty / 2 * (weights @ weights), np.append(
            x_fn @ slope_n + config.penalty * weights, slope_n.sum()
        )

    found = optimize.minimize(
        loss,
        np.zeros(config.num_buckets + 1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": config.num_iterations},
    )
    model = QualityModel(config, found.x[:-1].astype(np.float32), float(found.x[-1]))
    facts: dict[str, Any] = {"num_good": len(good), "num_bad": len(bad), "train_nats": float(found.fun)}
    held_good = [text for text, held in zip(good, held_n, strict=False) if held]
    held_bad = [text for text, held in zip(bad, held_n[len(good) :], strict=True) if held]
    if held_good and held_bad:
        scores = model(held_good), model(held_bad)
        facts |= {
            "held_out": len(held_good) + len(held_bad),
            "balanced_accuracy": float((scores[0] > 0.5).mean() + (scores[1] <= 0.5).mean()) / 2,
            "auc": _auc(*scores),
        }
    return QualityModel(config, model.weights, model.bias, facts)


def _features(column: TextColumn, config: QualityConfig) -> list[tuple[np.ndarray, np.ndarray]]:
    """(bucket, text) of every n-gram, an entry a length: int64 [n-grams] each."""
    bounds, owners = column.units.bounds, column.units.owners
    found = []
    for length in range(1, config.longest + 1):
        first = np.arange(len(owners))
        first = first[first + length <= bounds[1:][owners]]
        hashes = column.unit_hashes if length == 1 else column.run_hashes(first, first + length)
        shift = np.uint64(64 - config.num_buckets.bit_length() + 1)
        # The upper bits of the product: the lower ones of a polynomial hash are weak.
        buckets = ((hashes ^ (hashes >> np.uint64(32))) * _MIX) >> shift
        found.append((buckets.astype(np.int64), owners[first]))
    return found


def _matrix(texts: Sequence[str], config: QualityConfig) -> Any:
    """Shares of n-grams by bucket, a sparse matrix [n, buckets]."""
    from scipy import sparse

    rows: list[np.ndarray] = [np.zeros(0, np.int64)]
    columns: list[np.ndarray] = [np.zeros(0, np.int64)]
    begun = 0
    for batch in _batches(texts):
        for buckets, owners in _features(TextColumn(batch), config):
            rows.append(owners + begun)
            columns.append(buckets)
        begun += len(batch)
    row, place = np.concatenate(rows), np.concatenate(columns)
    share = 1.0 / np.maximum(np.bincount(row, minlength=len(texts)), 1)
    return sparse.csr_array((share[row], (row, place)), shape=(len(texts), config.num_buckets))


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    batches, start, size = [], 0, 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= _BATCH_BYTES:
            batches.append(texts[start : number + 1])
            start, size = number + 1, 0
    return [*batches, texts[start:]] if start < len(texts) else batches


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))


def _auc(good: np.ndarray, bad: np.ndarray) -> float:
    """Odds that a good text scores above a bad one; ties count half."""
    bad = np.sort(bad)
    above = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(above.sum() / (2 * len(good) * len(bad)))
