"""Scores of predicted labels against true ones, on the host, in float64."""

import numpy as np


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of predictions that are the label. Raises ValueError for none."""
    _check(labels, predictions)
    return float(np.mean(labels == predictions))


def confusion(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> np.ndarray:
    """int64 [num_labels, num_labels]: row = label, column = prediction."""
    _check(labels, predictions)
    flat = np.bincount(labels * num_labels + predictions, minlength=num_labels**2)
    return flat.reshape(num_labels, num_labels)


def f1_of_each(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> np.ndarray:
    """``2 tp / (2 tp + fp + fn)`` of each class, [num_labels]; NaN for one that is neither a label nor predicted."""
    table = confusion(labels, predictions, num_labels)
    total = table.sum(0) + table.sum(1)
    return np.where(total > 0, 2 * np.diag(table) / np.maximum(total, 1), np.nan)


def macro_f1(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> float:
    """Mean F1 over the classes that are a label or predicted."""
    return float(np.nanmean(f1_of_each(labels, predictions, num_labels)))


def binary_f1(labels: np.ndarray, predictions: np.ndarray, *, positive: int = 1) -> float:
    """F1 of the positive class against all others; 0 where it is neither a label nor predicted."""
    each = f1_of_each((labels == positive).astype(np.int64), (predictions == positive).astype(np.int64), 2)
    return float(np.nan_to_num(each[1]))


def matthews(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> float:
    """Matthews' correlation of two classes, R_K of more (Gorodkin 2004); 0 where one side is constant."""
    table = confusion(labels, predictions, num_labels).astype(np.float64)
    true, predicted, total = table.sum(1), table.sum(0), table.sum()
    covariance = np.trace(table) * total - true @ predicted
    spread = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, float64; equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def pearson(values: np.ndarray, others: np.ndarray) -> float:
    """Linear correlation; NaN where one side is constant."""
    _check(values, others)
    a, b = (x.astype(np.float64) - np.mean(x, dtype=np.float64) for x in (values, others))
    spread = float(a @ a) * float(b @ b)
    return float(a @ b) / spread**0.5 if spread > 0 else float("nan")


def spearman(values: np.ndarray, others: np.ndarray) -> float:
    """Rank correlation, ties by mean ranks; NaN where one side is constant."""
    return pearson(average_ranks(values), average_ranks(others))


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"shapes {a.shape} and {b.shape}: give two arrays of one length, at least 1")
