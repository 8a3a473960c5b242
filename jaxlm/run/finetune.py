"""``jaxlm finetune CONFIG``: a trained model learns a task from labelled data. The same command resumes it.

The loop, the step, checkpoints and the run directory are those of pretraining (`jaxlm.run.training`).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.core.tree import count_params
from jaxlm.core.types import Batch, Params
from jaxlm.data.batches import DataState
from jaxlm.data.examples import ExamplePlan
from jaxlm.evals import classification as scores
from jaxlm.io.loader import example_batches
from jaxlm.io.run_dir import RunDir
from jaxlm.models.families import for_platform, make_model, width_of
from jaxlm.models.heads import make_task_model
from jaxlm.optim.optimizers import make_optimizer
from jaxlm.plan.families import train_flops_per_token
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.finetune_config import FinetuneConfig
from jaxlm.run.finetune_data import Labelled, head_config, prepare_examples
from jaxlm.run.interval import Figures
from jaxlm.run.loop import StepFn
from jaxlm.run.setup import (
    StateLayout,
    batch_sharding,
    compile_train_step,
    lay_out_state,
    place_leaf,
    total_peak_flops,
)
from jaxlm.run.training import Sample
from jaxlm.run.tuning import tune, tuning_command
from jaxlm.sharding.mesh import batch_ways
from jaxlm.train.objectives import task_objective
from jaxlm.train.responses import Adjustment
from jaxlm.train.state import TrainState
from jaxlm.train.step import make_train_step


def main(argv: list[str]) -> int:
    """`run.tuning.tuning_command` of this config."""
    return tuning_command(argv, FinetuneConfig, finetune, "finetune")


def finetune(
    config: FinetuneConfig,
    run_dir: str | Path,
    *,
    profile_steps: tuple[int, int] | None = None,
    dry_run: bool = False,
    may_change: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train as ``config`` says in ``run_dir``, from its last checkpoint if it has one; returns the final figures:
    ``eval/loss`` and the scores of the task (``evals.classification``).

    Raises UserError for bad input, before anything expensive has run. ``dry_run`` stops there. ``may_change``: further
    fields in which a run that has begun may differ.
    """
    return tune(
        config,
        run_dir,
        Tuning,
        prepare=prepare_examples,
        open_fields=_open_fields(config),
        may_change=may_change,
        profile_steps=profile_steps,
        dry_run=dry_run,
    )


def _open_fields(config: FinetuneConfig) -> list[str]:
    """What the data fills in, unless it is given."""
    given = {"num_steps": config.num_steps, "task.labels": config.task.labels or None}
    model = ["model"] if config.model is None else ["model.vocab_size", "model.dropout"]
    return [name for name, value in given.items() if value is None] + model


class Tuning:
    """The parts of one fine-tuning run (`run.training.AssembledRun`). Making it compiles nothing."""

    def __init__(self, data: Labelled, mesh: Mesh):
        config = data.config
        assert config.model is not None
        assert config.num_steps is not None
        self.data, self.mesh, self.num_steps = data, mesh, config.num_steps
        self.config: FinetuneConfig = config
        model_config = for_platform(config.model, mesh.devices.flat[0].platform, kernel_missing=kernel_missing)
        model = make_model(model_config, config.mesh.activations)
        self.task = make_task_model(model, head_config(config.model, config.task))
        self.width = width_of(config.model)
        self.tx = make_optimizer(config.optimizer, config.num_steps, width=self.width)
        self.layout: StateLayout = lay_out_state(self.task, self.tx, mesh, seed=config.seed, ema=False)
        self.plan = ExamplePlan(data.train, config.global_batch_size, config.seed)
        ways = batch_ways(mesh)
        eval_rows = -(-config.eval_batch_size // ways) * ways
        self.eval_plan = ExamplePlan(data.validation, eval_rows, shuffle=False, num_epochs=1)
        self.num_params = count_params(self.layout.abstract.params)
        # Without the products of the model's own head, over the vocabulary.
        head = 6.0 * config.model.padded_vocab_size * config.model.model_dim
        per_token = train_flops_per_token(config.model, data.train["tokens"].shape[1]) - head
        self.flops_per_row = per_token * self.tokens_per_row

    @property
    def tokens_per_row(self) -> int:
        return self.data.train["tokens"].shape[1]

    @property
    def peak_flops(self) -> float | None:
        return total_peak_flops(self.mesh)

    @property
    def facts(self) -> Figures:
        """What the final figures say beside scores."""
        flops = self.flops_per_row * self.config.global_batch_size * self.num_steps
        return {"num_params": self.num_params, "train_flops": flops}

    def make_ready(self, directory: RunDir) -> None:
        """There is nothing to compute beforehand."""

    def describe(self) -> str:
        """One line: task, parameters, where they come from, steps."""
        config, task = self.config, self.config.task
        fresh = config.base is None or config.from_scratch
        start = "fresh parameters" if fresh else f"from {config.base} step {config.base_step}"
        epochs = self.num_steps * config.global_batch_size / self.plan.num_rows
        classes = f" of {len(task.labels)} classes" if task.labels else ""
        return (
            f"task: {task.kind}{classes}; {self.num_params:,} parameters, {start}; {config.num_steps} steps of "
            f"{config.global_batch_size} examples ({epochs:.1f} epochs)"
        )

    def health(self, write: Any, note: Any) -> None:
        """Fine-tuning is not looked at layer by layer."""

    def compile_step(self, rows: int, adjustment: Adjustment) -> StepFn:
        """The train step for batches of so many examples, compiled for the mesh."""
        config = self.config
        optimizer = config.optimizer.adjusted(rate_factor=adjustment.rate_factor, b2=adjustment.b2)
        step = make_train_step(
            task_objective(self.task),
            make_optimizer(optimizer, self.num_steps, width=self.width),
            schedule=optimizer.schedule_fn(self.num_steps),
            grad_accum_steps=config.grad_accum_steps,
        )
        mesh = self.mesh
        batch = {
            name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=batch_sharding(mesh, x.ndim))
            for name, x in self.data.train.items()
        }
        return compile_train_step(
            step, self.layout, batch, self.mesh, seed=config.seed, sequence_parallel=config.mesh.sequence_parallel
        )

    def fresh_state(self) -> TrainState:
        """Step 0: the base's parameters below a new head, or all of them new."""
        state = self.layout.init()
        if self.data.base_params is None:
            return state

        wanted = {name: part for name, part in self.layout.abstract.params.items() if name != "classifier"}
        body = jax.tree.map(place_leaf, self.data.base_params, wanted)
        return dataclasses.replace(state, params=body | {"classifier": state.params["classifier"]})

    @contextlib.contextmanager
    def batches(self, state: DataState) -> Iterator[Iterator[tuple[int, Batch]]]:
        """The training batches from where ``state`` stands."""
        yield example_batches(self.plan, state, batch_sharding(self.mesh))

    def sampler(self) -> Callable[[Params], list[Sample]]:
        """A task model writes nothing."""
        return lambda params: []

    def evaluator(self) -> Callable[[Params], Figures]:
        """Loss and scores over the whole validation file, each example once."""
        everywhere = NamedSharding(self.mesh, PartitionSpec())  # each process reads all outputs
        outputs_fn = jax.jit(self.task.outputs, out_shardings=everywhere)

        def evaluate(params: Params) -> Figures:
            outputs, labels = [], []
            with jax.set_mesh(self.mesh):
                for batch_id, batch in example_batches(self.eval_plan, DataState(), batch_sharding(self.mesh)):
                    arrays = self.eval_plan.batch(batch_id)
                    counted = arrays["loss_mask"] > 0
                    outputs.append(np.asarray(outputs_fn(params, batch))[counted])
                    labels.append(arrays["labels"][counted])
            return task_figures(np.concatenate(outputs), np.concatenate(labels))

        return evaluate


def task_figures(outputs: np.ndarray, labels: np.ndarray) -> Figures:
    """Scores of logits [n, c] against classes [n], or of numbers [n] against numbers [n] (f32)."""
    outputs = outputs.astype(np.float64)
    if outputs.ndim == 1:
        return {
            "eval/loss": float(np.mean((outputs - labels) ** 2)),
            "eval/spearman": scores.spearman(outputs, labels),
            "eval/pearson": scores.pearson(outputs, labels),
        }
    num_labels = outputs.shape[1]
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    predictions = outputs.argmax(axis=1)
    figures: Figures = {
        "eval/loss": float(-np.mean(log_probs[np.arange(len(labels)), labels])),
        "eval/accuracy": scores.accuracy(labels, predictions),
        "eval/macro_f1": scores.macro_f1(labels, predictions, num_labels),
        "eval/matthews": scores.matthews(labels, predictions, num_labels),
    }
    if num_labels == 2:
        figures["eval/f1"] = scores.binary_f1(labels, predictions)
    return figures
