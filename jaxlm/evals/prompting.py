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
    """Places of ``num_shots`` examples, drawn without regard to their texts, the classes in turn and in mixed order. Of
    the last turn, where it has more classes than examples are left, they are drawn too."""
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = {name: [] for name in sorted(set(labels))}
    for i, label in enumerate(labels):
        members[label].append(i)
    places = [rng.permutation(found).tolist() for found in members.values()]
    chosen: list[int] = []
    for turn in range(max(map(len, places), default=0)):
        here, left = [found[turn] for found in places if turn < len(found)], num_shots - len(chosen)
        chosen += here if len(here) <= left else rng.choice(here, left, replace=False).tolist()
        if len(chosen) == num_shots:
            break
    return [chosen[i] for i in rng.permutation(len(chosen))]


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
