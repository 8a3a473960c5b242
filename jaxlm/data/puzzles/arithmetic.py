"""Sums to be worked out: a question, the steps that lead to its answer, and the answer, symbol by symbol.

======================  =========================  ============================================  ===========
kind                    question                   steps                                         answer
======================  =========================  ============================================  ===========
``sum`` (modulo 10)     3 1 8 5                    the sum of the digits so far: 3 4 2 7         7
``parity``              1 0 1 1                    the parity of the bits so far: 1 1 0 1        1
``add``                 2 7 + 4 8                  from the right, digit and carry: 5 1 7 0      0 7 5
``multiply``            2 7 * 4 8                  for each digit on the right the product's     1 2 9 6
                                                   digits and carries, then the total so far
======================  =========================  ============================================  ===========

A row is question, ``=``, answer, or with steps question, ``:``, steps, ``=``, answer: all rows of a kind are equally
long, and numbers are padded with zeros. Which questions are held out depends on their digits alone.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from jaxlm.data.puzzles.draws import draw_digits, generator

Kind = Literal["sum", "parity", "add", "multiply"]
SYMBOLS = "0123456789+*=:"
"""A token's number is its place here."""
PLUS, TIMES, EQUALS, COLON = 10, 11, 12, 13


@dataclasses.dataclass(frozen=True)
class ArithmeticConfig:
    """One kind of question."""

    kind: Kind = "sum"
    length: int = 8
    """Digits or bits of the question, of two numbers those of each."""

    def __post_init__(self) -> None:
        most = {"sum": 18, "parity": 60, "add": 9, "multiply": 9}[self.kind]
        if not 1 <= self.length <= most:
            raise ValueError(f"length={self.length} of kind={self.kind!r} is outside 1 .. {most}")


class Questions(NamedTuple):
    """int32 [b, ...], as symbols."""

    question: np.ndarray
    steps: np.ndarray
    answer: np.ndarray

    def prompt(self, *, with_steps: bool) -> np.ndarray:
        """The question and the sign that asks for the answer, or for the steps."""
        return np.pad(self.question, ((0, 0), (0, 1)), constant_values=COLON if with_steps else EQUALS)

    def rows(self, *, with_steps: bool) -> np.ndarray:
        """All of it."""
        prompt = self.prompt(with_steps=with_steps)
        if not with_steps:
            return np.concatenate([prompt, self.answer], axis=1)
        equals = np.full((len(prompt), 1), EQUALS, np.int32)
        return np.concatenate([prompt, self.steps, equals, self.answer], axis=1)


def draw_questions(
    config: ArithmeticConfig, seed: int, cursor: int, num_rows: int, *, for_test: bool = False
) -> Questions:
    """Questions that are held out (``for_test``), or that are not, evenly drawn."""
    rng = generator(seed, cursor, for_test=for_test)
    base = 2 if config.kind == "parity" else 10
    width = config.length * (2 if config.kind in ("add", "multiply") else 1)
    digits_bn = draw_digits(rng, base, width, num_rows, for_test=for_test)
    return _WORKED[config.kind](digits_bn, config.length)


def spell(symbols: np.ndarray) -> str:
    """A row as text: ``[3, 12, 3]`` -> ``"3=3"``."""
    return "".join(SYMBOLS[i] for i in symbols.tolist())


def _digits(numbers_b: np.ndarray, count: int) -> np.ndarray:
    """``count`` digits, the first the largest."""
    return (numbers_b[:, None] // 10 ** np.arange(count)[::-1] % 10).astype(np.int32)


def _running(digits_bn: np.ndarray, modulus: int) -> Questions:
    steps_bn = np.cumsum(digits_bn, axis=1, dtype=np.int32) % modulus
    return Questions(digits_bn, steps_bn, steps_bn[:, -1:])


def _two_numbers(digits_bn: np.ndarray, length: int, sign: int) -> np.ndarray:
    return np.insert(digits_bn, length, sign, axis=1)


def _add(digits_bn: np.ndarray, length: int) -> Questions:
    a_bn, b_bn = digits_bn[:, :length], digits_bn[:, length:]
    carry_b, steps = np.zeros(len(digits_bn), np.int32), []
    for place in reversed(range(length)):
        total_b = a_bn[:, place] + b_bn[:, place] + carry_b
        carry_b = total_b // 10
        steps += [total_b % 10, carry_b]
    answer_bn = np.stack([carry_b, *steps[-2::-2]], axis=1)
    return Questions(_two_numbers(digits_bn, length, PLUS), np.stack(steps, axis=1), answer_bn)


def _multiply(digits_bn: np.ndarray, length: int) -> Questions:
    a_bn = digits_bn[:, :length]
    a_b = a_bn @ 10 ** np.arange(length, dtype=np.int64)[::-1]
    total_b, steps = np.zeros(len(digits_bn), np.int64), []
    for shift, by_b in enumerate(digits_bn[:, : length - 1 : -1].T):
        carry_b = np.zeros(len(digits_bn), np.int32)
        for place in reversed(range(length)):
            product_b = a_bn[:, place] * by_b + carry_b
            carry_b = product_b // 10
            steps += [product_b % 10, carry_b]
        total_b = total_b + a_b * by_b * 10**shift
        steps += list(_digits(total_b, length + shift + 1)[:, ::-1].T)
    answer_bn = _digits(total_b, 2 * length)
    return Questions(_two_numbers(digits_bn, length, TIMES), np.stack(steps, axis=1).astype(np.int32), answer_bn)


_WORKED = {
    "sum": lambda digits, length: _running(digits, 10),
    "parity": lambda digits, length: _running(digits, 2),
    "add": _add,
    "multiply": _multiply,
}
