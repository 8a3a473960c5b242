"""Ways of asking for an answer, over any task: directly, with examples, by steps, by a vote, by smaller questions.

A strategy is a conversation with a model about one item, written as a generator: it yields what is to be completed and
is sent the completion. `run` holds many at once and hands each round of prompts over together; it knows of no model.
"""

import dataclasses
import re
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from jaxlm.evals.tasks.answers import Written
from jaxlm.evals.tasks.task import Item, Order, Task, choose_shots, direct_prompt


class Ask(NamedTuple):
    """A prompt to be completed."""

    prompt: str
    stop: tuple[str, ...]
    max_new_tokens: int
    temperature: float = 0.0
    item: str = ""
    """The item's name; with the two numbers and a seed it makes the draw."""
    sample: int = 0
    """Which of the item's samples it belongs to."""
    turn: int = 0
    """How many prompts that sample had before."""


MAX_TURNS = 16
"""More prompts than one sample of an item may have: draws are numbered by it."""


class Final(NamedTuple):
    """The text to read the answer from."""

    text: str
    behind_cue: bool


Conversation = Generator[Ask, str, Final]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How every item of a task is asked."""

    name: str
    converse: Callable[[Task, Item], Conversation]
    num_samples: int = 1
    temperature: float = 0.0


class Outcome(NamedTuple):
    """What came of one item."""

    item: Item
    written: Written
    exchanges: tuple[tuple[tuple[str, str], ...], ...]
    """For each sample its prompts with their completions."""


def direct(num_shots: int = 0, *, seed: int = 0, order: Order = "given") -> Strategy:
    """The answer at once: behind examples, or without one behind the form's cue."""

    def converse(task: Task, item: Item) -> Conversation:
        form = task.form
        prompt = direct_prompt(task, item, choose_shots(task, item, num_shots, seed=seed, order=order))
        if form.cue and not num_shots:
            prompt = f"{prompt}{form.template.gap}{form.cue}"
        return Final((yield Ask(prompt, form.stop, form.max_new_tokens)), behind_cue=True)

    return Strategy("direct" if not num_shots else f"{num_shots}-shot", converse)


def chain_of_thought(num_shots: int, *, seed: int = 0, order: Order = "given") -> Strategy:
    """Examples whose steps stand before their answers (Wei et al. 2022).

    The conversation raises ValueError for examples without steps.
    """

    def converse(task: Task, item: Item) -> Conversation:
        form, shots = task.form, choose_shots(task, item, num_shots, seed=seed, order=order)
        bare = next((shot.name for shot in shots if not shot.solution), None)
        if bare is not None:
            raise ValueError(f"{bare} shows no steps: chain of thought needs examples with steps, or zero_shot_cot")
        worked = [(shot.question, f"{form.opening}{shot.solution}{form.lead}{shot.answer}.") for shot in shots]
        prompt = form.template.prompt(worked, item.question, instruction=task.instruction(item))
        if form.opening:
            prompt = f"{prompt}{form.template.gap}{form.opening.rstrip()}"
        return Final((yield Ask(prompt, form.stop, form.max_reasoning_tokens)), behind_cue=False)

    return Strategy(f"{num_shots}-shot-cot", converse)


def zero_shot_cot() -> Strategy:
    """Steps first, then the answer behind them, in two prompts (Kojima et al. 2022)."""

    def converse(task: Task, item: Item) -> Conversation:
        form = task.form
        first = f"{direct_prompt(task, item, ())}{form.template.gap}{form.reasoning}"
        stop = form.stop if form.steps_stop is None else form.steps_stop
        steps = yield Ask(first, stop, form.max_reasoning_tokens)
        second = f"{first}{steps} \n{form.cue_after_steps}"
        return Final((yield Ask(second, form.stop, form.max_new_tokens)), behind_cue=True)

    return Strategy("zero-shot-cot", converse)


def least_to_most(decompose: str = "", *, max_parts: int = 6) -> Strategy:
    """Smaller questions first, each answered with those before it in view, the item's own last (Zhou et al. 2023).

    ``decompose``: worked examples of taking questions apart, put before the first prompt. The questions that the model
    names are those in quotation marks, else its numbered or bulleted lines; of none the item is asked as it is.
    """
    if not 0 <= max_parts <= MAX_TURNS - 2:
        raise ValueError(f"max_parts={max_parts} must lie in 0..{MAX_TURNS - 2}")

    def converse(task: Task, item: Item) -> Conversation:
        form = task.form
        ask = f"{form.template.ask(item.question)} To answer this, we first need to answer these questions:\n"
        listed = yield Ask(f"{decompose}{ask}1.", form.stop, form.max_reasoning_tokens)
        answered: list[tuple[str, str]] = []
        for question in [*sub_questions(f"1.{listed}")[:max_parts], item.question]:
            # The item itself stands in front, as what the smaller questions are about.
            about = item.question if question != item.question or answered else ""
            prompt = form.template.prompt(answered, question, instruction=about)
            answer = yield Ask(prompt, form.stop, form.max_reasoning_tokens)
            answered.append((question, answer.strip()))
        return Final(answered[-1][1], behind_cue=False)

    return Strategy("least-to-most", converse)


def self_consistency(strategy: Strategy, num_samples: int, *, temperature: float = 0.7) -> Strategy:
    """Several samples of a strategy; their commonest answer counts (Wang et al. 2023)."""
    name = f"{strategy.name}, vote of {num_samples}"
    return dataclasses.replace(strategy, name=name, num_samples=num_samples, temperature=temperature)


def sub_questions(text: str) -> list[str]:
    """The questions that a text names.

    >>> sub_questions('We need to know: "How old is Elsa?", "How old was she?".')
    ['How old is Elsa?', 'How old was she?']
    >>> sub_questions("1. How many cats?\\n2. How many dogs?")
    ['How many cats?', 'How many dogs?']
    """
    quoted = re.findall(r'"([^"\n]+\?)"', text)
    return quoted or re.findall(r"^\s*(?:\d+[.)]|[-*])\s*(.*\?)\s*$", text, re.MULTILINE)


def run(
    strategy: Strategy, task: Task, items: Sequence[Item], generate: Callable[[list[Ask]], Sequence[str]]
) -> list[Outcome]:
    """Holds the conversations of all items and samples; ``generate(asks)`` completes one round of prompts."""
    pairs = [(item, sample) for item in items for sample in range(strategy.num_samples)]
    talks = [strategy.converse(task, item) for item, _ in pairs]
    finals: dict[int, Final] = {}
    exchanges: list[list[tuple[str, str]]] = [[] for _ in pairs]

    def placed(i: int, ask: Ask) -> Ask:
        item, sample = pairs[i]
        turn = len(exchanges[i])
        return ask._replace(temperature=strategy.temperature, item=item.name, sample=sample, turn=turn)

    waiting = {i: placed(i, next(talk)) for i, talk in enumerate(talks)}
    while waiting:
        replies = generate(list(waiting.values()))
        again = {}
        for (i, ask), reply in zip(waiting.items(), replies, strict=True):
            exchanges[i].append((ask.prompt, reply))
            assert len(exchanges[i]) <= MAX_TURNS, f"strategy {strategy.name!r} asks on and on"
            try:
                again[i] = placed(i, talks[i].send(reply))
            except StopIteration as end:
                finals[i] = end.value
        waiting = again
    outcomes = []
    for number, item in enumerate(items):
        mine = range(number * strategy.num_samples, (number + 1) * strategy.num_samples)
        written = Written(tuple(finals[i].text for i in mine), finals[mine[0]].behind_cue)
        outcomes.append(Outcome(item, written, tuple(tuple(exchanges[i]) for i in mine)))
    return outcomes
