"""Pairs of answers judged: by a reward model's numbers or a function's, or by the words of any model that writes."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.pairwise import TEMPLATE, Judgement, Pair, by_scores, by_writing
from jaxlm.evals.strategies import Ask
from jaxlm.run.align.reward_functions import Answer, call_function, find_function
from jaxlm.run.align.reward_lm import RewardLM
from jaxlm.run.handle import load
from jaxlm.run.language_model import LanguageModel
from jaxlm.text.chat.messages import Message


def judge_pairs(
    judge: str | Path,
    pairs: Sequence[Pair],
    *,
    margin: float = 0.0,
    template: str = TEMPLATE,
    seed: int = 0,
    time_limit: float = 60.0,
) -> list[Judgement]:
    """A judgement of each pair.

    Args:
      judge: a run of ``jaxlm reward``, of a model that writes, or ``FILE.py:FUNCTION`` as for `best_of`.
      pairs: what is judged.
      margin: differences of rewards that are draws.
      template: what a judge that writes is asked.
      seed: of its draws; it answers at temperature 0.
      time_limit: of a function, seconds.

    Raises UserError for a judge of steps, and for a model that neither judges nor writes.
    """
    if not Path(judge).is_dir():
        function = find_function(str(judge), {}, field="--judge")

        def call(texts: Sequence[str]) -> list[float]:
            answers = [Answer(pair.prompt, text, {}, pair.name) for pair, text in zip(pairs, texts, strict=True)]
            return call_function(function, answers, name=str(judge), time_limit=time_limit)

        return _by_scores(call, pairs, margin)
    lm = load(judge)
    if isinstance(lm, RewardLM):
        if lm.judge.of == "steps":
            raise UserError(f"{judge} judges steps, not whole answers: give another --judge")
        for pair in pairs:
            for text in (pair.answer, pair.reference):
                if not lm.reads([Message("user", pair.prompt), Message("assistant", text)]):
                    raise UserError(
                        f"an answer to {pair.prompt[:60]!r} is longer, with it, than the {lm.context} tokens that "
                        f"{judge} reads: leave the pair out, or give another --judge"
                    )
        return _by_scores(
            lambda texts: lm.reward(
                [
                    [Message("user", pair.prompt), Message("assistant", text)]
                    for pair, text in zip(pairs, texts, strict=True)
                ]
            ),
            pairs,
            margin,
        )
    return by_writing(pairs, functools.partial(_write, lm, seed), template=template)


def _by_scores(scores_of: Callable[[Sequence[str]], Any], pairs: Sequence[Pair], margin: float) -> list[Judgement]:
    return by_scores(
        scores_of([pair.answer for pair in pairs]), scores_of([pair.reference for pair in pairs]), margin=margin
    )


def _write(lm: LanguageModel, seed: int, asks: list[Ask]) -> list[str]:
    """One completion of each; of a model that was taught to chat, one answer."""
    prompts, how = [ask.prompt for ask in asks], {"max_new_tokens": asks[0].max_new_tokens, "temperature": 0.0}
    if lm.form is not None:
        return [one.text for one in lm.answer(prompts, seed=seed, **how)]
    return [one.text for one in lm.generate(prompts, seed=seed, stop=asks[0].stop, slide=True, **how)]
