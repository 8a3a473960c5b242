"""``jaxlm ppo CONFIG``: reinforcement learning of a tuned model from rewards (PPO, GRPO, Dr. GRPO, RLOO). The same
command resumes it.

The loop, the step, checkpoints and the run directory are those of pretraining (`jaxlm.run.training`): before the first
of the steps that learn from a rollout, the loop has the model write one (`jaxlm.run.collector`), and it lies in the
train state until the next.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxlm.core.errors import UserError
from jaxlm.core.tree import count_params, map_with_paths
from jaxlm.core.types import Array, Batch, Params, PyTree
from jaxlm.data.batches import DataState, next_batch_id, rows_at
from jaxlm.io.agree import on_first_process
from jaxlm.io.loader import spread
from jaxlm.io.run_dir import RunDir
from jaxlm.models.api import Model, Rules
from jaxlm.models.families import for_platform, make_model, width_of
from jaxlm.models.heads import HeadConfig, TaskModel, make_task_model
from jaxlm.optim.optimizers import make_optimizer
from jaxlm.plan.families import train_flops_per_token
from jaxlm.run.align.base import keep_template
from jaxlm.run.align.ppo_config import PpoConfig
from jaxlm.run.align.ppo_data import Prepared, prepare, row_width
from jaxlm.run.align.reward_functions import RewardFunction
from jaxlm.run.align.rollouts import Actor, RolloutCollector, make_evaluator
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.interval import Figures
from jaxlm.run.loop import StepFn
from jaxlm.run.setup import (
    StateLayout,
    batch_sharding,
    compile_train_step,
    lay_out_state,
    place_params,
    total_peak_flops,
)
from jaxlm.run.training import Sample
from jaxlm.run.tuning import tune, tuning_command
from jaxlm.sharding.constrain import constrain
from jaxlm.sharding.mesh import batch_spec, batch_ways
from jaxlm.train.collapse import CollapseState
from jaxlm.train.policy_objectives import CRITIC, actor_critic_objective, critic_objective, policy_objective
from jaxlm.train.responses import Adjustment
from jaxlm.train.state import TrainState
from jaxlm.train.step import Objective, make_train_step


def main(argv: list[str]) -> int:
    """`run.tuning.tuning_command` of this config."""
    return tuning_command(argv, PpoConfig, ppo, "ppo")


def ppo(
    config: PpoConfig,
    run_dir: str | Path,
    *,
    functions: Mapping[str, RewardFunction] | None = None,
    profile_steps: tuple[int, int] | None = None,
    dry_run: bool = False,
    may_change: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train as ``config`` says in ``run_dir``, from its last checkpoint if it has one; returns the final figures, those
    of the last rollout (``rollout/``) and evaluation (``eval/``) among them.

    Args:
      functions: name -> reward function, for the names that ``config.rewards`` give as ``function`` (a file's function
        needs no entry: ``FILE.py:FUNCTION``).
      may_change: further fields in which a run that has begun may differ.

    Raises UserError for bad input before anything expensive has run, and for a reward that cannot be had, with the
    state saved before that rollout: the same command goes on from there.
    """
    return tune(
        config,
        run_dir,
        PolicyRun,
        prepare=functools.partial(prepare, functions=functions or {}),
        open_fields=["model", *(["prompts.add_bos"] if config.prompts.add_bos is None else [])],
        may_change=(*may_change, *(f"rewards.{i}.time_limit" for i in range(len(config.rewards)))),
        profile_steps=profile_steps,
        dry_run=dry_run,
    )


@dataclasses.dataclass(frozen=True)
class _ActorCritic:
    """The policy's parameters, and the critic's under `CRITIC`, as one tree."""

    model: Model
    critic: TaskModel | None

    def init(self, key: Array) -> Params:
        """Fresh parameters of both."""
        params = self.model.init(key)
        return params if self.critic is None else params | {CRITIC: self.critic.init(key)}

    @property
    def rules(self) -> Rules:
        if self.critic is None:
            return self.model.rules
        inside = tuple(
            (f"^{CRITIC}/{pattern[1:]}" if pattern.startswith("^") else pattern, spec)
            for pattern, spec in self.critic.rules
        )
        return inside + self.model.rules


class PolicyRun:
    """The parts of one run (`run.training.AssembledRun`, `ActingRun`). Making it compiles nothing."""

    def __init__(self, data: Prepared, mesh: Mesh):
        self.data, self.mesh = data, mesh
        self.config: PpoConfig = data.config
        config = self.config
        model_config = for_platform(data.base.model, mesh.devices.flat[0].platform, kernel_missing=kernel_missing)
        self.model = make_model(model_config, config.mesh.activations)
        self.critic: TaskModel | None = None
        if config.with_critic:
            self.critic = make_task_model(self.model, HeadConfig("tag"))
        if config.rows_at_once % batch_ways(mesh):
            raise UserError(
                f"rollout.rows_at_once={config.rows_at_once} answers do not divide over the {batch_ways(mesh)} devices "
                "that share the rows: make it a multiple"
            )
        self.width = row_width(data.train, config) - 1
        parts = _ActorCritic(self.model, self.critic)
        self.layout: StateLayout = lay_out_state(
            parts, self._optimizer(Adjustment()), mesh, seed=config.seed, ema=False, carry=self._carry
        )
        self.num_params = count_params({k: v for k, v in self.layout.abstract.params.items() if k != CRITIC})
        copies = 2 if config.with_critic else 1
        self.flops_per_row = copies * self.width * train_flops_per_token(data.base.model, self.width)

    def _optimizer(self, adjustment: Adjustment) -> optax.GradientTransformation:
        """The policy's, and for the critic the same at its own rate, each with its own norm to clip."""
        config, width = self.config, width_of(self.model.config)
        made: dict[Hashable, optax.GradientTransformation] = {
            name: make_optimizer(
                optimizer.adjusted(rate_factor=adjustment.rate_factor, b2=adjustment.b2), config.num_steps, width=width
            )
            for name, optimizer in (("policy", config.optimizer), (CRITIC, config.critic_optimizer))
        }
        if not config.with_critic:
            return made["policy"]

        def labels(params: PyTree) -> PyTree:
            return map_with_paths(lambda path, _: CRITIC if path.startswith(f"{CRITIC}/") else "policy", params)

        return optax.multi_transform(made, labels)

    def _carry(self) -> PyTree:
        """What lies in the state between steps: a rollout (at step 0 an empty one), the KL coefficient, what the watch
        over collapse remembers."""
        shape = (self.config.num_rows, self.width)
        whole = dict.fromkeys(("tokens", "targets", "segment_ids"), jnp.int32)
        names = ["loss_mask", "old_logprobs", "ref_logprobs", "advantages"]
        names += ["returns", "old_values"] if self.config.with_critic else []
        return {
            "kl_coef": jnp.float32(self.config.kl.coef),
            "rollout": {
                name: jnp.zeros(shape, kind) for name, kind in (whole | dict.fromkeys(names, jnp.float32)).items()
            },
            "watch": {name: jnp.asarray(value) for name, value in CollapseState().to_arrays().items()},
        }

    @property
    def tokens_per_row(self) -> int:
        return self.width

    @property
    def peak_flops(self) -> float | None:
        return total_peak_flops(self.mesh)

    @property
    def facts(self) -> Figures:
        """What the final figures say beside scores."""
        rows = self.config.global_batch_size * self.config.num_steps
        return {"num_params": self.num_params, "train_flops": self.flops_per_row * rows}

    def describe(self) -> str:
        """One line: algorithm, parameters, where they come from, rollouts and steps."""
        config = self.config
        return (
            f"{config.algorithm}: {self.num_params:,} parameters from {config.base} step {config.base_step}; "
            f"{config.num_rollouts} rollouts of {config.rollout.num_prompts} prompts x {config.group_size} answers, "
            f"{config.steps_per_rollout} steps each"
        )

    def make_ready(self, directory: RunDir) -> None:
        """Keeps the chat template with the run."""
        on_first_process("chat template", lambda: keep_template(directory, self.data.base.form.template))

    def health(self, write: Any, note: Any) -> None:
        """The policy is not looked at layer by layer."""

    def compile_step(self, rows: int, adjustment: Adjustment) -> StepFn:
        """The train step for minibatches of so many answers of the rollout in the state."""
        config = self.config
        optimizer = config.optimizer.adjusted(rate_factor=adjustment.rate_factor, b2=adjustment.b2)
        train_step = make_train_step(
            self._objective(),
            self._optimizer(adjustment),
            schedule=optimizer.schedule_fn(config.num_steps),
            grad_accum_steps=config.grad_accum_steps,
        )

        def step(state: TrainState, frozen: PyTree, batch: Batch, key: Array) -> Any:
            taken = {name: constrain(x[batch["rows"]], batch_spec()) for name, x in state.carry["rollout"].items()}
            return train_step(state, frozen, taken, key)

        batch = {"rows": jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=batch_sharding(self.mesh, 1))}
        return compile_train_step(
            step, self.layout, batch, self.mesh, seed=config.seed, sequence_parallel=config.mesh.sequence_parallel
        )

    def _objective(self) -> Objective:
        policy = policy_objective(self.model, self.config.policy)
        if self.critic is None:
            return policy
        critic = critic_objective(self.critic, clip_eps=self.config.critic.clip_eps)
        return actor_critic_objective(policy, critic, value_coef=self.config.critic.value_coef)

    def fresh_state(self) -> TrainState:
        """Step 0: the base's parameters; the critic's body is the base's too, or a reward model's, and its head gives
        0: the reward that is learnt from may be a sum of several."""
        state = self.layout.init()
        params = self._place_base()
        if self.critic is not None:
            name, made = self.config.critic.reward, state.params[CRITIC]
            source = self.data.base.params if name is None else self.data.reward_models[name].params
            body = {part for part in made if part != "classifier"}
            params |= {
                CRITIC: self._place(source, body, self.layout.abstract.params[CRITIC], self.critic.rules)
                | {"classifier": jax.tree.map(jnp.zeros_like, made["classifier"])}
            }
        return dataclasses.replace(state, params=params)

    def _place_base(self) -> Params:
        """The base's parameters, as the policy's."""
        wanted = self.layout.abstract.params
        return self._place(self.data.base.params, {name for name in wanted if name != CRITIC}, wanted, self.model.rules)

    def _place(self, source: Params | None, parts: Iterable[str], wanted: Params, rules: Rules) -> Params:
        """Some parts of parameters on the mesh, in the dtypes that are wanted."""
        assert source is not None
        cast = {
            name: jax.tree.map(lambda leaf, want: np.asarray(leaf).astype(want.dtype), source[name], wanted[name])
            for name in parts
        }
        return place_params(cast, rules, self.mesh)

    @functools.cached_property
    def actor(self) -> Actor:
        """Draws and judges answers; the base is its reference."""
        return Actor(self.data, self.mesh, self.model, self.critic, self._place_base())

    def collector(self) -> RolloutCollector:
        """Rollouts for the loop."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.layout.abstract.carry)
        return RolloutCollector(self.actor, shardings)

    @contextlib.contextmanager
    def batches(self, state: DataState) -> Iterator[Iterator[tuple[int, Batch]]]:
        """Which answers of the rollout each step learns from: shuffled anew in every pass."""
        yield self._minibatches(state)

    def _minibatches(self, state: DataState) -> Iterator[tuple[int, Batch]]:
        config, sharding = self.config, batch_sharding(self.mesh, 1)
        size, count = config.global_batch_size, config.num_rows
        batch_id = next_batch_id(state.cursor, state.skipped)
        while True:
            places = np.arange(batch_id * size, (batch_id + 1) * size)
            rows = rows_at(places, count, seed=config.seed, shuffle=True, num_epochs=None) % count
            yield batch_id, {"rows": spread(rows.astype(np.int32), sharding)}
            batch_id = next_batch_id(batch_id + 1, state.skipped)

    def sampler(self) -> Callable[[Params], list[Sample]]:
        """Rollouts bring their own samples."""
        return lambda params: []

    def evaluator(self) -> Callable[[Params], Figures]:
        """Rewards over the held-out prompts."""
        return make_evaluator(self.actor)
