"""What a model reads: examples in front, the question behind them; and the label whose words it finds likeliest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Template:
    """How a question is put, and how the parts of a prompt are joined."""

    layout: str = "Q: {question}\nA:"
    gap: str = " "
    """Between a question and its answer."""
    between: str = "\n\n"
    """Between examples."""

    def ask(self, question: str) -> str:
        """One question. (No str.format: questions hold braces.)"""
        return self.layout.replace("{question}", question)

    def prompt(self, shots: Sequence[tuple[str, str]], question: str, *, instruction: str = "") -> str:
        """An instruction, questions with their answers, and the question; its answer is to follow behind ``gap``.

        >>> Template("{question}\\nkind:").prompt([("Return 1.", "function")], "A queue.")
        'Return 1.\\nkind: function\\n\\nA queue.\\nkind:'
        """
        done = [f"{self.ask(shot)}{self.gap}{answer}" for shot, answer in shots]
        return self.between.join([*([instruction] if instruction else []), *done, self.ask(question)])


def draw_shots(labels: Sequence[str], num_shots: int, seed: int) -> list[int]:
    """Places of ``num_shots`` examples, drawn without regard to their texts, the classes in turn and in mixed order."""
    rng = np.random.default_rng(seed)
    places = {
        name: list(rng.permutation([i for i, label in enumerate(labels) if label == name]))
        for name in sorted(set(labels))
    }
    turns = max(map(len, places.values()), default=0)
    in_turn = [int(found[turn]) for turn in range(turns) for found in places.values() if turn < len(found)]
    return [in_turn[i] for i in rng.permutation(min(num_shots, len(in_turn)))]


def choose(
    nats_fn: Callable[[list[str]], Sequence[float]], prompts: Sequence[str], choices: Sequence[str]
) -> np.ndarray:
    """Which of ``choices`` each prompt goes on with, int64 [prompts]: that of the highest ``log p(choice | prompt)``,
    not divided by its length.

    ``nats_fn(texts)``: -log p of each whole text. The texts of one prompt differ in the choice alone, so what the
    prompt costs is the same in all of them.
    """
    nats = np.asarray(nats_fn([f"{prompt} {choice}" for prompt in prompts for choice in choices]), np.float64)
    return nats.reshape(len(prompts), len(choices)).argmin(axis=1)
