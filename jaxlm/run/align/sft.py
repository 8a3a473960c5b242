"""``jaxlm sft CONFIG``: a trained model learns to answer, from conversations. The same command resumes it.

The loop, the step, checkpoints and the run directory are those of pretraining (`jaxlm.run.training`).
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.core.types import Batch, Params
from jaxlm.data.batches import DataState, batch_keys
from jaxlm.evals.perplexity import make_eval_step
from jaxlm.io.agree import on_every_process, on_first_process, one_fate
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.loader import BatchReader, eval_batches, train_batches
from jaxlm.io.run_dir import RunDir
from jaxlm.models.families import make_model
from jaxlm.plan.families import train_flops_per_token
from jaxlm.run.align.answers import make_answerer
from jaxlm.run.align.base import keep_template
from jaxlm.run.align.policy import Policy, make_policy_model
from jaxlm.run.align.records import open_fields
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.run.align.sft_data import Conversations, held_out_plan, prepare_conversations
from jaxlm.run.align.teacher import Teacher, open_teacher
from jaxlm.run.config_files import load_config
from jaxlm.run.interval import Figures
from jaxlm.run.loop import StepFn
from jaxlm.run.processes import start_processes
from jaxlm.run.setup import abstract_batch, batch_sharding, compile_train_step, total_peak_flops
from jaxlm.run.training import Sample, exit_code, print_figures
from jaxlm.run.tuning import tune
from jaxlm.sharding.mesh import batch_ways
from jaxlm.train.distillation_objective import distillation_objective
from jaxlm.train.objectives import causal_objective
from jaxlm.train.responses import Adjustment
from jaxlm.train.state import TrainState
from jaxlm.train.step import Objective, make_train_step


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the run's final figures as
    JSON."""
    start_processes()
    with one_fate():
        config, options = on_every_process("command line", lambda: load_config(SftConfig, argv, prog="jaxlm sft"))
        steps = options.profile_steps if options.profile else None
        run_dir = options.run_dir or f"runs/{config.name}"
        figures = sft(config, run_dir, profile_steps=steps, dry_run=options.dry_run)
        print_figures(figures)
    return exit_code(figures)


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


class Sft:
    """The parts of one run (`run.tuning.TuningRun`). Making it compiles nothing."""

    def __init__(self, data: Conversations, mesh: Mesh):
        config = data.config
        assert config.num_steps is not None
        self.data, self.mesh, self.config, self.num_steps = data, mesh, config, config.num_steps
        self.model = make_policy_model(config.model, config, mesh, neftune_alpha=config.neftune_alpha)
        self.policy = Policy(self.model, data.base.params, config, self.num_steps, mesh)
        self.layout = self.policy.layout
        self.num_params = self.policy.num_params
        self.teacher: Teacher | None = open_teacher(config, data.base, mesh)
        ways = batch_ways(mesh)
        self.eval_plan = held_out_plan(data, -(-config.eval_batch_size // ways) * ways)
        per_token = train_flops_per_token(self.model.config, config.data.seq_len) * self.policy.flops_share
        self.flops_per_row = config.data.seq_len * per_token

    @property
    def tokens_per_row(self) -> int:
        return self.config.data.seq_len

    @property
    def peak_flops(self) -> float | None:
        return total_peak_flops(self.mesh)

    @property
    def facts(self) -> Figures:
        """What the final figures say beside scores."""
        flops = self.flops_per_row * self.config.global_batch_size * self.num_steps
        return {**self.policy.facts(), "train_flops": flops}

    def make_ready(self, directory: RunDir) -> None:
        """The run keeps its template."""
        on_first_process("chat template", lambda: keep_template(directory, self.data.base.form.template))

    def describe(self) -> str:
        """One line: parameters, where they come from, steps."""
        rows = self.data.plan.rows.num_rows
        epochs = self.num_steps * self.config.global_batch_size / rows
        taught = "" if self.teacher is None else f"; taught by {self.config.distil.teacher}"
        return (
            f"sft: {self.policy.describe()}; {self.num_steps} steps of {self.config.global_batch_size} rows of "
            f"{self.tokens_per_row} tokens ({epochs:.1f} epochs of {rows:,} rows){taught}"
        )

    def health(self, write: Any, note: Any) -> None:
        """Tuning is not looked at layer by layer."""

    def objective(self) -> Objective:
        """Cross-entropy of what the assistant says, or the divergence from a teacher there."""
        if self.teacher is None:
            plain = causal_objective(self.model, loss_chunk=self.config.loss_chunk)
        else:
            distil = self.config.distil
            plain = distillation_objective(
                self.model,
                self.teacher.model,
                coef=distil.coef,
                direction=distil.direction,
                temperature=distil.temperature,
            )
        return self.policy.objective(plain)

    def compile_step(self, rows: int, adjustment: Adjustment) -> StepFn:
        """The train step for batches of so many rows, compiled for the mesh."""
        config = self.config
        optimizer = config.optimizer.adjusted(rate_factor=adjustment.rate_factor, b2=adjustment.b2)
        step = make_train_step(
            self.objective(),
            self.policy.optimizer(optimizer),
            schedule=optimizer.schedule_fn(self.num_steps),
            grad_accum_steps=config.grad_accum_steps,
        )
        return compile_train_step(
            step,
            self.layout,
            abstract_batch(batch_keys(self.data.plan.rows), rows, config.data.seq_len, self.mesh),
            self.mesh,
            seed=config.seed,
            frozen=self.policy.frozen(None if self.teacher is None else self.teacher.params),
            sequence_parallel=config.mesh.sequence_parallel,
        )

    def fresh_state(self) -> TrainState:
        """Step 0: the base's parameters, or new ones."""
        return self.policy.fresh_state()

    def batches(self, state: DataState) -> BatchReader:
        """The training batches from where ``state`` stands."""
        pad_id = self.data.tokenizer.pad_id
        return train_batches(self.data.train, self.data.plan, state, batch_sharding(self.mesh), pad_id=pad_id)

    def sampler(self) -> Callable[[Params], list[Sample]]:
        """Answers to held-out prompts, or to those of the config."""
        config, data = self.config, self.data
        answer = make_answerer(
            make_model(self.model.config),
            data.base,
            data.prompts,
            config.sample,
            config_to_dict(config),
            seed=config.seed,
        )
        whole = self.policy.whole()
        return lambda params: answer(whole(params)) if data.prompts else []

    def evaluator(self) -> Callable[[Params], Figures]:
        """Loss over the held-out conversations, every token that the assistant says once."""
        eval_step, policy = make_eval_step(self.model), self.policy
        everywhere = NamedSharding(self.mesh, PartitionSpec())  # each process reads all the sums

        def sums_of(params: Params, frozen: Any, batch: Batch) -> Any:
            return eval_step(policy.compute(params, frozen), batch)

        jitted = jax.jit(sums_of, out_shardings=everywhere)

        def held_out() -> Iterator[Batch]:
            sharding, pad_id = batch_sharding(self.mesh), self.data.tokenizer.pad_id
            yield from eval_batches(self.data.validation, self.eval_plan, sharding, pad_id=pad_id)

        def evaluate(params: Params) -> Figures:
            frozen = policy.frozen()
            with jax.set_mesh(self.mesh):
                found = jax.device_get([jitted(params, frozen, batch) for batch in held_out()])
            sums = {name: float(np.sum([one[name] for one in found], dtype=np.float64)) for name in found[0]}
            loss = sums["nats"] / sums["tokens"]
            return {
                "eval/loss": loss,
                "eval/perplexity": math.exp(min(loss, 700.0)),
                "eval/accuracy": sums["correct"] / sums["tokens"],
            }

        return evaluate
