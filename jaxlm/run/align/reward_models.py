"""Reward runs opened to judge rollouts: a number for each answer, from the tokens as they were drawn."""

from typing import Any, NamedTuple

from jax.sharding import Mesh

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.io.config_json import decode_config
from jaxlm.io.run_dir import RunDir
from jaxlm.models.families import for_platform, make_model
from jaxlm.run.align.base import check_vocabulary, saved_template
from jaxlm.run.align.judge import Judge, make_judge
from jaxlm.run.align.reward_config import JudgeConfig
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.opening import open_base
from jaxlm.sharding.activations import ActivationLayout
from jaxlm.text.chat.encoding import ChatFormat


class RewardModel(NamedTuple):
    """An opened reward run."""

    model: Any
    """Its model's config."""
    config: JudgeConfig
    params: Params
    """Of the judge."""
    step: int


def open_reward_model(run_dir: str, step: int | None, form: ChatFormat) -> RewardModel:
    """The reward model of a run, to read answers in this format.

    Raises UserError where it is no run of ``jaxlm reward``, judges steps, or reads another vocabulary or template.
    """
    base = open_base(run_dir, step)
    assert base.params is not None
    if "reward" not in base.run_config:
        raise UserError(f"{run_dir} holds no reward model: name a run of jaxlm reward")
    config = decode_config(JudgeConfig, base.run_config["reward"], where=f"{run_dir}: config.reward")
    if config.of != "answers":
        raise UserError(f"{run_dir} judges the steps of an answer, and one reward for each is wanted: name another run")
    check_vocabulary(form.tokenizer, base.tokenizer, f"the reward model {run_dir}")
    template = saved_template(RunDir(run_dir))
    if template is not None and template.source != form.template.source:
        raise UserError(
            f"the reward model {run_dir} was taught in another chat template than {form.template.name!r}, in which "
            "answers are drawn: set prompts.template to its chat_template.jinja, or name another run"
        )
    unread = () if config.likelihood_coef else ("head",)
    params = {name: part for name, part in base.params.items() if name not in unread}
    return RewardModel(base.model, config, params, base.step or 0)


def judge_on(opened: RewardModel, mesh: Mesh, activations: ActivationLayout) -> Judge:
    """An opened reward model as it runs on this mesh."""
    platform = mesh.devices.flat[0].platform
    config = for_platform(opened.model, platform, kernel_missing=kernel_missing)
    return make_judge(make_model(config, activations), opened.config)
