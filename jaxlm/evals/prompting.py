"""Classification by prompting: labelled examples in front, and the label whose words the model finds likeliest."""

from collections.abc import Callable, Sequence

import numpy as np


def few_shot_prompt(shots: Sequence[tuple[str, str]], text: str, *, cue: str) -> str:
    """Shots and text, each with the cue below it; the words of a label are to follow behind a space.

    >>> few_shot_prompt([("Return 1.", "function")], "A queue.", cue="kind:")
    'Return 1.\\nkind: function\\n\\nA queue.\\nkind:'
    """
    return "".join(f"{shot}\n{cue} {words}\n\n" for shot, words in shots) + f"{text}\n{cue}"


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
