"""From a fine-tuning config to what its loop reads: the base's model and tokenizer, examples, labels, rows."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.data.examples import EncodedRows, Example, encode_rows, label_arrays
from jaxlm.io.config_json import near_names
from jaxlm.io.corpora.held_out import check_held_out, tell_repeated
from jaxlm.io.labelled import read_examples
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.families import MASKED, ModelConfig
from jaxlm.models.heads import OWN, HeadConfig
from jaxlm.run.finetune_config import FinetuneConfig, TaskConfig
from jaxlm.run.opening import open_base
from jaxlm.run.prepare import resolve_model
from jaxlm.text.tokenizer import Tokenizer

Say = Callable[[str], None]


class Labelled(NamedTuple):
    """What a fine-tuning run reads, and its config with all that only the data could tell."""

    config: FinetuneConfig
    """``model``, ``base_step``, ``num_steps`` and ``task.labels`` filled in."""
    tokenizer: Tokenizer
    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    base_params: Params | None
    """The base's parameters below its head; None where training starts from nothing, or goes on."""
    fingerprint: str
    """sha256 (hex) of all examples: a resumed run must find the same."""


def prepare_examples(config: FinetuneConfig, say: Say, *, resumes: bool = False) -> Labelled:
    """Reads and encodes everything. Raises UserError for whatever is wrong in it, with file and line.

    ``resumes``: the run has parameters of its own, and the base's, which may be gone, are not read.
    """
    task = config.task
    train, validation = _read_both(task, say)
    if task.kind != "regress":
        task = dataclasses.replace(task, labels=task.labels or _classes(train, task))
    values = {name: _values(examples, task) for name, examples in (("train", train), ("validation", validation))}
    config, tokenizer, base_params = _open_model(config, train, resumes)
    model = config.model
    assert model is not None
    if model.max_seq_len is not None and task.seq_len > model.max_seq_len:
        raise UserError(f"task.seq_len={task.seq_len} is more than model.max_seq_len={model.max_seq_len}: lower it")
    arrays = {}
    for name, examples in (("train", train), ("validation", validation)):
        rows = encode_examples(tokenizer, model, task, [example.texts for example in examples])
        dtype, words = "float32" if task.kind == "regress" else "int32", task.kind == "tag"
        arrays[name] = rows.arrays | label_arrays(values[name], rows, words=words, dtype=dtype)
        counted = int(arrays[name]["loss_mask"].sum())
        if not counted:
            raise UserError(f"task.{name}: no word fits into task.seq_len={task.seq_len} tokens: raise it")
        cut = f", {rows.num_cut:,} cut to {task.seq_len} tokens" if rows.num_cut else ""
        say(f"{name}: {len(examples):,} examples, {counted:,} labels{cut}; rows of {rows.arrays['tokens'].shape[1]}")
    num_steps = config.num_steps or max(1, config.num_epochs * len(train) // config.global_batch_size)
    if config.optimizer.warmup_steps >= num_steps:
        raise UserError(
            f"optimizer.warmup_steps={config.optimizer.warmup_steps} leaves nothing of {num_steps} steps: "
            "lower it or train longer"
        )
    config = dataclasses.replace(config, task=task, num_steps=num_steps)
    fingerprint = _fingerprint(train, validation)
    return Labelled(config, tokenizer, arrays["train"], arrays["validation"], base_params, fingerprint)


def encode_examples(
    tokenizer: Tokenizer, model: ModelConfig, task: TaskConfig, texts: Sequence[tuple[str, ...]]
) -> EncodedRows:
    """Texts, pairs or words as the rows that the model reads."""
    token_types = task.text_b is not None and isinstance(model, EncoderConfig) and model.num_token_types > 1
    return encode_rows(tokenizer, texts, seq_len=task.seq_len, words=task.kind == "tag", token_types=token_types)


def head_config(model: ModelConfig, task: TaskConfig) -> HeadConfig:
    """The head that a task asks for."""
    pooling = task.pooling or ("first" if model.family in MASKED else "last")
    return HeadConfig(task.kind, max(1, len(task.labels)), pooling, task.head_dropout)


def _fingerprint(*parts: Sequence[Example]) -> str:
    content = [[(example.texts, example.labels) for example in examples] for examples in parts]
    return hashlib.sha256(repr(content).encode("utf-8", "surrogatepass")).hexdigest()


def _read_both(task: TaskConfig, say: Say) -> tuple[list[Example], list[Example]]:
    """Examples to learn from and to judge by, which may be neither the same file nor a copy of it."""
    train, validation = (_read(task, name, getattr(task, name)) for name in ("train", "validation"))
    fields = ("task.train", "task.validation")
    check_held_out([task.train], [task.validation], fields)
    tell_repeated((one.texts for one in train), [one.texts for one in validation], fields, say)
    return train, validation


def _read(task: TaskConfig, name: str, path: str) -> list[Example]:
    if not path:
        raise UserError(f"task.{name} is not given: name a .jsonl or .tsv file")
    columns = (task.text,) if task.text_b is None else (task.text, task.text_b)
    return read_examples(path, columns, task.label, words=task.kind == "tag")


def _classes(examples: Sequence[Example], task: TaskConfig) -> tuple[str, ...]:
    found = sorted({label for example in examples for label in example.labels})
    if len(found) < 2:
        raise UserError(f"{task.train} holds one class alone, {found[0]!r}: there is nothing to tell apart")
    return tuple(found)


def _values(examples: Sequence[Example], task: TaskConfig) -> list[list[Any]]:
    """Labels as numbers. Raises UserError, with file and line, for one that training does not know or no number."""
    numbers = {label: number for number, label in enumerate(task.labels)}
    out: list[list[Any]] = []
    for example in examples:
        for label in example.labels:
            if task.kind == "regress":
                try:
                    if not np.isfinite(float(label)):
                        raise ValueError
                except ValueError:
                    raise UserError(f"{example.where}: the label {label!r} is no number") from None
            elif label not in numbers:
                known = ", ".join(map(repr, task.labels[:8])) + (", ..." if len(task.labels) > 8 else "")
                raise UserError(f"{example.where}: unknown label {label!r}{near_names(label, numbers)} (of {known})")
        out.append([float(label) if task.kind == "regress" else numbers[label] for label in example.labels])
    return out


def _open_model(
    config: FinetuneConfig, examples: Sequence[Example], resumes: bool
) -> tuple[FinetuneConfig, Tokenizer, Params | None]:
    """The config with its model, the tokenizer, and the parameters to start from."""
    params = None
    if config.base is None:
        if config.model is None:
            raise UserError("base is not given, nor a model: name the run directory of a trained model")
        tokenizer = train_tokenizer(config.tokenizer, (text for example in examples for text in example.texts))
        model: Any = resolve_model(config.model, tokenizer)
    else:
        if config.model is not None:
            raise UserError("base and model are both given, and the base has a model: leave one of them out")
        base = open_base(config.base, config.base_step, read_params=not (config.from_scratch or resumes))
        model, tokenizer = base.model, base.tokenizer
        if base.params is not None:
            params = {name: part for name, part in base.params.items() if name not in OWN}
            config = dataclasses.replace(config, base_step=base.step)
    if config.dropout is not None:
        if not hasattr(model, "dropout"):
            raise UserError(f"dropout={config.dropout}: a {model.family} has rates of other names, leave it None")
        model = dataclasses.replace(model, dropout=config.dropout)
    return dataclasses.replace(config, model=model), tokenizer, params
