"""What a resolved config and its data make: model, plans, optimiser, the layout of the state, the compiled step."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.core.tree import count_params
from jaxlm.core.types import Array, Batch, Params, PyTree
from jaxlm.data.batches import BatchPlan, DataState, batch_keys, eval_plan, make_batch, train_plan
from jaxlm.data.masking import make_masking
from jaxlm.evals.perplexity import Sums, make_carried_eval_step, make_eval_step
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.loader import BatchReader, eval_batches, train_batches
from jaxlm.io.token_dataset import TokenSplit
from jaxlm.models.api import Model
from jaxlm.models.families import MASKED, for_platform, make_model, width_of
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.plan.families import train_flops_per_token
from jaxlm.plan.memory import MemoryEstimate
from jaxlm.run.config import PretrainConfig
from jaxlm.run.continued import base_params
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.devices import accelerator_memory_bytes
from jaxlm.run.health import Health, Look
from jaxlm.run.in_flight import in_turn
from jaxlm.run.interval import Figures
from jaxlm.run.loop import StepFn
from jaxlm.run.memory import choose_remat, estimate_run_memory
from jaxlm.run.prepare import PreparedData
from jaxlm.run.samples import Sample, make_sampler
from jaxlm.run.setup import (
    StateLayout,
    abstract_batch,
    batch_sharding,
    compile_train_step,
    lay_out_state,
    total_peak_flops,
)
from jaxlm.run.task_scores import make_task_scores
from jaxlm.sharding.mesh import batch_ways
from jaxlm.text.tokenizer import Tokenizer
from jaxlm.train.health import make_health_step
from jaxlm.train.objectives import causal_objective
from jaxlm.train.responses import Adjustment
from jaxlm.train.state import TrainState
from jaxlm.train.step import TrainStep, make_train_step


def plan_batches(config: PretrainConfig, split: TokenSplit, tokenizer: Tokenizer) -> BatchPlan:
    """What a run trains on: documents in rows, and for an encoder what is hidden in them."""
    size, masked = config.global_batch_size, _masked(config, tokenizer)
    return train_plan(split, config.data, global_batch_size=size, seed=config.seed, ramp=config.batch_ramp, **masked)


def _masked(config: PretrainConfig, tokenizer: Tokenizer, *, evaluation: bool = False) -> dict[str, Any]:
    if config.model.family not in MASKED:
        return {}
    return {"shift": 0, "transform": make_masking(config.masking, tokenizer, seed=config.seed, evaluation=evaluation)}


def step_of(config: PretrainConfig, model: Model, tx: optax.GradientTransformation, *, streamed: bool) -> TrainStep:
    """The train step that a config asks for, as a pure function. ``streamed``: rows carry the model's state."""
    objective = causal_objective(model, z_loss_coef=config.z_loss_coef, carried=streamed, loss_chunk=config.loss_chunk)
    return make_train_step(
        objective,
        tx,
        schedule=config.optimizer.schedule_fn(config.num_steps),
        grad_accum_steps=config.grad_accum_steps,
        ema_decay=config.ema_decay,
    )


class Assembly:
    """The parts of one pretraining run. Making it compiles nothing.

    Raises UserError for what cannot run: too little text, dimensions that do not divide over the mesh.
    """

    def __init__(self, config: PretrainConfig, data: PreparedData, mesh: Mesh):
        if config.base is not None and config.base_step is None:  # `on_base` was not asked
            raise UserError(f"base={config.base}: this command begins with fresh parameters: leave it out")
        self.config, self.data, self.mesh = config, data, mesh
        model_config = for_platform(config.model, mesh.devices.flat[0].platform, kernel_missing=kernel_missing)
        self.model: Model = make_model(model_config, config.mesh.activations)
        self.train_split, self.validation_split = data.dataset.splits["train"], data.dataset.splits["validation"]
        self.plan = plan_batches(config, self.train_split, data.tokenizer)
        if self.plan.num_batches is not None and self.plan.num_batches < config.num_steps:
            raise UserError(
                f"data.num_epochs={config.data.num_epochs} gives {self.plan.num_batches} batches, fewer than num_steps="
                f"{config.num_steps}: lower num_steps, raise num_epochs, or set it to None to repeat"
            )
        self.eval_plan = eval_plan(
            self.validation_split,
            config.data,
            batch_size=self.eval_rows,
            **_masked(config, data.tokenizer, evaluation=True),
        )
        self._check_masks()
        self.tx = self._optimizer(config.optimizer)
        self.layout: StateLayout = lay_out_state(
            self.model,
            self.tx,
            mesh,
            seed=config.seed,
            ema=config.ema_decay is not None,
            carry=self._carry(config.global_batch_size),
        )
        chosen = choose_remat(
            dataclasses.replace(config, model=model_config), self.layout, mesh, accelerator_memory_bytes()
        )
        self.memory: MemoryEstimate = estimate_run_memory(chosen, self.layout, mesh)
        self.model = make_model(chosen.model, config.mesh.activations)
        self.task_scores = make_task_scores(config.tasks, self.model, data.tokenizer, config_to_dict(config))
        self.num_params = count_params(self.layout.abstract.params)
        self.flops_per_row = config.data.seq_len * train_flops_per_token(config.model, config.data.seq_len)

    def _optimizer(self, optimizer: OptimizerConfig) -> optax.GradientTransformation:
        return make_optimizer(optimizer, self.config.num_steps, width=width_of(self.config.model))

    def _check_masks(self) -> None:
        """An evaluation of masked text needs one masked token at least: not at the end of a long run."""
        plan, split = self.eval_plan, self.validation_split
        batches = (
            make_batch(split, plan, plan.row_ids(i), pad_id=self.data.tokenizer.pad_id)
            for i in range(plan.num_batches or 0)
        )
        if not any(batch["loss_mask"].any() for batch in batches):
            raise UserError(
                f"masking.rate={self.config.masking.rate} hides no token of the {split.num_tokens:,} held out: add "
                "held-out text, or raise the rate"
            )

    def _carry(self, rows: int) -> Callable[[], PyTree]:
        """Makes what is carried from batch to batch: the state of a recurrent model over a stream, else nothing."""
        return (lambda: self.model.init_cache(rows, 0)) if self.plan.rows.streamed else (lambda: None)

    @property
    def eval_rows(self) -> int:
        """Rows of an evaluation batch: what was asked for, rounded up to a multiple of the devices that share it.

        Raises UserError where it is no multiple and the rows are lanes of a stream: how many they are alters the loss.
        """
        size, ways = self.config.eval_batch_size, batch_ways(self.mesh)
        if self.config.data.packing == "stream" and size % ways:
            raise UserError(
                f"eval_batch_size={size} lanes of a stream do not divide over mesh.data * mesh.fsdp * mesh.expert = "
                f"{ways} devices: make it a multiple of {ways}"
            )
        return -(-size // ways) * ways

    @property
    def peak_flops(self) -> float | None:
        return total_peak_flops(self.mesh)

    @property
    def tokens_per_row(self) -> int:
        return self.config.data.seq_len

    def describe(self) -> str:
        """One line: parameters, mesh, steps, FLOPs."""
        config = self.config
        axes = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
        epochs = config.num_rows / self.plan.rows.num_rows
        largest = max(self.plan.ramp.sizes) * config.data.seq_len
        policy = getattr(self.model.config, "remat_policy", "none")
        recomputes = f", remat {policy} of auto" if getattr(config.model, "remat_policy", None) == "auto" else ""
        start = "" if config.base is None else f", from {config.base} step {config.base_step}"
        up_to = f" to {largest:,}" if largest != config.tokens_per_step else ""
        return (
            f"model: {self.num_params:,} parameters{start}; mesh {axes} on {self.mesh.devices.flat[0].device_kind}; "
            f"{config.num_steps} steps of {config.tokens_per_step:,}{up_to} tokens ({epochs:.2f} epochs), "
            f"{config.num_rows * self.flops_per_row:.2e} FLOPs{recomputes}"
        )

    def compile_step(self, rows: int, adjustment: Adjustment) -> StepFn:
        """The train step for batches of so many rows, compiled for the mesh."""
        config = self._config_of(rows, adjustment)
        step = step_of(config, self.model, self._optimizer(config.optimizer), streamed=self.plan.rows.streamed)
        batch = abstract_batch(batch_keys(self.plan.rows), rows, config.data.seq_len, self.mesh)
        return compile_train_step(
            step, self.layout, batch, self.mesh, seed=config.seed, sequence_parallel=config.mesh.sequence_parallel
        )

    def _config_of(self, rows: int, adjustment: Adjustment) -> PretrainConfig:
        """The config as it is for batches of so many rows, with the optimiser so adjusted."""
        optimizer = self.config.optimizer.adjusted(rate_factor=adjustment.rate_factor, b2=adjustment.b2)
        microbatches = rows // self.config.microbatch_size
        return dataclasses.replace(
            self.config, optimizer=optimizer, global_batch_size=rows, grad_accum_steps=microbatches, batch_ramp=()
        )

    def health(self, write: Callable[[int, dict[str, float]], None], note: Callable[[str], None]) -> Health | None:
        """Looks at the run's health as often as the config asks; None = never."""
        every = self.config.health_every
        return None if every is None else Health(every, self._compile_look, write, note)

    def _compile_look(self, rows: int, adjustment: Adjustment) -> Look:
        """What looks at a state and a batch of so many rows; compiled when first called."""
        config, streamed = self._config_of(rows, adjustment), self.plan.rows.streamed
        health_step = make_health_step(
            self.model.config,
            lambda tx: step_of(config, self.model, tx, streamed=streamed),
            self._optimizer(config.optimizer),
            grad_accum_steps=config.grad_accum_steps,
        )
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        jitted = jax.jit(health_step, out_shardings=everywhere)
        key = jax.jit(lambda: purpose_key(config.seed, Purpose.DROPOUT), out_shardings=everywhere)()

        def look(state: TrainState, batch: Batch) -> dict[str, Array]:
            with jax.set_mesh(self.mesh):
                return jitted(state, None, batch, key)

        return look

    def fresh_state(self) -> TrainState:
        """Step 0: parameters drawn anew, or the base's."""
        fresh = self.layout.init()
        return fresh if self.config.base is None else base_params(self.config, fresh, self.layout.abstract)

    def batches(self, state: DataState) -> BatchReader:
        """The training batches from where ``state`` stands."""
        return train_batches(
            self.train_split,
            self.plan,
            state,
            batch_sharding(self.mesh),
            pad_id=self.data.tokenizer.pad_id,
            read_threads=self.config.data.read_threads,
            prefetch=self.config.data.prefetch,
        )

    def sampler(self) -> Callable[[Params], list[Sample]]:
        """Writes the config's samples."""
        return make_sampler(self.model, self.data.tokenizer, self.config, config_to_dict(self.config))

    def evaluator(self) -> Callable[[Params], Figures]:
        """Loss over the whole validation split, every target once, and bits per byte where the tokenizer allows it; the
        scores of the config's tasks."""
        config, sharding, tokenizer = self.config, batch_sharding(self.mesh), self.data.tokenizer
        everywhere = NamedSharding(self.mesh, PartitionSpec())  # each process reads all the sums
        eval_step = jax.jit(make_eval_step(self.model, loss_chunk=config.loss_chunk), out_shardings=everywhere)
        lanes = batch_sharding(self.mesh, ndim=1)
        carried = make_carried_eval_step(self.model, loss_chunk=config.loss_chunk)
        carried_step = jax.jit(carried, out_shardings=(everywhere, lanes))

        def sum_up(params: Params) -> Iterator[Sums]:
            batches = eval_batches(self.validation_split, self.eval_plan, sharding, pad_id=tokenizer.pad_id)
            if not self.eval_plan.rows.streamed:
                yield from (eval_step(params, batch) for batch in batches)
                return
            state = jax.jit(self._carry(self.eval_rows), out_shardings=lanes)()
            for batch in batches:
                sums, state = carried_step(params, batch, state)
                yield sums

        def evaluate(params: Params) -> Figures:
            sums: dict[str, float] = {"nats": 0.0, "tokens": 0.0, "correct": 0.0}
            with jax.set_mesh(self.mesh):
                found = jax.device_get(list(in_turn(sum_up(params))))
            for name in sums:
                sums[name] = float(np.sum([batch[name] for batch in found], dtype=np.float64))
            loss = sums["nats"] / sums["tokens"]
            num_bytes = self.validation_split.num_bytes
            has_likelihood = config.model.family not in MASKED and not tokenizer.closed
            return {
                "eval/loss": loss,
                "eval/perplexity": math.exp(min(loss, 700.0)),
                "eval/accuracy": sums["correct"] / sums["tokens"],
                "eval/bits_per_byte": sums["nats"] / (math.log(2) * num_bytes) if has_likelihood else None,
                **self.task_scores(params),
            }

        return evaluate
