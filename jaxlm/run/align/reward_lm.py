"""A reward model behind the handle: how good answers, or their steps, are."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.step_labels import encode_steps
from jaxlm.generate.decode import bucket_length
from jaxlm.io.config_json import decode_config
from jaxlm.models.families import for_inference, make_model
from jaxlm.run.align.judge import make_judge, row_rewards
from jaxlm.run.align.reward_config import JudgeConfig
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.language_model import LanguageModel, check_counts
from jaxlm.run.opening import Opened
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import as_messages
from jaxlm.text.chat.template import ChatTemplate
from jaxlm.text.tokenizer import Tokenizer


@functools.lru_cache(maxsize=8)
def _outputs_fn(model_config: Any, judge_config: JudgeConfig) -> Any:
    """``f(params, rows)``: rewards [b], or of a judge of steps its log-odds at each token, [b, t, 1]."""
    config = for_inference(model_config, jax.default_backend(), kernel_missing=kernel_missing)
    judge = make_judge(make_model(config), judge_config)
    return jax.jit(judge.task.outputs if judge_config.of == "steps" else row_rewards(judge))


class RewardLM(LanguageModel):
    """A model with a head that judges, its tokenizer and its chat template. It neither writes nor has likelihoods."""

    def __init__(self, opened: Opened, tokenizer: Tokenizer, run_config: dict[str, Any], *, template: ChatTemplate):
        self.config, self.params, self.step, self.is_ema = opened
        self.tokenizer, self.run_config = tokenizer, run_config
        self.judge: JudgeConfig = decode_config(JudgeConfig, run_config["reward"], where="config.reward")
        self.form = self._form = ChatFormat(template, tokenizer)
        self.family, self.context = f"reward on {self.config.family}", run_config["data"]["seq_len"] + 1

    def reward(self, conversations: Sequence[Any], *, batch_size: int = 32) -> Any:
        """The reward of the last turn of each conversation, f32 [n]. Of a model of steps, the probability that each
        step (a line of that turn) is right: a list of f32 arrays.

        ``conversations``: lists of turns, ``Message(role, content)`` or ``{"role", "content"}``, the last one the
        assistant's. Raises UserError for what is none, and for one that is longer than the model was trained on.
        """
        check_counts(batch_size=batch_size)
        encoded = [self._encode(turns, f"conversations[{i}]") for i, turns in enumerate(conversations)]
        found: list[np.ndarray] = []
        for first in range(0, len(encoded), batch_size):
            part = encoded[first : first + batch_size]
            outputs = self._run(part, batch_size)[: len(part)]
            if self.judge.of == "steps":
                ends = [np.flatnonzero(mask) for _, mask in part]
                found += [1 / (1 + np.exp(-row[places, 0])) for row, places in zip(outputs, ends, strict=True)]
            else:
                found.append(outputs)
        if self.judge.of == "steps":
            return found
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def reads(self, turns: Any) -> bool:
        """Whether a conversation is short enough to be judged."""
        return len(self._ids(turns, "the conversation")[0]) <= self.context

    def _encode(self, turns: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
        ids, mask = self._ids(turns, where)
        if len(ids) > self.context:
            raise UserError(f"{where} has {len(ids)} tokens, more than the {self.context} that the model reads: cut it")
        return ids, mask

    def _ids(self, turns: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
        """(ids up to the end of the answer, which of them are the answer's; of one in steps, which end a step)."""
        messages = as_messages(turns, where)
        if messages[-1].role != "assistant":
            raise UserError(f"{where} ends with the {messages[-1].role}: the assistant's turn is judged")
        if self.judge.of == "steps":
            steps = [line for line in messages[-1].content.split("\n") if line.strip()]
            listed, places = encode_steps(self._form, messages[:-1], steps, where)
            ids, mask = np.array(listed, np.int32), np.zeros(len(listed), bool)
            mask[places] = True
        else:
            ids, loss_mask = self._form.encode_answer(messages[:-1], messages[-1].content, where)
            mask = loss_mask == 1
        return ids, mask

    def _run(self, rows: list[tuple[np.ndarray, np.ndarray]], batch_size: int) -> np.ndarray:
        """Outputs for rows, padded to few shapes."""
        steps = self.judge.of == "steps"
        behind = 0 if steps else 1  # the end of an answer is given a column of its own
        width = min(self.context - behind, bucket_length(max(len(ids) for ids, _ in rows) - behind))
        batch: dict[str, np.ndarray] = {
            name: np.zeros((batch_size, width), np.int32) for name in ("tokens", "targets", "segment_ids")
        }
        batch["tokens"][:] = self.tokenizer.pad_id
        batch["loss_mask"] = np.zeros((batch_size, width), np.float32)
        for i, (ids, mask) in enumerate(rows):
            read = ids if steps else ids[:-1]
            batch["tokens"][i, : len(read)], batch["segment_ids"][i, : len(read)] = read, 1
            batch["targets"][i, : len(ids) - 1] = ids[1:]
            if not steps:
                batch["loss_mask"][i, : len(read)] = mask[1:]
        return np.asarray(_outputs_fn(self.config, self.judge)(self.params, batch), np.float32)
