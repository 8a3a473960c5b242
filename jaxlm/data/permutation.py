"""A shuffle that is a function: where index i goes, in O(1) time and memory, for any n.

A balanced Feistel network over pairs (left, right) of numbers below a = ceil(sqrt(n)), with addition modulo a in place
of XOR (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", which also gives the cycle walking). As
a² < n + 2 sqrt(n) + 1, nearly every index lands inside [0, n) at once; the few that do not walk on until they do.
"""

import functools
import math

import numpy as np

MAX_SIZE = 2**62

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
# The multipliers of splitmix64 (Steele, Lea and Flood 2014).
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(32)
_DROP = np.uint64(16)
# Four rounds of a good round function pass for random on large domains (Luby and Rackoff 1988). The round functions of
# tiny ones are short tables, and it takes many of those to reach every order about equally often.
_ROUNDS = 6
_ROUNDS_TINY = 32
_TINY_SIDE = 16


def mix_key(*parts: int) -> int:
    """One 64-bit key from integers, for example (seed, purpose, epoch). Order matters; negative numbers wrap."""
    key = 0
    for part in parts:
        key = _splitmix((key ^ (part & _MASK)) & _MASK)
    return key


def mix_array(key: int, values: np.ndarray) -> np.ndarray:
    """64 random bits for each integer, uint64 of the shape of ``values``: splitmix64 of ``values ^ key``."""
    mixed = np.asarray(values).astype(np.uint64) ^ np.uint64(key & _MASK)
    mixed += np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def permute(index: np.ndarray | int, n: int, key: int) -> np.ndarray:
    """Where each index goes under the permutation of [0, n) that ``key`` names: int64, the shape of ``index``.

    ``permute(np.arange(n), n, key)`` holds every number below n once. Different keys give unrelated permutations.

    Raises:
      ValueError: n is not in [1, 2**62], or an index is not in [0, n).
    """
    if not 1 <= n <= MAX_SIZE:
        raise ValueError(f"n={n} is not in [1, 2**62]")
    index = np.asarray(index, np.int64)
    if index.size and (index.min() < 0 or index.max() >= n):
        raise ValueError(f"an index is outside [0, {n}): {int(index.min())}..{int(index.max())}")
    side = max(math.isqrt(n - 1) + 1, 4)  # Over 3 x 3 the network reaches half of all orders only.
    num_rounds = _ROUNDS if side > _TINY_SIDE else _ROUNDS_TINY
    round_keys = _round_keys(key, num_rounds)
    value = _feistel(index.ravel().astype(np.uint64), np.uint64(side), round_keys)
    outside = np.flatnonzero(value >= n)
    while outside.size:  # Follow the cycle: it comes back inside, for the index itself lies inside.
        value[outside] = _feistel(value[outside], np.uint64(side), round_keys)
        outside = outside[value[outside] >= n]
    return value.astype(np.int64).reshape(index.shape)


@functools.lru_cache(maxsize=16)
def _round_keys(key: int, num_rounds: int) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(mix_key(key, i)) for i in range(num_rounds))


def _feistel(value: np.ndarray, side: np.uint64, round_keys: tuple[np.uint64, ...]) -> np.ndarray:
    left, right = np.divmod(value, side)
    for round_key in round_keys:
        # Multiply, fold, multiply: the upper 48 bits are well mixed. uint64 wraps, as it should.
        mixed = right ^ round_key
        mixed *= _MIX_1
        mixed ^= mixed >> _SHIFT
        mixed *= _MIX_2
        mixed >>= _DROP
        mixed += left
        mixed %= side
        left, right = right, mixed
    return left * side + right


def _splitmix(x: int) -> int:
    x = (x + _GOLDEN) & _MASK
    x = ((x ^ (x >> 30)) * int(_MIX_1)) & _MASK
    x = ((x ^ (x >> 27)) * int(_MIX_2)) & _MASK
    return x ^ (x >> 31)
