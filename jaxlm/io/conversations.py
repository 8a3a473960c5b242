"""Files of conversations, rankings and judged answers in the forms that are in use. Errors name file and line.

A record's form is told by its fields, so one file may mix them. ``on_bad`` None: the first bad record ends the reading
with a UserError. Else it is called with that error, and the record is passed over.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.eval_files.judgements import as_share
from jaxlm.io.json_records import json_records
from jaxlm.text.chat.messages import (
    Conversation,
    Judged,
    Message,
    Prompt,
    Ranking,
    Stepped,
    check_conversation,
    check_judged,
    check_prompt,
    check_ranking,
    check_stepped,
)

SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "bing": "assistant", "bard": "assistant", "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
"""Who speaks, in ShareGPT's words and in ours."""

_MAX_MARGIN = 1e38  # about what f32 holds

OnBad = Callable[[UserError], None]


def read_conversations(path: str | Path, *, on_bad: OnBad | None = None) -> Iterator[Conversation]:
    """The conversations of a .jsonl or .json file, one by one, checked.

    Forms, by their fields: ``messages`` (OpenAI: objects with ``role`` and ``content``), ``conversations`` (ShareGPT:
    ``from`` and ``value``), ``instruction`` and ``output`` (Alpaca: with ``input`` and ``system`` where there are, the
    input after the instruction and a blank line), ``instruction`` and ``instances`` (Self-Instruct's seed tasks: one of
    ``input`` and ``output``), ``prompt`` and ``completion``.

    Bad are a record of no form, a field of another type, and what `check_conversation` refuses. Raises UserError where
    no record is left.
    """
    return _each(path, _conversation, "conversations", on_bad)


def read_rankings(path: str | Path, *, on_bad: OnBad | None = None) -> Iterator[Ranking]:
    """The rankings of a .jsonl or .json file, one by one, checked.

    Forms: ``chosen`` and ``rejected``, each an answer or a list of messages, with ``prompt`` (a text or messages), or
    without it where both lists begin with the same turns; ``prompt`` and ``answers``, best first, or with ``ranks`` (0
    = best, equal = tie); ``instruction`` or ``input``, ``output_1``, ``output_2`` and which is better: ``label``
    (LLMBar) or ``preference`` (AlpacaEval), 1 or 2, a number between being whichever is nearer. There a draw is bad:
    it orders nothing.

    ``margin`` of a pair, ``margins`` of answers (`Ranking.margins`), ``source`` where there are. Without a source it is
    AlpacaEval's ``generator_2``, else the file's name.
    """
    return _by_file(path, _each(path, _ranking, "rankings", on_bad))


def read_judged(path: str | Path, *, on_bad: OnBad | None = None) -> Iterator[Judged]:
    """Single answers that were judged: ``prompt``, ``completion`` and ``label`` (true = good), ``source`` where there
    is, else the file's name."""
    return _by_file(path, _each(path, _judged, "judged answers", on_bad))


def read_prompts(path: str | Path, *, on_bad: OnBad | None = None) -> Iterator[Prompt]:
    """What is to be answered, from a file of prompts or of conversations: ``messages`` (without the last turn, if that
    is the assistant's) or ``prompt`` (a text or messages). The whole record comes with it, for a checker to read."""
    return _each(path, _open_prompt, "prompts", on_bad)


def read_steps(path: str | Path, *, on_bad: OnBad | None = None) -> Iterator[Stepped]:
    """Answers in labelled steps: ``prompt``, ``steps`` (texts) and ``labels`` (true = right, one for each), ``source``
    where there is, else the file's name."""
    return _by_file(path, _each(path, _stepped, "answers in steps", on_bad))


def _by_file(path: str | Path, items: Iterator[Any]) -> Iterator[Any]:
    """What names no source comes from its file."""
    name = Path(path).name.partition(".")[0]
    return (item if item.source else item._replace(source=name) for item in items)


def _each(
    path: str | Path, read: Callable[[dict[str, Any], str], Any], what: str, on_bad: OnBad | None
) -> Iterator[Any]:
    found = False
    for where, record in json_records(path):
        try:
            item = read(record, where)
        except UserError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        found = True
        yield item
    if not found:
        raise UserError(f"{path} holds no {what}: put one on each line")


def _conversation(record: dict[str, Any], where: str) -> Conversation:
    form = next((read for names, read in _FORMS if all(name in record for name in names)), None)
    if form is None:
        forms = ", ".join(" + ".join(names) for names, _ in _FORMS)
        raise UserError(f"{where} is no conversation (it has {_names(record)}): give one of {forms}")
    return check_conversation(Conversation(form(record, where), where))


def _ranking(record: dict[str, Any], where: str) -> Ranking:
    source = _source(record, "source", where)
    if "chosen" in record and "rejected" in record:
        prompt, answers = _pair(record, where)
        ranks: tuple[int, ...] = (0, 1)
        margin = record.get("margin")
        margins = _margins(None if margin is None else [margin, 0.0], "margin", where)
    elif "prompt" in record and "answers" in record:
        prompt, answers = _prompt(record, where), _texts(record, "answers", where)
        ranks = _ranks(record, len(answers), where)
        margins = _margins(record.get("margins"), "margins", where)
    elif "output_1" in record and "output_2" in record:
        prompt, answers = _compared(record, where)
        ranks, margins = (0, 1), ()
        source = source or _source(record, "generator_2", where)
    else:
        forms = "chosen + rejected, prompt + answers, or output_1 + output_2 + label"
        raise UserError(f"{where} is no ranking (it has {_names(record)}): give {forms}")
    return check_ranking(Ranking(prompt, answers, ranks, margins, source, where))


def _judged(record: dict[str, Any], where: str) -> Judged:
    if any(name not in record for name in ("prompt", "completion", "label")):
        raise UserError(f"{where} is no judged answer (it has {_names(record)}): give prompt + completion + label")
    if not isinstance(record["label"], bool):
        raise UserError(f"{where}: 'label' is {record['label']!r}, neither true nor false")
    answer = _answer(record, "completion", where)
    source = _source(record, "source", where)
    return check_judged(Judged(_prompt(record, where), answer, record["label"], source, where))


def _open_prompt(record: dict[str, Any], where: str) -> Prompt:
    if "messages" in record:
        messages = _messages(record["messages"], where)
        if messages and messages[-1].role == "assistant":
            messages = messages[:-1]
    elif "prompt" in record:
        messages = _prompt(record, where)
    else:
        raise UserError(f"{where} is no prompt (it has {_names(record)}): give messages or prompt")
    return check_prompt(Prompt(messages, record, where))


def _stepped(record: dict[str, Any], where: str) -> Stepped:
    if any(name not in record for name in ("prompt", "steps", "labels")):
        raise UserError(f"{where} is no answer in steps (it has {_names(record)}): give prompt + steps + labels")
    labels = record["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, bool) for label in labels):
        raise UserError(f"{where}: 'labels' is {labels!r:.80}, not a list of true and false")
    steps = _texts(record, "steps", where)
    source = _source(record, "source", where)
    return check_stepped(Stepped(_prompt(record, where), steps, tuple(labels), source, where))


def _openai(record: dict[str, Any], where: str) -> tuple[Message, ...]:
    return _messages(record["messages"], where)


def _sharegpt(record: dict[str, Any], where: str) -> tuple[Message, ...]:
    turns = record["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise UserError(f"{where}: 'conversations' is no list of objects")
    out = []
    if record.get("system"):
        out.append(Message("system", _text(record, "system", where)))
    for number, turn in enumerate(turns, start=1):
        who = turn.get("from")
        if not isinstance(who, str) or who not in SHAREGPT_ROLES:
            raise UserError(f"{where}: turn {number} is from {who!r:.80}: use {', '.join(SHAREGPT_ROLES)}")
        out.append(Message(SHAREGPT_ROLES[who], _text(turn, "value", f"{where}: turn {number}")))
    return tuple(out)


def _alpaca(record: dict[str, Any], where: str) -> tuple[Message, ...]:
    system = [Message("system", _text(record, "system", where))] if record.get("system") else []
    return (*system, _instruction(record, where), Message("assistant", _text(record, "output", where)))


def _instruction(record: dict[str, Any], where: str) -> Message:
    instruction = _text(record, "instruction", where)
    given = _text(record, "input", where) if record.get("input") else ""
    return Message("user", f"{instruction}\n\n{given}" if given.strip() else instruction)


def _seed_task(record: dict[str, Any], where: str) -> tuple[Message, ...]:
    instances = record["instances"]
    if not isinstance(instances, list) or len(instances) != 1 or not isinstance(instances[0], dict):
        raise UserError(f"{where}: 'instances' is no list of one object: write each as a record of its own")
    return _alpaca({"instruction": record["instruction"], **instances[0]}, where)


def _completion(record: dict[str, Any], where: str) -> tuple[Message, ...]:
    return (*_prompt(record, where), Message("assistant", _answer(record, "completion", where)))


_FORMS: tuple[tuple[tuple[str, ...], Callable[[dict[str, Any], str], tuple[Message, ...]]], ...] = (
    (("messages",), _openai),
    (("conversations",), _sharegpt),
    (("instruction", "output"), _alpaca),
    (("instruction", "instances"), _seed_task),
    (("prompt", "completion"), _completion),
)
"""Fields that a form must have -> how it is read; the first that fits."""


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    """Objects with role and content. A content in parts is joined; parts that are no text are refused."""
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise UserError(f"{where}: the messages are no list of objects")
    out = []
    for number, message in enumerate(value, start=1):
        at = f"{where}: message {number}"
        content = message.get("content")
        if isinstance(content, list):
            if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
                raise UserError(f"{at} has parts that are no text: jaxlm reads text alone")
            content = "".join(part["text"] for part in content)
        if message.get("tool_calls"):
            raise UserError(f"{at} calls tools, which no template here writes: leave the conversation out")
        if not isinstance(content, str):
            raise UserError(f"{at} has content of type {type(content).__name__}, not text")
        if not isinstance(message.get("role"), str):
            raise UserError(f"{at} has no role: give system, user, assistant or tool")
        out.append(Message(message["role"], content))
    return tuple(out)


def _prompt(record: dict[str, Any], where: str) -> tuple[Message, ...]:
    if isinstance(record["prompt"], list):
        return _messages(record["prompt"], where)
    return (Message("user", _text(record, "prompt", where)),)


def _answer(record: dict[str, Any], name: str, where: str) -> str:
    """A text, or the one message of the assistant."""
    value = record[name]
    if not isinstance(value, list):
        return _text(record, name, where)
    messages = _messages(value, where)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise UserError(f"{where}: {name!r} has {len(messages)} messages: give the assistant's one")
    return messages[0].content


def _pair(record: dict[str, Any], where: str) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The prompt and the two answers. Lists of messages may hold the prompt as well."""
    if "prompt" in record:
        return _prompt(record, where), tuple(_answer(record, name, where) for name in ("chosen", "rejected"))
    chosen, rejected = (_messages(record[name], f"{where}: {name!r}") for name in ("chosen", "rejected"))
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise UserError(f"{where}: chosen and rejected do not answer the same turns: give the prompt, or equal turns")
    if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        raise UserError(f"{where}: chosen and rejected do not both end with the assistant")
    return chosen[:-1], (chosen[-1].content, rejected[-1].content)


def _compared(record: dict[str, Any], where: str) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The prompt and the two answers of a comparison, the better one first."""
    answers = tuple(_text(record, name, where) for name in ("output_1", "output_2"))
    value = record.get("label", record.get("preference"))
    try:
        nearer_2 = as_share(float(value)) if value is not None and type(value) is not bool else None
    except (TypeError, ValueError, OverflowError):
        nearer_2 = None
    if nearer_2 is None:
        raise UserError(f"{where} has no 'label' or 'preference' ({value!r:.80}): write 1 or 2, the better answer")
    if nearer_2 == 0.5:
        raise UserError(f"{where} is a draw ({value!r}): it orders nothing, leave it out")
    if "instruction" not in record and "input" not in record:
        raise UserError(f"{where} has no 'instruction' or 'input' (it has {_names(record)}): give what was asked")
    asked = _instruction(record, where) if "instruction" in record else Message("user", _text(record, "input", where))
    return (asked,), answers if nearer_2 < 0.5 else answers[::-1]


def _ranks(record: dict[str, Any], count: int, where: str) -> tuple[int, ...]:
    ranks = record.get("ranks")
    if ranks is None:
        return tuple(range(count))
    if not isinstance(ranks, list) or not all(type(rank) is int and 0 <= rank < 2**31 for rank in ranks):
        raise UserError(f"{where}: 'ranks' is {ranks!r:.80}, not a list of numbers from 0 on")
    return tuple(ranks)


def _margins(value: Any, name: str, where: str) -> tuple[float, ...]:
    if value is None:
        return ()
    numbers = isinstance(value, list) and all(isinstance(one, int | float) and type(one) is not bool for one in value)
    if not numbers or not all(0 <= one <= _MAX_MARGIN for one in value):
        shown = value[0] if name == "margin" else value
        raise UserError(f"{where}: {name!r} is {shown!r:.80}, and what stands there must be numbers from 0 on (f32)")
    return tuple(map(float, value))


def _texts(record: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = record[name]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: {name!r} is no list of texts")
    return tuple(value)


def _text(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where}: {name!r} is of type {type(value).__name__}, not text")
    return value


def _source(record: dict[str, Any], name: str, where: str) -> str:
    return _text(record, name, where) if record.get(name) is not None else ""


def _names(record: dict[str, Any]) -> str:
    return ", ".join(record) or "no fields"
