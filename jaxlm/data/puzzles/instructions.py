"""Instructions in two words over a string of letters: in which order, and which letters: "turned later abc" -> "dcb".

A template is one pair of words, and is one task. With w words of each sort there are w^2 templates, which fall into w
diagonals: each diagonal has every word once. Whole diagonals are learnt from and whole ones are held out, so every word
of an unseen template was seen, in other company: what rises with the number of tasks is no matter of unknown words.
"""

import dataclasses

import numpy as np

from jaxlm.data.puzzles.draws import draw_digits, generator

NUM_WORDS = 8
"""Of each sort."""
NUM_LETTERS = 16
ORDERS: dict[str, tuple[int, ...]] = {
    "plainly": (0, 1, 2, 3, 4, 5),
    "turned": (5, 4, 3, 2, 1, 0),
    "leftwards": (1, 2, 3, 4, 5, 0),
    "rightwards": (5, 0, 1, 2, 3, 4),
    "paired": (1, 0, 3, 2, 5, 4),
    "halved": (3, 4, 5, 0, 1, 2),
    "woven": (0, 2, 4, 1, 3, 5),
    "inward": (0, 5, 1, 4, 2, 3),
}
"""Which letter of the given ones stands where."""
LETTERS: dict[str, tuple[int, ...]] = {
    "same": tuple(range(NUM_LETTERS)),
    "later": tuple((i + 1) % NUM_LETTERS for i in range(NUM_LETTERS)),
    "earlier": tuple((i - 1) % NUM_LETTERS for i in range(NUM_LETTERS)),
    "mirrored": tuple(NUM_LETTERS - 1 - i for i in range(NUM_LETTERS)),
    "opposite": tuple((i + NUM_LETTERS // 2) % NUM_LETTERS for i in range(NUM_LETTERS)),
    "swapped": tuple(i ^ 1 for i in range(NUM_LETTERS)),
    "tripled": tuple(3 * i % NUM_LETTERS for i in range(NUM_LETTERS)),
    "fived": tuple(5 * i % NUM_LETTERS for i in range(NUM_LETTERS)),
}
"""Which letter becomes which."""
LENGTH = 6
EQUALS = NUM_LETTERS + 2 * NUM_WORDS
VOCAB_SIZE = EQUALS + 1
NUM_GIVEN = 2 + LENGTH + 1
"""Tokens of a prompt: two words, the letters, the sign that asks for the answer."""


@dataclasses.dataclass(frozen=True)
class InstructionsConfig:
    """Which templates are learnt from."""

    num_templates: int = 48
    """Learnt from: a multiple of 8, whole diagonals."""
    num_unseen: int = 16
    """Held out: a multiple of 8."""

    def __post_init__(self) -> None:
        for name in ("num_templates", "num_unseen"):
            if getattr(self, name) < NUM_WORDS or getattr(self, name) % NUM_WORDS:
                raise ValueError(f"{name}={getattr(self, name)} is not a multiple of {NUM_WORDS}, whole diagonals")
        if self.num_templates + self.num_unseen > NUM_WORDS**2:
            raise ValueError(
                f"num_templates={self.num_templates} and num_unseen={self.num_unseen} are more than {NUM_WORDS**2}"
            )


def templates(config: InstructionsConfig, seed: int, *, unseen: bool = False) -> np.ndarray:
    """Pairs of words learnt from, or held out, int [n, 2]: the same ones are held out however many are learnt from, and
    more templates hold all those of fewer."""
    diagonals = np.random.default_rng([seed, 12]).permutation(NUM_WORDS)
    held_out = config.num_unseen // NUM_WORDS
    chosen = diagonals[:held_out] if unseen else diagonals[held_out:][: config.num_templates // NUM_WORDS]
    orders = np.tile(np.arange(NUM_WORDS), len(chosen))
    return np.stack([orders, (orders + np.repeat(chosen, NUM_WORDS)) % NUM_WORDS], axis=1)


def instruction_rows(
    config: InstructionsConfig, seed: int, cursor: int, num_rows: int, *, unseen: bool = False, for_test: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows int32 [b, t] of words, letters, sign and answer, and the number of each row's template [b]; ``for_test``:
    as many of each template as of the others, over strings of letters that no training row has."""
    rng = generator(seed, cursor, for_test=for_test)
    pairs = templates(config, seed, unseen=unseen)
    template_b = np.arange(num_rows) % len(pairs) if for_test else rng.integers(0, len(pairs), num_rows)
    order_b, letters_b = pairs[template_b].T
    given_bn = draw_digits(rng, NUM_LETTERS, LENGTH, num_rows, for_test=for_test)
    moved_bn = np.take_along_axis(given_bn, np.array(list(ORDERS.values()))[order_b], axis=1)
    answer_bn = np.take_along_axis(np.array(list(LETTERS.values()))[letters_b], moved_bn, axis=1)
    words_b2 = NUM_LETTERS + np.stack([order_b, NUM_WORDS + letters_b], axis=1)
    sign_b1 = np.full((num_rows, 1), EQUALS)
    return np.concatenate([words_b2, given_bn, sign_b1, answer_bn], axis=1).astype(np.int32), template_b


def spell(symbols: np.ndarray) -> str:
    """A row as text: ``"turned later abcdef = gfedcb"``."""
    words = [*ORDERS, *LETTERS]
    parts = []
    for symbol in symbols.tolist():
        if symbol < NUM_LETTERS:
            parts.append(chr(ord("a") + symbol))
        else:
            parts.append(" = " if symbol == EQUALS else f"{words[symbol - NUM_LETTERS]} ")
    return "".join(parts)
