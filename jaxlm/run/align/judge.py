"""What a reward model is trained and asked as: a number at the last token, the likelihood of the answer, or a number at
each step."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from jaxlm.core.types import Array, Batch, Params
from jaxlm.models.api import Model
from jaxlm.models.heads import HeadConfig, TaskModel, make_task_model
from jaxlm.run.align.reward_config import JudgeConfig
from jaxlm.train.preference_objectives import Rewards, answer_logprobs, answer_rewards

NEW_HEAD = r"^classifier/"
"""Parameters that no base has."""


class Judge(NamedTuple):
    """A judge as pure functions."""

    model: Model | TaskModel
    """What is trained."""
    rewards: Rewards
    """The reward of each answer. Not of a judge of steps: its ``model.outputs`` are the log-odds at each token."""
    new: tuple[str, ...]
    """Patterns of the parameters that a base lacks."""


def make_judge(model: Model, config: JudgeConfig) -> Judge:
    """The judge that this config asks for, on a model."""
    if config.reads_likelihood:
        return Judge(model, functools.partial(answer_logprobs, model), ())
    head = HeadConfig("regress", pooling="last", dropout=config.head_dropout)
    if config.of == "steps":
        head = HeadConfig("tag", num_outputs=1, dropout=config.head_dropout)
    task = make_task_model(model, head)
    return Judge(task, functools.partial(answer_rewards, task), (NEW_HEAD,))


def row_rewards(judge: Judge) -> Callable[[Params, Batch], Array]:
    """``f(params, rows) -> rewards``, f32 [b], of rows [b, t]."""

    def rewards(params: Params, rows: Batch) -> Array:
        one = {name: rows[name][:, None] for name in ("tokens", "targets", "segment_ids", "loss_mask")}
        return judge.rewards(params, one, None)[:, 0]

    return rewards
