"""Conversations in the OpenAI messages form, answers that were ranked or judged, and what is none of these."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError

ROLES = ("system", "user", "assistant", "tool")


class Message(NamedTuple):
    """One turn."""

    role: str
    """system (first, at most once), user, assistant or tool."""
    content: str


class Conversation(NamedTuple):
    """Turns in order."""

    messages: tuple[Message, ...]
    where: str = "this conversation"
    """File and line, for errors."""


class Ranking(NamedTuple):
    """Answers to one prompt, ranked."""

    prompt: tuple[Message, ...]
    """The turns before the answers."""
    answers: tuple[str, ...]
    """At least two; of a pair the chosen one first."""
    ranks: tuple[int, ...]
    """Of each answer, 0 = best; equal ranks are ties."""
    margins: tuple[float, ...] = ()
    """Of each answer, where raters said how far apart they are: the rewards of two should differ by as much as their
    margins. Of a pair (margin, 0); empty = all 0."""
    source: str = ""
    """Where the judgement comes from, for scores by source."""
    where: str = "this ranking"


class Judged(NamedTuple):
    """One answer that was found good or bad by itself."""

    prompt: tuple[Message, ...]
    answer: str
    desirable: bool
    source: str = ""
    where: str = "this answer"


class Prompt(NamedTuple):
    """Turns to be answered."""

    messages: tuple[Message, ...]
    record: dict[str, Any]
    """The whole object that it was read from: what a checker of answers may look at."""
    where: str = "this prompt"


class Stepped(NamedTuple):
    """An answer in steps, each found right or wrong."""

    prompt: tuple[Message, ...]
    steps: tuple[str, ...]
    labels: tuple[bool, ...]
    """Of each step, true = right."""
    source: str = ""
    where: str = "this answer"


def check_turns(messages: Sequence[Message], where: str) -> None:
    """Raises UserError for no turns, an unknown role, an empty turn, and a system turn that is not the first."""
    if not messages:
        raise UserError(f"{where} has no messages: give at least a user's and an assistant's turn")
    for number, (role, content) in enumerate(messages, start=1):
        if role not in ROLES:
            raise UserError(f"{where}: message {number} has the role {role!r}: use {', '.join(ROLES)}")
        if not content.strip():
            raise UserError(f"{where}: message {number} ({role}) is empty: leave it out or write it")
        if role == "system" and number > 1:
            twice = messages[0].role == "system"
            what = "a second system turn" if twice else "a system turn after others"
            raise UserError(f"{where}: message {number} is {what}: give one, and give it first")


def as_messages(value: Any, where: str) -> tuple[Message, ...]:
    """What the user says, or turns as ``Message`` or ``{"role", "content"}``, as messages that are checked."""
    if isinstance(value, str):
        value = [Message("user", value)]
    out: list[Message] = []
    for turn in value:
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else turn
        if not isinstance(role, str) or not isinstance(content, str):
            raise UserError(f"{where} holds {turn!r:.80}, which is no turn: give role and content, both text")
        out.append(Message(role, content))
    check_turns(out, where)
    return tuple(out)


def check_conversation(conversation: Conversation) -> Conversation:
    """The conversation itself. Raises UserError as `check_turns` does, and where no turn is the assistant's."""
    check_turns(conversation.messages, conversation.where)
    if not any(message.role == "assistant" for message in conversation.messages):
        raise UserError(f"{conversation.where} has no assistant turn: there is nothing to learn from it")
    return conversation


def check_ranking(ranking: Ranking) -> Ranking:
    """The ranking itself. Raises UserError for fewer than two answers, empty or identical ones, ranks that say nothing,
    and a prompt that is none (`check_turns`) or ends with the assistant."""
    where = ranking.where
    _check_prompt(ranking.prompt, where)
    if len(ranking.answers) < 2 or len(ranking.answers) != len(ranking.ranks):
        raise UserError(
            f"{where} has {len(ranking.answers)} answers and {len(ranking.ranks)} ranks: give at least two of each"
        )
    if ranking.margins:
        _check_margins(ranking)
    first: dict[str, int] = {}
    for number, answer in enumerate(ranking.answers, start=1):
        if not answer.strip():
            raise UserError(f"{where}: answer {number} is empty: leave it out or write it")
        same = first.setdefault(answer, number)
        if same != number:
            raise UserError(f"{where}: answers {same} and {number} are identical: no preference can be learnt")
    if len(set(ranking.ranks)) < 2:
        raise UserError(f"{where}: all answers have the same rank: no preference can be learnt")
    return ranking


def _check_margins(ranking: Ranking) -> None:
    """Raises UserError where there is not one for each answer, or a better answer has the lower one."""
    where, margins = ranking.where, ranking.margins
    if len(margins) != len(ranking.answers):
        raise UserError(f"{where} has {len(ranking.answers)} answers and {len(margins)} margins: give one for each")
    for (rank, margin), (next_rank, next_margin) in itertools.combinations(zip(ranking.ranks, margins, strict=True), 2):
        if (rank - next_rank) * (margin - next_margin) > 0:
            raise UserError(f"{where}: of two answers the better one has the lower margin: {ranking.ranks}, {margins}")


def check_judged(judged: Judged) -> Judged:
    """The judged answer itself. Raises UserError for an empty one and for a prompt that is none."""
    _check_prompt(judged.prompt, judged.where)
    if not judged.answer.strip():
        raise UserError(f"{judged.where}: the answer is empty: leave it out or write it")
    return judged


def check_prompt(prompt: Prompt) -> Prompt:
    """The prompt itself. Raises UserError where it is none, or ends with the assistant."""
    _check_prompt(prompt.messages, prompt.where)
    return prompt


def check_stepped(stepped: Stepped) -> Stepped:
    """The answer itself. Raises UserError for no steps, empty ones, another number of labels, and a prompt that is
    none."""
    _check_prompt(stepped.prompt, stepped.where)
    if not stepped.steps or len(stepped.steps) != len(stepped.labels):
        raise UserError(
            f"{stepped.where} has {len(stepped.steps)} steps and {len(stepped.labels)} labels: give one for each step"
        )
    for number, step in enumerate(stepped.steps, start=1):
        if not step.strip():
            raise UserError(f"{stepped.where}: step {number} is empty: leave it out or write it")
        if "\n" in step:
            raise UserError(f"{stepped.where}: step {number} has a line break, and a step is a line: split it")
    return stepped


def _check_prompt(prompt: Sequence[Message], where: str) -> None:
    check_turns(prompt, where)
    if prompt[-1].role in ("assistant", "system"):
        raise UserError(f"{where}: the prompt ends with the {prompt[-1].role}: let it end with the user")
