"""Reading records for tuning: files, what is wrong in them, what is held out, and the base they are encoded for."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.io.chat_templates import find_template
from jaxlm.io.conversations import OnBad
from jaxlm.io.corpora.held_out import check_held_out, tell_repeated
from jaxlm.io.run_dir import text_of
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.models.families import MASKED
from jaxlm.run.align.base import DEFAULT_TEMPLATE, ChatBase, open_chat_base
from jaxlm.run.align.config import RecordsConfig, TuningConfig
from jaxlm.run.prepare import Say, resolve_model
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Message

T = TypeVar("T")
_MOST_SHOWN = 3


class Split(NamedTuple):
    """Records to learn from and records to judge by."""

    train: list[Any]
    validation: list[Any]


class BadRecords:
    """What is done with a bad record: it ends the run, or it is counted and the first ones are said."""

    def __init__(self, config: RecordsConfig, say: Say):
        self.fails, self.say, self.count = config.on_bad == "fail", say, 0

    def __call__(self, error: UserError) -> None:
        if self.fails:
            raise error
        self.count += 1
        if self.count <= _MOST_SHOWN:
            self.say(f"  passed over: {error}")

    def tell(self) -> None:
        """How many there were."""
        if self.count:
            self.say(f"  {self.count:,} bad records passed over")


def read_split(
    config: RecordsConfig,
    read: Callable[..., Iterable[T]],
    prompt_of: Callable[[T], Sequence[Message]],
    bad: BadRecords,
) -> Split:
    """The records of all files, checked; those to judge by from files of their own, or split off by their prompts.

    ``read(path, on_bad=...)`` is one of `io.conversations`. Raises UserError for no file, a bad record where none is
    passed over, and a split with an empty side.
    """
    if not config.train:
        raise UserError("data.train is not given: name .jsonl or .json files")
    train = [record for path in config.train for record in read(path, on_bad=_on_bad(bad))]
    if config.validation:
        validation = [record for path in config.validation for record in read(path, on_bad=_on_bad(bad))]
        fields = ("data.train", "data.validation")
        check_held_out(config.train, config.validation, fields)
        tell_repeated(map(_content, train), list(map(_content, validation)), fields, bad.say)
        return Split(train, validation)
    held_out = [is_held_out(prompt_of(record), config.validation_fraction) for record in train]
    split = Split(
        [record for record, out in zip(train, held_out, strict=True) if not out],
        [record for record, out in zip(train, held_out, strict=True) if out],
    )
    for name, side in (("to train on", split.train), ("held out", split.validation)):
        if not side:
            raise UserError(
                f"data.validation_fraction={config.validation_fraction} of {len(train)} records leaves none {name}: "
                "name data.validation files, or change it"
            )
    return split


def _content(record: Any) -> Any:
    """The record but for where it comes from."""
    return record._replace(**{name: "" for name in ("source", "where") if name in record._fields})


def _on_bad(bad: BadRecords) -> OnBad | None:
    return None if bad.fails else bad


def is_held_out(prompt: Sequence[Message], fraction: float) -> bool:
    """By the hash of the prompt alone: all answers to it, and copies, stay on one side, whatever else is added."""
    digest = hashlib.sha256(repr([tuple(message) for message in prompt]).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def first_prompt(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The turns before the assistant speaks first."""
    out: list[Message] = []
    for message in messages:
        if message.role == "assistant":
            break
        out.append(message)
    return tuple(out)


def kept(records: Sequence[T], encode: Callable[[T], Any], bad: BadRecords) -> Iterator[tuple[T, Any]]:
    """Each record with what ``encode`` makes of it, but for those that it refuses."""
    for record in records:
        try:
            made = encode(record)
        except UserError as error:
            bad(error)
            continue
        yield record, made


def open_start(config: TuningConfig, texts: Iterable[str], *, resumes: bool) -> tuple[Any, ChatBase]:
    """What training starts from: the config with ``base_step`` and ``data.add_bos`` filled in, and the base; or a fresh
    model with a tokenizer trained on ``texts``.

    ``resumes``: the run has parameters of its own, and the base's, which may be gone, are not read (but for adapters,
    which are beside them). Raises UserError as `open_chat_base` does.
    """
    data = config.data
    if config.base is not None:
        if config.model is not None:
            raise UserError("base and model are both given, and the base has a model: leave one of them out")
        reads = not resumes or config.tune != "all"
        base = open_chat_base(config.base, config.base_step, template=data.template, read_params=reads)
        add_bos = text_of(base.run_config).get("add_bos", True) if data.add_bos is None else data.add_bos
        if reads:
            config = dataclasses.replace(config, base_step=base.step)
    else:
        if config.model is None:
            raise UserError("base is not given, nor a model: name the run directory of a trained model (--base RUN)")
        if config.tune != "all":
            raise UserError(f"tune={config.tune!r} leaves the base as it is, and there is none: name it (--base RUN)")
        if config.model.family in MASKED:
            raise UserError(
                f"a model of family {config.model.family!r} cannot answer: use a decoder or recurrent model"
            )
        tokenizer = train_tokenizer(config.tokenizer, texts)
        form = ChatFormat(find_template(data.template or DEFAULT_TEMPLATE), tokenizer)
        no_params: Params | None = None
        base = ChatBase(resolve_model(config.model, tokenizer), no_params, form, None, {})
        add_bos = data.add_bos is not False
    config = dataclasses.replace(config, data=dataclasses.replace(data, add_bos=add_bos))
    return config, base


def resolve_steps(config: TuningConfig, num_rows: int) -> int:
    """Optimiser steps of a run over so many rows. Raises UserError where the warm-up leaves nothing of them."""
    num_steps = config.num_steps or max(1, config.num_epochs * num_rows // config.global_batch_size)
    if config.optimizer.warmup_steps >= num_steps:
        raise UserError(
            f"optimizer.warmup_steps={config.optimizer.warmup_steps} leaves nothing of {num_steps} steps: "
            "lower it or train longer"
        )
    return num_steps


def open_fields(config: TuningConfig) -> list[str]:
    """Names of the fields that the data and the base fill in, unless they are given."""
    given = {"num_steps": config.num_steps, "data.add_bos": config.data.add_bos}
    model = ["model"] if config.model is None else ["model.vocab_size", "model.dropout"]
    return [name for name, value in given.items() if value is None] + model
