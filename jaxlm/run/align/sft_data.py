"""From a config of supervised fine-tuning to what its loop reads: conversations as rows, with what is learnt marked."""

import dataclasses
import hashlib
from typing import NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.data.batches import BatchPlan, DataConfig, eval_plan, train_plan
from jaxlm.data.conversations import ConversationSource, lay_out
from jaxlm.io.conversations import read_conversations
from jaxlm.run.align.answers import Prompt, choose_prompts
from jaxlm.run.align.base import ChatBase, check_length
from jaxlm.run.align.policy import with_dropout
from jaxlm.run.align.records import (
    BadRecords,
    Split,
    first_prompt,
    kept,
    open_start,
    read_split,
    resolve_steps,
)
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.run.opening import open_base
from jaxlm.run.prepare import Say
from jaxlm.text.chat.encoding import ChatFormat, EncodedChat
from jaxlm.text.chat.messages import Conversation
from jaxlm.text.tokenizer import Tokenizer


class Conversations(NamedTuple):
    """What a run of supervised fine-tuning reads, and its config with all that only the data could tell."""

    config: SftConfig
    """``model``, ``base_step``, ``num_steps`` and ``data.add_bos`` filled in."""
    base: ChatBase
    train: ConversationSource
    validation: ConversationSource
    plan: BatchPlan
    prompts: list[Prompt]
    """What is answered as a sample."""
    fingerprint: str

    @property
    def tokenizer(self) -> Tokenizer:
        return self.base.tokenizer


def row_config(config: SftConfig) -> DataConfig:
    """How conversations are laid in rows."""
    return DataConfig(seq_len=config.data.seq_len, packing=config.packing)


def prepare_conversations(config: SftConfig, say: Say, *, resumes: bool = False) -> Conversations:
    """Reads and encodes everything. Raises UserError for whatever is wrong in it, with file and record."""
    bad = BadRecords(config.data, say)
    split = read_split(config.data, read_conversations, lambda one: first_prompt(one.messages), bad)
    config, base = open_start(config, _texts(split), resumes=resumes)
    check_length(base, config.data.seq_len)
    if config.distil.teacher is not None and config.distil.step is None:  # the run is to go on with the same
        step = open_base(config.distil.teacher).step
        config = dataclasses.replace(config, distil=dataclasses.replace(config.distil, step=step))
    sources = {name: _lay(records, base.form, config.data.seq_len, bad) for name, records in split._asdict().items()}
    bad.tell()
    for name, (source, records, num_cut) in sources.items():
        cut = f", {num_cut:,} cut to {config.data.seq_len} tokens" if num_cut else ""
        say(
            f"{name}: {len(records):,} conversations, {source.num_tokens:,} tokens of which "
            f"{source.num_counted:,} are the assistant's{cut}"
        )
    train, validation = sources["train"][0], sources["validation"][0]
    plan = train_plan(train, row_config(config), global_batch_size=config.global_batch_size, seed=config.seed)
    model = with_dropout(base.model, config.dropout)
    config = dataclasses.replace(config, model=model, num_steps=resolve_steps(config, plan.rows.num_rows))
    held_out = (first_prompt(one.messages) for one in sources["validation"][1])
    prompts = choose_prompts(config.sample, base.form, held_out, seq_len=config.data.seq_len)
    return Conversations(config, base, train, validation, plan, prompts, _fingerprint(base, train, validation))


def held_out_plan(data: Conversations, rows: int) -> BatchPlan:
    """One pass over what is held out."""
    return eval_plan(data.validation, row_config(data.config), batch_size=rows)


def _texts(split: Split) -> list[str]:
    return [message.content for conversation in split.train for message in conversation.messages]


def _lay(
    records: list[Conversation], form: ChatFormat, seq_len: int, bad: BadRecords
) -> tuple[ConversationSource, list[Conversation], int]:
    """(the tokens, the conversations that they are of, how many lost their end)."""

    def encode(conversation: Conversation) -> EncodedChat:
        chat = form.encode(conversation)
        if not chat.loss_mask[1 : seq_len + 1].any():
            first = int(chat.loss_mask.argmax())
            raise UserError(
                f"{conversation.where}: the prompt has {first} tokens and leaves no room to answer in "
                f"data.seq_len={seq_len}: raise it, shorten the prompt, or pass over it (--data.on-bad skip)"
            )
        return chat

    found = list(kept(records, encode, bad))
    laid = lay_out((chat for _, chat in found), seq_len=seq_len)
    return laid.source, [record for record, _ in found], laid.num_cut


def _fingerprint(base: ChatBase, *sources: ConversationSource) -> str:
    digest = hashlib.sha256(base.form.template.source.encode())
    for source in sources:
        for array in (source.tokens, source.loss_mask, source.doc_offsets):
            digest.update(array.tobytes())
    return digest.hexdigest()
