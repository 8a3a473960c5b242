"""Items put to a model, some at a time, and what is kept of each: by likelihood, or written by a strategy."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from jaxlm.core.errors import UserError
from jaxlm.evals import strategies
from jaxlm.evals.grading import Graded, Output
from jaxlm.evals.strategies import MAX_TURNS, Ask, Strategy
from jaxlm.evals.tasks import answers
from jaxlm.evals.tasks.answers import Written, read_answer
from jaxlm.evals.tasks.kinds import LIKELIHOOD_KINDS
from jaxlm.evals.tasks.task import Item, Likelihood, Order, Task, choose_shots, direct_prompt
from jaxlm.run.language_model import Generation, LanguageModel, OverlongError, RequestError
from jaxlm.text.chat.messages import as_messages

StrategyName = Literal["direct", "cot", "zero-shot-cot", "least-to-most"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a task is put to a model: what its items' results depend on, besides the model."""

    num_shots: int = 0
    order: Order = "given"
    seed: int = 0
    overlong: Literal["truncate", "refuse"] = "truncate"
    limit: int | None = None
    strategy: StrategyName | None = None
    """None: by likelihood where the task's kind has it, else ``direct``."""
    num_samples: int = 1
    temperature: float = 0.0
    chat: bool | None = None
    """Whether written tasks are put as conversations, in the model's chat template; None: instructions are, where the
    model was taught one."""

    def __post_init__(self) -> None:
        if self.num_shots < 0 or self.num_samples < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(
                f"--shots {self.num_shots} must be at least 0, --samples {self.num_samples} and --limit {self.limit} 1"
            )
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError(f"--samples {self.num_samples} at temperature 0 are all the same: give --temperature 0.7")
        if self.strategy is None and (self.num_samples > 1 or self.temperature):
            raise ValueError("--samples and --temperature are for written answers: name a --strategy")
        if self.strategy == "cot" and not self.num_shots:
            raise ValueError("--strategy cot shows worked examples: give --shots K, or take zero-shot-cot")
        if self.num_shots and self.strategy in ("zero-shot-cot", "least-to-most"):
            raise ValueError(f"--strategy {self.strategy} shows no examples: leave --shots {self.num_shots} out")


class Scorer(Protocol):
    """One way of scoring a task's items by a model."""

    name: str
    """Of the way: "0shot", "zero-shot-cot"."""
    settings: Settings
    """With the examples that are shown: none for a task that takes none."""

    def prompts(self) -> Sequence[str]:
        """What the model reads first of every item; raises UserError for what cannot be asked."""
        ...

    def chats(self, lm: LanguageModel) -> bool:
        """Whether this model is asked in conversations; raises UserError where it is to be and cannot."""
        ...

    def run(self, lm: LanguageModel, places: Sequence[int]) -> list[dict[str, Any]]:
        """The items at these places, each as a record with ``name``, ``scores`` and ``truncated``."""
        ...

    def check(self, record: Mapping[str, Any]) -> None:
        """Raises ValueError for a record that lacks what `graded` reads."""
        ...

    def graded(self, place: int, record: Mapping[str, Any]) -> Graded:
        """What a record says of its item."""
        ...


def make_scorer(task: Task, settings: Settings) -> Scorer:
    """By likelihood, or by the strategy that the settings name. Pairs, whole texts and instructions stand without
    examples."""
    if task.form.kind in ("pair", "text", "instruction") and settings.strategy in (None, "direct"):
        settings = dataclasses.replace(settings, num_shots=0)
    if task.form.kind == "instruction" and (settings.num_samples > 1 or settings.strategy not in (None, "direct")):
        raise UserError(
            f"task {task.name!r} is answered by one text, with nothing to reason to or to vote on: give neither "
            "--samples nor another --strategy than direct"
        )
    if settings.strategy is None and task.form.kind in LIKELIHOOD_KINDS:
        if settings.chat:
            raise UserError(
                f"--chat is for written answers, and task {task.name!r} is scored by likelihoods: name a --strategy, "
                "or leave --chat out"
            )
        return ByLikelihood(task, settings)
    if task.form.kind in ("pair", "text"):
        raise UserError(f"task {task.name!r} is scored by likelihoods: leave --strategy {settings.strategy} out")
    return ByWriting(task, settings)


class ByLikelihood:
    """The continuations of each item behind its prompt; pairs stand alone."""

    def __init__(self, task: Task, settings: Settings):
        self.task, self.settings, self.kind = task, settings, LIKELIHOOD_KINDS[task.form.kind]
        self.name = f"{settings.num_shots}shot"
        self._prompts = self.prompts()
        item = task.items[0]
        asked = self.kind.requests(task, item, self._prompts[0])
        self._scores = set(self.kind.score(item, [Likelihood(-1.0, 1, 1, False)] * len(asked)))

    def prompts(self) -> list[str]:
        """Instruction, examples and question; "" for pairs and whole texts."""
        task, settings = self.task, self.settings
        if task.form.kind in ("pair", "text"):
            return [""] * len(task.items)
        try:
            return [
                direct_prompt(
                    task, item, choose_shots(task, item, settings.num_shots, seed=settings.seed, order=settings.order)
                )
                for item in task.items
            ]
        except ValueError as error:
            raise UserError(str(error)) from error

    def chats(self, lm: LanguageModel) -> bool:
        """Never: what is scored is how a text goes on."""
        return False

    def run(self, lm: LanguageModel, places: Sequence[int]) -> list[dict[str, Any]]:
        """Records that ``tools.score`` reads as well. Raises UserError for a log-probability that is NaN, and for an
        overlong prompt where it is not to be cut."""
        asked = [self.kind.requests(self.task, self.task.items[i], self._prompts[i]) for i in places]
        flat = [one for requests in asked for one in requests]
        try:
            replies = iter(lm.likelihoods(flat, truncate=self.settings.overlong == "truncate"))
        except RequestError as error:
            owners = [i for i, requests in zip(places, asked, strict=True) for _ in requests]
            name = self.task.items[owners[error.number]].name
            if not isinstance(error, OverlongError):
                raise UserError(f"{name} {error.why}") from error
            raise UserError(
                f"{name}: a prompt and its answer of {error.num_tokens} tokens are more than the context of "
                f"{error.context}: show fewer examples, or let it be cut (--overlong truncate)"
            ) from error
        records = []
        for i, requests in zip(places, asked, strict=True):
            item, mine = self.task.items[i], [next(replies) for _ in requests]
            if any(math.isnan(one.logprob) for one in mine):
                raise _no_number(self.task, item)
            records.append(
                {
                    "name": item.name,
                    "prompt": self._prompts[i],
                    "continuations": [one.continuation for one in requests],
                    "gold": item.answer,
                    "logprobs": [one.logprob for one in mine],
                    "num_tokens": [one.num_tokens for one in mine],
                    "num_bytes": [one.num_bytes for one in mine],
                    "is_greedy": [one.is_greedy for one in mine],
                    "token_logprobs": [list(one.token_logprobs) for one in mine],
                    "truncated": max(one.truncated for one in mine),
                    "scores": self.kind.score(item, mine),
                }
            )
        return records

    def check(self, record: Mapping[str, Any]) -> None:
        """All scores are there."""
        _check_scores(record, self._scores)

    def graded(self, place: int, record: Mapping[str, Any]) -> Graded:
        """Its scores as they were."""
        item = self.task.items[place]
        return Graded(item, Output(item.name, item.name), None, record["scores"])


class ByWriting:
    """The conversations of a strategy, and the answers read off them."""

    def __init__(self, task: Task, settings: Settings):
        self.task, self.settings = task, settings
        self.strategy = make_strategy(settings)
        self.name = self.strategy.name.replace(", vote of ", "-vote")
        self._places = {item.name: place for place, item in enumerate(task.items)}
        self.prompts()
        for item in task.items:
            try:
                self._scores = set(answers.score(task.form, item, None))
            except ValueError as error:
                raise UserError(f"{item.name}: {error}") from error

    def prompts(self) -> list[str]:
        """The first prompt of every item."""
        try:
            return [next(self.strategy.converse(self.task, item)).prompt for item in self.task.items]
        except ValueError as error:
            raise UserError(str(error)) from error

    def chats(self, lm: LanguageModel) -> bool:
        """As the settings say."""
        if self.settings.chat and lm.form is None:
            raise UserError("--chat: this model was taught no chat template, leave it out")
        wanted = self.task.form.kind == "instruction" if self.settings.chat is None else self.settings.chat
        return wanted and lm.form is not None

    def run(self, lm: LanguageModel, places: Sequence[int]) -> list[dict[str, Any]]:
        """Records that ``tools.score`` reads as well. Raises UserError for a log-probability that is NaN, and for an
        overlong prompt where it is not to be cut."""
        logprobs: dict[tuple[str, int, int], list[float]] = {}
        cut: dict[str, int] = {}

        def generate(asks: list[Ask]) -> list[str]:
            texts: dict[int, str] = {}
            for how in dict.fromkeys((ask.stop, ask.max_new_tokens) for ask in asks):
                mine = [i for i, ask in enumerate(asks) if (ask.stop, ask.max_new_tokens) == how]
                said = self._generate(lm, [asks[i] for i in mine])
                for i, one in zip(mine, said, strict=True):
                    cut[asks[i].item] = max(cut.get(asks[i].item, 0), one.truncated)
                    if any(map(math.isnan, one.logprobs)):
                        raise _no_number(self.task, self.task.items[self._places[asks[i].item]])
                    texts[i] = one.text
                    logprobs[asks[i].item, asks[i].sample, asks[i].turn] = [round(x, 6) for x in one.logprobs]
            return [texts[i] for i in range(len(asks))]

        items = [self.task.items[i] for i in places]
        return [
            {
                "name": one.item.name,
                "outputs": list(one.written.texts),
                "behind_cue": one.written.behind_cue,
                "answer": (answer := read_answer(self.task.form, one.written)),
                "gold": one.item.answer,
                "exchanges": [
                    [
                        {"prompt": prompt, "completion": text, "token_logprobs": logprobs[one.item.name, sample, turn]}
                        for turn, (prompt, text) in enumerate(exchange)
                    ]
                    for sample, exchange in enumerate(one.exchanges)
                ],
                "truncated": cut.get(one.item.name, 0),
                "scores": answers.score(self.task.form, one.item, answer),
            }
            for one in strategies.run(self.strategy, self.task, items, generate)
        ]

    def _generate(self, lm: LanguageModel, asks: Sequence[Ask]) -> list[Generation]:
        """One completion of each, or one answer."""
        chat = self.chats(lm)
        # Of an n-gram's context the newest few tokens are all that is read.
        if self.settings.overlong == "refuse" and lm.family != "ngram":
            for ask in asks:
                length = _prompt_length(lm, ask.prompt, chat)
                if length + ask.max_new_tokens > lm.context:
                    raise UserError(
                        f"{ask.item}: a prompt of {length} tokens and {ask.max_new_tokens} new ones exceed the "
                        f"context of {lm.context}: show fewer examples, or let it be cut (--overlong truncate)"
                    )
        per_item = self.settings.num_samples * MAX_TURNS
        how: dict[str, Any] = {
            "max_new_tokens": asks[0].max_new_tokens,
            "temperature": asks[0].temperature,
            "seed": self.settings.seed,
            "slide": True,
            "numbers": [self._places[ask.item] * per_item + ask.sample * MAX_TURNS + ask.turn for ask in asks],
        }
        prompts = [ask.prompt for ask in asks]
        # An answer ends with the assistant's turn.
        return lm.answer(prompts, **how) if chat else lm.generate(prompts, stop=asks[0].stop, **how)

    def check(self, record: Mapping[str, Any]) -> None:
        """All scores are there, the texts, and the answer that was read off them."""
        _check_scores(record, self._scores)
        texts, answer = record.get("outputs"), record.get("answer", 0)
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError("no list of texts under 'outputs'")
        if not isinstance(record.get("behind_cue"), bool) or not isinstance(answer, str | None):
            raise ValueError("no 'behind_cue' or 'answer'")

    def graded(self, place: int, record: Mapping[str, Any]) -> Graded:
        """Its answer and scores as they were."""
        item, written = self.task.items[place], Written(tuple(record["outputs"]), record["behind_cue"])
        return Graded(item, Output(item.name, item.name, written=written), record["answer"], record["scores"])


def _prompt_length(lm: LanguageModel, prompt: str, chat: bool) -> int:
    if chat and lm.form is not None:
        return len(lm.form.prompt(as_messages(prompt, "prompt"), "prompt"))
    return len(lm.tokenizer.encode(prompt)) + int(getattr(lm, "start_id", None) is not None)


def _check_scores(record: Mapping[str, Any], names: set[str]) -> None:
    missing = sorted(names - record["scores"].keys())
    if missing:
        raise ValueError(f"no {missing[0]!r} among its scores")


class NoNumberError(UserError):
    """A log-probability that is NaN."""


def _no_number(task: Task, item: Item) -> NoNumberError:
    return NoNumberError(
        f"task {task.name!r}, {item.name}: the model's log-probability is NaN, its parameters or activations are "
        "broken: take another checkpoint (--step)"
    )


def make_strategy(settings: Settings) -> Strategy:
    """The strategy that the settings name, its samples and its temperature."""
    how: dict[str, Any] = {"seed": settings.seed, "order": settings.order}
    made = {
        "direct": lambda: strategies.direct(settings.num_shots, **how),
        "cot": lambda: strategies.chain_of_thought(settings.num_shots, **how),
        "zero-shot-cot": strategies.zero_shot_cot,
        "least-to-most": strategies.least_to_most,
    }[settings.strategy or "direct"]()
    if settings.num_samples > 1:
        return strategies.self_consistency(made, settings.num_samples, temperature=settings.temperature)
    return dataclasses.replace(made, temperature=settings.temperature)
