"""Reward runs opened to judge rollouts: a number for each answer, from the tokens as they were drawn."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array, Batch, Params
from jaxlm.io.run_dir import RunDir
from jaxlm.models.families import for_platform, make_model
from jaxlm.models.heads import HeadConfig, TaskModel, make_task_model
from jaxlm.run.align.base import check_vocabulary, saved_template
from jaxlm.run.cpu_kernels import recurrent_kernel_missing
from jaxlm.run.opening import open_base
from jaxlm.sharding.activations import ActivationLayout
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.train.preference_objectives import answer_rewards

HEAD = HeadConfig("regress", pooling="last")
"""What a reward model's head is."""


class RewardModel(NamedTuple):
    """An opened reward run."""

    model: Any
    """Its model's config."""
    params: Params
    """With the head that gives the reward."""
    step: int


def open_reward_model(run_dir: str, step: int | None, form: ChatFormat) -> RewardModel:
    """The reward model of a run, to read answers in this format.

    Raises UserError where it is no run of ``jaxlm reward``, judges steps, or reads another vocabulary or template.
    """
    base = open_base(run_dir, step)
    assert base.params is not None
    if "classifier" not in base.params or "reward" not in base.run_config:
        raise UserError(f"{run_dir} holds no reward model: name a run of jaxlm reward")
    if base.run_config["reward"]["of"] != "answers":
        raise UserError(f"{run_dir} judges the steps of an answer, and one reward for each is wanted: name another run")
    check_vocabulary(form.tokenizer, base.tokenizer, f"the reward model {run_dir}")
    template = saved_template(RunDir(run_dir))
    if template is not None and template.source != form.template.source:
        raise UserError(
            f"the reward model {run_dir} was taught in another chat template than {form.template.name!r}, in which "
            "answers are drawn: set prompts.template to its chat_template.jinja, or name another run"
        )
    params = {name: part for name, part in base.params.items() if name != "head"}
    return RewardModel(base.model, params, base.step or 0)


def reward_task(config: Any, mesh: Mesh, activations: ActivationLayout) -> TaskModel:
    """The reward model of a config as it runs on this mesh."""
    config = for_platform(config, mesh.devices.flat[0].platform, recurrent_kernel_missing=recurrent_kernel_missing)
    return make_task_model(make_model(config, activations), HEAD)


def row_rewards(task: TaskModel) -> Callable[[Params, Batch], Array]:
    """``f(params, rows) -> rewards``, f32 [b], of rows [b, t]."""

    def rewards(params: Params, rows: Batch) -> Array:
        one = {name: rows[name][:, None] for name in ("tokens", "targets", "segment_ids")}
        return answer_rewards(task, params, one)[:, 0]

    return rewards
