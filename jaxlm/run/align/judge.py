"""What a reward model is trained and asked as: a number at the last token, the likelihood of the answer beside it, or a
number at each step."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from jaxlm.core.types import Array, Batch, Params
from jaxlm.models.api import Model
from jaxlm.models.heads import HeadConfig, TaskModel, make_task_model
from jaxlm.run.align.reward_config import JudgeConfig
from jaxlm.train.preference_objectives import Rewards, answer_rewards, likelihood_rewards

NEW_HEAD = r"^classifier/"
"""Parameters that no base has."""


class Judge(NamedTuple):
    """A judge as pure functions."""

    task: TaskModel
    """What is trained; of a judge of steps its ``outputs`` are the log-odds at each token."""
    rewards: Rewards
    """The reward of each answer; not of a judge of steps."""


def make_judge(model: Model, config: JudgeConfig, *, loss_chunk: int | None = None) -> Judge:
    """The judge that this config asks for, on a model. ``loss_chunk``: positions whose logits exist at once, where the
    judge reads likelihoods."""
    if config.of == "steps":
        task = make_task_model(model, HeadConfig("tag", num_outputs=1, dropout=config.head_dropout))
    else:
        task = make_task_model(model, HeadConfig("regress", pooling="last", dropout=config.head_dropout))
    if not config.likelihood_coef:
        return Judge(task, functools.partial(answer_rewards, task))
    fresh = task.init

    def init(key: Array) -> Params:
        """The parameters of both: the vocabulary's head stays."""
        return dict(model.init(key)) | {"classifier": fresh(key)["classifier"]}

    coef, scale = config.likelihood_coef, config.likelihood_scale
    rewards = functools.partial(likelihood_rewards, model, task, coef, scale, loss_chunk=loss_chunk)
    return Judge(task._replace(init=init), rewards)


def row_rewards(judge: Judge) -> Callable[[Params, Batch], Array]:
    """``f(params, rows) -> rewards``, f32 [b], of rows [b, t]."""

    def rewards(params: Params, rows: Batch) -> Array:
        one = {name: rows[name][:, None] for name in ("tokens", "targets", "segment_ids", "loss_mask")}
        return judge.rewards(params, one, None)[0][:, 0]

    return rewards
