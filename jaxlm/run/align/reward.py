"""``jaxlm reward CONFIG``: a model learns to judge answers, from what people prefer. The same command resumes it.

The loop, the step, checkpoints and the run directory are those of pretraining (`jaxlm.run.training`).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.core.types import Batch, Params
from jaxlm.data.batches import DataState
from jaxlm.data.examples import ExamplePlan
from jaxlm.evals import preferences as scores
from jaxlm.io.agree import on_first_process
from jaxlm.io.loader import example_batches
from jaxlm.io.run_dir import RunDir, json_ready, write_json
from jaxlm.run.align.assembled import (
    AlignRun,
    example_shapes,
    held_out_batches,
    make_terms_evaluator,
    rows_sharding,
)
from jaxlm.run.align.judge import NEW_HEAD, make_judge
from jaxlm.run.align.policy import Policy, make_policy_model
from jaxlm.run.align.records import open_fields
from jaxlm.run.align.reward_config import RewardModelConfig
from jaxlm.run.align.reward_data import RewardData, prepare_reward_data
from jaxlm.run.interval import Figures
from jaxlm.run.tuning import tune, tuning_command
from jaxlm.train.preference_objectives import reward_objective
from jaxlm.train.step import Objective
from jaxlm.train.step_reward_objective import step_reward_objective


def main(argv: list[str]) -> int:
    """`run.tuning.tuning_command` of this config."""
    return tuning_command(argv, RewardModelConfig, reward, "reward")


def reward(
    config: RewardModelConfig,
    run_dir: str | Path,
    *,
    profile_steps: tuple[int, int] | None = None,
    dry_run: bool = False,
    may_change: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train as ``config`` says in ``run_dir``, from its last checkpoint if it has one; returns the final figures:
    ``eval/loss`` and ``eval/accuracy`` on what is held out; of rankings also ``eval/accuracy_lower``, ``_upper``,
    ``eval/longer_wins``, ``eval/calibration_error`` and ``eval/length_correlation``.

    Raises UserError for bad input, before anything expensive has run. ``dry_run`` stops there. ``may_change``: further
    fields in which a run that has begun may differ.
    """
    return tune(
        config,
        run_dir,
        RewardRun,
        prepare=prepare_reward_data,
        open_fields=[*open_fields(config), *(["reward.ties"] if config.reward.ties is None else [])],
        may_change=(*may_change, "data.train", "data.validation"),  # what is in them is compared, not where they lie
        profile_steps=profile_steps,
        dry_run=dry_run,
    )


class RewardRun(AlignRun):
    """The parts of one run (`run.tuning.TuningRun`). Making it compiles nothing."""

    def __init__(self, data: RewardData, mesh: Mesh):
        config = data.config
        assert config.num_steps is not None
        self.data, shape = data, data.train.arrays["tokens"].shape
        self.judge = make_judge(
            make_policy_model(config.model, config, mesh), config.reward, loss_chunk=config.loss_chunk
        )
        policy = Policy(self.judge.task, data.base.params, config, config.num_steps, mesh, extra=(NEW_HEAD,))
        super().__init__(config, data.base, policy, mesh, math.prod(shape[1:]))
        self.plan = ExamplePlan(data.train.arrays, config.global_batch_size, config.seed)
        self.eval_plan = ExamplePlan(data.validation.arrays, self.eval_rows, shuffle=False, num_epochs=1)
        self._directory: RunDir | None = None

    def describe(self) -> str:
        """One line: what is judged, parameters, where they come from, steps."""
        config = self.config
        epochs = self.num_steps * config.global_batch_size / self.plan.num_rows
        return (
            f"reward of {config.reward.of}: {self.policy.describe()}; {self.num_steps} steps of "
            f"{config.global_batch_size} prompts ({epochs:.1f} epochs)"
        )

    def make_ready(self, directory: RunDir) -> None:
        """The template; and where the scores by source go."""
        super().make_ready(directory)
        self._directory = directory

    def objective(self) -> Objective:
        """Of rankings, or of labelled steps."""
        config = self.config.reward
        if config.of == "steps":
            return step_reward_objective(self.judge.task)
        return reward_objective(
            self.judge.rewards,
            ties=bool(config.ties),
            centre_coef=config.centre_coef,
            term_names=self.judge.task.term_names,
        )

    def abstract_batch(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch, sharded over the mesh."""
        return example_shapes(self.plan, rows, self.mesh)

    @contextmanager
    def batches(self, state: DataState) -> Iterator[Iterator[tuple[int, Batch]]]:
        """The training batches from where ``state`` stands."""
        yield example_batches(self.plan, state, rows_sharding(self.mesh, 1))

    def evaluator(self) -> Callable[[Params], Figures]:
        """The terms of the loss over what is held out; of rankings also accuracy by source, calibration and length,
        which go to ``reward/reward.json``."""
        terms = make_terms_evaluator(self, self.objective(), self.eval_plan)
        if self.config.reward.of == "steps":
            return terms
        rewards_of = self.each(lambda params, batch: self.judge.rewards(params, batch, None)[0])

        def evaluate(params: Params) -> Figures:
            found = rewards_of(params, held_out_batches(self.eval_plan, self.mesh))
            rewards_nk = np.concatenate(found)[: self.eval_plan.num_rows]
            tables = judge_rewards(rewards_nk, self.data.validation.arrays, self.data.validation.sources)
            if self._directory is not None:
                path = self._directory.path / "reward" / "reward.json"
                on_first_process("scores", lambda: _write(path, tables))
            return terms(params) | headline(tables)

        return evaluate


def judge_rewards(rewards_nk: np.ndarray, arrays: dict[str, np.ndarray], sources: list[str]) -> dict[str, Any]:
    """``sources`` (accuracy by source), ``calibration`` and ``length`` of rewards of ranked answers."""
    mask, lengths = arrays["answer_mask"], arrays["loss_mask"].sum(axis=-1)
    pairs = scores.ranked_pairs(rewards_nk, arrays["ranks"], mask, lengths)
    tables: dict[str, Any] = {
        "sources": scores.by_source(pairs, sources),
        "calibration": scores.calibration(pairs.difference),
        "length": scores.length_bias(pairs, rewards_nk, mask, lengths),
    }
    return json_ready(tables)


def headline(tables: dict[str, Any]) -> Figures:
    """Of `judge_rewards`, what a run's figures say."""
    whole, length = tables["sources"]["all"], tables["length"]
    return {
        "eval/accuracy": whole["accuracy"],
        "eval/accuracy_lower": whole["lower"],
        "eval/accuracy_upper": whole["upper"],
        "eval/longer_wins": whole["longer_wins"],
        "eval/calibration_error": tables["calibration"]["error"],
        "eval/length_correlation": length["correlation"],
    }


def _write(path: Path, tables: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_json(path, tables)
