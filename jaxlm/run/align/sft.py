"""``jaxlm sft CONFIG``: a trained model learns to answer, from conversations. The same command resumes it.

The loop, the step, checkpoints and the run directory are those of pretraining (`jaxlm.run.training`).
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.core.types import Params
from jaxlm.data.batches import DataState, batch_keys
from jaxlm.evals.perplexity import make_eval_step
from jaxlm.io.loader import BatchReader, eval_batches, train_batches
from jaxlm.run.align.answers import answers_of
from jaxlm.run.align.assembled import AlignRun
from jaxlm.run.align.policy import Policy, make_policy_model
from jaxlm.run.align.records import open_fields
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.run.align.sft_data import Conversations, held_out_plan, prepare_conversations
from jaxlm.run.align.teacher import Teacher, open_teacher
from jaxlm.run.interval import Figures
from jaxlm.run.setup import abstract_batch, batch_sharding
from jaxlm.run.training import Sample
from jaxlm.run.tuning import tune, tuning_command
from jaxlm.train.distillation_objective import distillation_objective
from jaxlm.train.objectives import causal_objective
from jaxlm.train.step import Objective


def main(argv: list[str]) -> int:
    """`run.tuning.tuning_command` of this config."""
    return tuning_command(argv, SftConfig, sft, "sft")


def sft(
    config: SftConfig,
    run_dir: str | Path,
    *,
    profile_steps: tuple[int, int] | None = None,
    dry_run: bool = False,
    may_change: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train as ``config`` says in ``run_dir``, from its last checkpoint if it has one; returns the final figures:
    ``eval/loss`` (nats a token that the assistant says, held out), ``num_params``, ``num_trained``.

    Raises UserError for bad input, before anything expensive has run. ``dry_run`` stops there. ``may_change``: further
    fields in which a run that has begun may differ.
    """
    return tune(
        config,
        run_dir,
        Sft,
        prepare=prepare_conversations,
        open_fields=open_fields(config),
        may_change=(*may_change, "data.train", "data.validation"),  # what is in them is compared, not where they lie
        profile_steps=profile_steps,
        dry_run=dry_run,
    )


class Sft(AlignRun):
    """The parts of one run (`run.tuning.TuningRun`). Making it compiles nothing."""

    def __init__(self, data: Conversations, mesh: Mesh):
        config = data.config
        assert config.num_steps is not None
        self.data = data
        self.model = make_policy_model(config.model, config, mesh, neftune_alpha=config.neftune_alpha)
        policy = Policy(self.model, data.base.params, config, config.num_steps, mesh)
        super().__init__(config, data.base, policy, mesh, config.data.seq_len)
        self.teacher: Teacher | None = open_teacher(config, data.base, mesh)
        self.eval_plan = held_out_plan(data, self.eval_rows)

    def describe(self) -> str:
        """One line: parameters, where they come from, steps."""
        rows = self.data.plan.rows.num_rows
        epochs = self.num_steps * self.config.global_batch_size / rows
        taught = "" if self.teacher is None else f"; taught by {self.config.distil.teacher}"
        return (
            f"sft: {self.policy.describe()}; {self.num_steps} steps of {self.config.global_batch_size} rows of "
            f"{self.tokens_per_row} tokens ({epochs:.1f} epochs of {rows:,} rows){taught}"
        )

    def objective(self) -> Objective:
        """Cross-entropy of what the assistant says, or the divergence from a teacher there."""
        if self.teacher is None:
            return causal_objective(self.model, loss_chunk=self.config.loss_chunk)
        distil = self.config.distil
        return distillation_objective(
            self.model,
            self.teacher.model,
            coef=distil.coef,
            direction=distil.direction,
            temperature=distil.temperature,
            loss_chunk=self.config.loss_chunk,
        )

    def rest(self) -> Params | None:
        """The teacher's parameters."""
        return None if self.teacher is None else self.teacher.params

    def abstract_batch(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch, sharded over the mesh."""
        return abstract_batch(batch_keys(self.data.plan.rows), rows, self.tokens_per_row, self.mesh)

    def batches(self, state: DataState) -> BatchReader:
        """The training batches from where ``state`` stands."""
        pad_id = self.data.tokenizer.pad_id
        return train_batches(self.data.train, self.data.plan, state, batch_sharding(self.mesh), pad_id=pad_id)

    def sampler(self) -> Callable[[Params], list[Sample]]:
        """Answers to held-out prompts, or to those of the config."""
        return answers_of(self.policy, self.base, self.data.prompts, self.config)

    def evaluator(self) -> Callable[[Params], Figures]:
        """Loss over the held-out conversations, every token that the assistant says once."""
        run = self.each(make_eval_step(self.model, loss_chunk=self.config.loss_chunk))
        sharding, pad_id = batch_sharding(self.mesh), self.data.tokenizer.pad_id

        def evaluate(params: Params) -> Figures:
            found = run(params, eval_batches(self.data.validation, self.eval_plan, sharding, pad_id=pad_id))
            sums = {name: float(np.sum([one[name] for one in found], dtype=np.float64)) for name in found[0]}
            loss = sums["nats"] / sums["tokens"]
            return {
                "eval/loss": loss,
                "eval/perplexity": math.exp(min(loss, 700.0)),
                "eval/accuracy": sums["correct"] / sums["tokens"],
            }

        return evaluate
