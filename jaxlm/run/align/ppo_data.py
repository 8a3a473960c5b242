"""What reinforcement learning reads: the base, the prompts as tokens, the rewards; all checked beforehand."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.batches import rows_at
from jaxlm.generate.decode import left_pad
from jaxlm.io.conversations import read_prompts
from jaxlm.io.run_dir import text_of
from jaxlm.run.align.base import ChatBase, open_chat_base
from jaxlm.run.align.ppo_config import PpoConfig, RewardConfig
from jaxlm.run.align.reward_functions import RewardFunction, find_function
from jaxlm.run.align.reward_models import RewardModel, open_reward_model
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Prompt
from jaxlm.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class PromptRows:
    """Prompts and their tokens, of which rollouts take rows. Prompts of every rollout have one shape."""

    prompts: list[Prompt]
    ids: list[list[int]]
    pad_id: int
    width: int
    """Tokens of the longest prompt, rounded up to a multiple of 8."""

    def chosen(self, rollout: int, count: int, seed: int) -> np.ndarray:
        """Which prompts a rollout takes, [count]: the next of an endless stream of shuffled passes."""
        places = np.arange(rollout * count, (rollout + 1) * count)
        return rows_at(places, len(self.prompts), seed=seed, shuffle=True, num_epochs=None) % len(self.prompts)

    def arrays(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """``tokens``, ``segment_ids``, ``positions`` int32 [rows, width], padded on the left."""
        names = ("tokens", "segment_ids", "positions")
        padded = left_pad([self.ids[row] for row in rows], self.pad_id, length=self.width)
        return dict(zip(names, padded, strict=True))


class Prepared(NamedTuple):
    """Everything that a run reads."""

    config: PpoConfig
    """With ``base_step``, ``model`` and the reward models' steps filled in."""
    base: ChatBase
    train: PromptRows
    validation: PromptRows | None
    functions: dict[str, RewardFunction]
    reward_models: dict[str, RewardModel]
    fingerprint: str

    @property
    def tokenizer(self) -> Tokenizer:
        return self.base.tokenizer


def prepare(
    config: PpoConfig,
    say: Callable[[str], None],
    *,
    resumes: bool,
    functions: Mapping[str, RewardFunction],
) -> Prepared:
    """Opens the base (which is the reference, so a resumed run needs it too), reads prompts, finds rewards.

    Raises UserError for no base, a prompt that leaves no room to answer, no reward, a reward model of another
    vocabulary, and an end of turn that is no single token.
    """
    del resumes
    if config.base is None:
        raise UserError("base is not given: name the run directory of the model to start from, as a rule an SFT run")
    if not any(reward.weight for reward in config.rewards):
        raise UserError(
            "rewards has none with a weight: name a reward run or a function (rewards=(RewardConfig(...),))"
        )
    base = open_chat_base(config.base, config.base_step, template=config.prompts.template)
    if base.model.family != "decoder":
        raise UserError(f"base={config.base} is of family {base.model.family!r}: rollouts need a decoder")
    model = dataclasses.replace(base.model, dropout=0.0)  # a ratio of two forwards is none of two dropouts
    base = base._replace(model=model)
    if len(base.form.stop_ids) != 1:
        raise UserError(
            f"the end of a turn, {base.form.stop!r}, is {len(base.form.stop_ids)} tokens of this {base.tokenizer.kind} "
            "tokenizer, and an answer must end with one: choose another prompts.template"
        )
    found = {
        reward.name: find_function(reward.function, functions, field=f"reward {reward.name!r}: function")
        for reward in config.rewards
        if reward.function is not None
    }
    train = _read(config, base, config.prompts.train, "train")
    validation = _read(config, base, config.prompts.validation, "validation") if config.prompts.validation else None
    if validation is not None:  # one shape for both: one program
        widest = max(train.width, validation.width)
        train, validation = (dataclasses.replace(rows, width=widest) for rows in (train, validation))
    models: dict[str, RewardModel] = {}
    rewards: list[RewardConfig] = []
    for reward in config.rewards:
        if reward.run is not None:
            opened = open_reward_model(reward.run, reward.run_step, base.form)
            width = row_width(train, config)
            longest = opened.model.max_seq_len
            if longest is not None and width > longest:
                raise UserError(
                    f"reward {reward.name!r}: prompt and answer may have {width} tokens, more than its model's "
                    f"max_seq_len={longest}: lower rollout.max_new_tokens or shorten the prompts"
                )
            if reward.name == config.critic.reward:
                _check_critic(reward, opened, base)
            models[reward.name] = opened
            reward = dataclasses.replace(reward, run_step=opened.step)
        rewards.append(reward)
    say(
        f"prompts: {len(train.prompts):,} to learn from, of up to {max(map(len, train.ids))} tokens"
        + (f"; {len(validation.prompts):,} held out" if validation else "")
    )
    prompts = config.prompts
    if prompts.add_bos is None:
        prompts = dataclasses.replace(prompts, add_bos=text_of(base.run_config).get("add_bos") is not False)
    config = dataclasses.replace(config, base_step=base.step, model=model, prompts=prompts, rewards=tuple(rewards))
    return Prepared(config, base, train, validation, found, models, _fingerprint(base.form, train, validation))


def _check_critic(reward: RewardConfig, opened: RewardModel, base: ChatBase) -> None:
    """The critic is shaped as the policy: a reward model that it starts from must be too."""
    assert base.params is not None
    body = {name: part for name, part in opened.params.items() if name != "classifier"}
    mine = {name: base.params.get(name) for name in body}
    if jax.tree.map(np.shape, body) != jax.tree.map(np.shape, mine):
        raise UserError(
            f"critic.reward={reward.name!r}: the model of {reward.run} is not shaped as the policy's, {base.model}: "
            "leave critic.reward out, or name a reward model of the same base"
        )


def row_width(prompts: PromptRows, config: PpoConfig) -> int:
    """Tokens of a prompt and its answer at most."""
    return prompts.width + config.rollout.max_new_tokens


def _read(config: PpoConfig, base: ChatBase, paths: tuple[str, ...], name: str) -> PromptRows:
    if not paths:
        raise UserError(f"prompts.{name} is empty: name a .jsonl file with messages or prompt on each line")
    prompts = [prompt for path in paths for prompt in read_prompts(path)]
    ids = [base.form.prompt(prompt.messages, prompt.where) for prompt in prompts]
    longest = base.model.max_seq_len
    if longest is not None:
        for prompt, tokens in zip(prompts, ids, strict=True):
            if len(tokens) + config.rollout.max_new_tokens > longest:
                raise UserError(
                    f"{prompt.where}: the prompt has {len(tokens)} tokens and leaves no room for "
                    f"rollout.max_new_tokens={config.rollout.max_new_tokens} in the model's {longest}: shorten the "
                    "prompt or lower it"
                )
    width = -(-max(map(len, ids)) // 8) * 8
    if longest is not None:
        width = min(width, longest - config.rollout.max_new_tokens)
    return PromptRows(prompts, ids, base.tokenizer.pad_id, width)


def _fingerprint(form: ChatFormat, *rows: PromptRows | None) -> str:
    digest = hashlib.sha256(json.dumps([form.stop_ids, form.tokenizer.fingerprint]).encode())
    for part in rows:
        for prompt, ids in zip(part.prompts, part.ids, strict=True) if part else ():
            digest.update(json.dumps([prompt.record, ids], sort_keys=True).encode())
    return digest.hexdigest()
