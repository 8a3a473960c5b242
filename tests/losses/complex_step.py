"""Gradients of NumPy functions in float64, exact to rounding: the derivative along i (Squire & Trapp 1998).

``f(x + i h)`` has imaginary part ``h f'(x) + O(h^3)``, and no difference is taken, so h may be 1e-30. Functions under
it may only use what is analytic; comparisons and maxima are taken of real parts.
"""

from collections.abc import Callable

import numpy as np

STEP = 1e-30


def gradient(fn: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """d fn / d x for a scalar ``fn``, of x's shape."""
    x = np.asarray(x, np.complex128)
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += 1j * STEP
        out[index] = np.imag(fn(moved)) / STEP
    return out


def log_sigmoid(z: np.ndarray) -> np.ndarray:
    """-log(1 + exp(-z))."""
    return -np.log1p(np.exp(-z))


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(np.real(a) >= np.real(b), a, b)


def clip(x: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    return np.where(np.real(x) < low, low, np.where(np.real(x) > high, high, x))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
