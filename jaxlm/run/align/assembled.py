"""What the runs of all tuning to conversations and preferences have in common (`run.tuning.TuningRun`)."""

import abc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.core.types import Batch, Params, PyTree, Terms
from jaxlm.data.batches import DataState
from jaxlm.data.examples import ExamplePlan
from jaxlm.io.agree import on_first_process
from jaxlm.io.loader import example_batches
from jaxlm.io.run_dir import RunDir
from jaxlm.plan.families import train_flops_per_token
from jaxlm.run.align.base import ChatBase, keep_template
from jaxlm.run.align.config import TuningConfig
from jaxlm.run.align.policy import Policy
from jaxlm.run.in_flight import in_turn
from jaxlm.run.interval import Figures
from jaxlm.run.loop import StepFn
from jaxlm.run.setup import batch_sharding, compile_train_step, total_peak_flops
from jaxlm.run.training import Sample
from jaxlm.sharding.mesh import batch_ways
from jaxlm.train.responses import Adjustment
from jaxlm.train.state import TrainState
from jaxlm.train.step import Objective, make_train_step


class AlignRun(abc.ABC):
    """One run around a `Policy`. Making it compiles nothing. A kind of tuning gives ``objective``, ``abstract_batch``,
    ``batches``, ``evaluator`` and ``describe``."""

    def __init__(self, config: TuningConfig, base: ChatBase, policy: Policy, mesh: Mesh, tokens_per_row: int):
        assert config.num_steps is not None
        self.config: Any = config
        self.base, self.policy, self.mesh, self.num_steps = base, policy, mesh, config.num_steps
        self.layout, self.num_params = policy.layout, policy.num_params
        self.tokens_per_row = tokens_per_row
        ways = batch_ways(mesh)
        self.eval_rows = -(-config.eval_batch_size // ways) * ways
        """Rows of an evaluation batch, rounded up to a multiple of the devices that share it."""
        per_token = train_flops_per_token(policy.model.config, config.data.seq_len) * policy.flops_share
        self.flops_per_row = tokens_per_row * per_token

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
        on_first_process("chat template", lambda: keep_template(directory, self.base.form.template))

    def health(self, write: Any, note: Any) -> None:
        """Tuning is not looked at layer by layer."""
        return

    @abc.abstractmethod
    def objective(self) -> Objective:
        """What is minimised, as a function of all parameters."""

    @abc.abstractmethod
    def abstract_batch(self, rows: int) -> Mapping[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch, sharded over the mesh."""

    def rest(self) -> PyTree:
        """What the objective reads beside parameters and batch; lies on the mesh."""
        return None

    def compile_step(self, rows: int, adjustment: Adjustment) -> StepFn:
        """The train step for batches of so many rows, compiled for the mesh."""
        config = self.config
        optimizer = config.optimizer.adjusted(rate_factor=adjustment.rate_factor, b2=adjustment.b2)
        step = make_train_step(
            self.policy.objective(self.objective()),
            self.policy.optimizer(optimizer),
            schedule=optimizer.schedule_fn(self.num_steps),
            grad_accum_steps=config.grad_accum_steps,
        )
        return compile_train_step(
            step,
            self.layout,
            dict(self.abstract_batch(rows)),
            self.mesh,
            seed=config.seed,
            frozen=self.policy.frozen(self.rest()),
            sequence_parallel=config.mesh.sequence_parallel,
        )

    def fresh_state(self) -> TrainState:
        """Step 0: the base's parameters, or new ones."""
        return self.policy.fresh_state()

    def sampler(self) -> Callable[[Params], list[Sample]]:
        """Nothing is written, unless a kind of tuning says so."""
        return lambda params: []

    def each(self, fn: Callable[[Params, Batch], Any]) -> Callable[[Params, Iterator[Batch]], list[Any]]:
        """``fn`` of the tuned model's parameters and a batch, jitted, over batches; its values on the host."""
        policy, everywhere = self.policy, NamedSharding(self.mesh, PartitionSpec())  # each process reads them all

        def of_trained(params: Params, frozen: PyTree, batch: Batch) -> Any:
            return fn(policy.compute(params, frozen), batch)

        jitted = jax.jit(of_trained, out_shardings=everywhere)

        def run(params: Params, batches: Iterator[Batch]) -> list[Any]:
            frozen = policy.frozen()
            with jax.set_mesh(self.mesh):
                return jax.device_get(list(in_turn(jitted(params, frozen, batch) for batch in batches)))

        return run


def example_shapes(plan: ExamplePlan, rows: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of examples in memory, sharded over the mesh."""
    return {
        name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=rows_sharding(mesh, x.ndim))
        for name, x in plan.arrays.items()
    }


def rows_sharding(mesh: Mesh, ndim: int) -> NamedSharding:
    """Rows over the devices that share a batch; answers and positions of one prompt stay together."""
    return NamedSharding(mesh, PartitionSpec(batch_sharding(mesh).spec[0], *(None,) * (ndim - 1)))


def held_out_batches(plan: ExamplePlan, mesh: Mesh) -> Iterator[Batch]:
    """All batches of a plan that ends, in its order."""
    for _, batch in example_batches(plan, DataState(), rows_sharding(mesh, 1)):
        yield batch


def make_terms_evaluator(run: AlignRun, objective: Objective, plan: ExamplePlan) -> Callable[[Params], Figures]:
    """The terms of an objective over all batches of a plan, each divided once: ``eval/loss`` and ``eval/NAME``."""
    no_dropout: Any = None

    def terms_of(params: Params, batch: Batch) -> Terms:
        return objective.terms(params, None, None, batch, no_dropout)[0]

    each = run.each(terms_of)

    def evaluate(params: Params) -> Figures:
        found = each(params, held_out_batches(plan, run.mesh))
        means, loss = {}, 0.0
        for name, term in found[0].items():
            total = float(np.sum([one[name].total for one in found], dtype=np.float64))
            means[name] = total / max(float(np.sum([one[name].count for one in found], dtype=np.float64)), 1.0)
            loss += float(term.weight) * means[name]
        return {"eval/loss": loss, **{f"eval/{name}": mean for name, mean in means.items()}}

    return evaluate
