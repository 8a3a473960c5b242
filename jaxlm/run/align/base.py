"""A run as a base for tuning: its model, tokenizer and parameters, and the format of its conversations."""

from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.io.chat_templates import find_template, read_template
from jaxlm.io.run_dir import RunDir, write_text
from jaxlm.models.families import MASKED
from jaxlm.run.opening import Base, open_base
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.template import ChatTemplate
from jaxlm.text.tokenizer import Tokenizer

DEFAULT_TEMPLATE = "chatml"


class ChatBase(NamedTuple):
    """A run that conversations, pairs or rewards are learnt from, or that rollouts come from."""

    model: Any
    """Its model's config, the vocabulary size known."""
    params: Params | None
    """On the host (adapters merged); None where they were not asked for."""
    form: ChatFormat
    """Template and tokenizer: ``form.prompt(messages)``, ``form.encode(conversation)``, ``form.stop_ids``."""
    step: int | None
    """The checkpoint."""
    run_config: dict[str, Any]
    """The run's whole config, as JSON values."""

    @property
    def tokenizer(self) -> Tokenizer:
        return self.form.tokenizer


def open_chat_base(
    run_dir: str | Path, step: int | None = None, *, template: str | None = None, read_params: bool = True
) -> ChatBase:
    """Opens a run for tuning.

    Args:
      run_dir: what ``jaxlm pretrain``, ``jaxlm sft``, ``tools.hf import``... wrote.
      step: which checkpoint; None = the newest.
      template: name or file of a chat template; None = that of the run, or chatml.
      read_params: False where a run goes on with its own; the base's checkpoints may then be gone.

    Raises UserError where it is no run, has no such checkpoint, is a model that cannot write, or has no such template.
    """
    run = RunDir(run_dir)
    base = open_base(run_dir, step, read_params=read_params)
    check_answers(base, f"base={run_dir}")
    return ChatBase(
        base.model,
        base.params,
        ChatFormat(choose_template(run, template), base.tokenizer),
        base.step,
        base.run_config,
    )


def check_answers(base: Base, name: str) -> None:
    """Raises UserError for a model that cannot write; ``name`` is what it is called there."""
    judges = any(field in base.run_config for field in ("task", "reward"))
    if base.model.family in MASKED or judges:
        what = "a task's or a reward model" if judges else f"of family {base.model.family!r}"
        raise UserError(f"{name} is {what}, which cannot answer: name the run of a decoder or recurrent model")


def choose_template(run: RunDir, name: str | None) -> ChatTemplate:
    """The template that was asked for, or that of the run, or chatml."""
    if name is not None:
        return find_template(name)
    return saved_template(run) or find_template(DEFAULT_TEMPLATE)


def saved_template(run: RunDir) -> ChatTemplate | None:
    """The chat template that a run keeps; None for a model that was never taught one."""
    return read_template(run.chat_template_path) if run.chat_template_path.is_file() else None


def keep_template(run: RunDir, template: ChatTemplate) -> None:
    """Saves the template with a run. Raises UserError where a started run has another."""
    kept = saved_template(run)
    if kept is None:
        write_text(run.chat_template_path, template.source)
    elif kept.source != template.source:
        raise UserError(f"{run.chat_template_path} is not the template {template.name!r}: pass another --run-dir")


def check_length(base: ChatBase | Base, seq_len: int, name: str = "data.seq_len", *, whose: str = "the base's") -> None:
    """Raises UserError where the model cannot read so many tokens."""
    longest = base.model.max_seq_len
    if longest is not None and seq_len > longest:
        raise UserError(f"{name}={seq_len} is more than {whose} model.max_seq_len={longest}: lower it")


def check_vocabulary(base: Tokenizer, other: Tokenizer, what: str) -> None:
    """Raises UserError where ``what`` (a reference, a teacher, a reward model) reads other symbols."""
    if base.fingerprint != other.fingerprint:
        raise UserError(
            f"{what} has another vocabulary ({other.kind}, {other.vocab_size:,} tokens) than the model that is tuned "
            f"({base.kind}, {base.vocab_size:,} tokens): both must come from one tokenizer"
        )
