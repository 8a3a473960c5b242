"""From pure functions to compiled ones: the sharded state and the train step of a run, whatever its objective."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose, fold_key, purpose_key
from jaxlm.core.types import Array, Batch, Params, PyTree
from jaxlm.models.api import Model, Rules
from jaxlm.models.heads import TaskModel
from jaxlm.plan.flops import peak_flops
from jaxlm.sharding.mesh import batch_spec, batch_ways, make_mesh
from jaxlm.sharding.pipeline import PipelineConfig
from jaxlm.sharding.rules import named_shardings, param_specs, state_specs
from jaxlm.train.state import TrainState, create_state
from jaxlm.train.step import TrainStep

BATCH_DTYPES = {"loss_mask": "float32"}
"""What is not int32 in a batch."""

WHOLE_PRODUCTS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}
"""No product is taken apart to hide a gather or a sum behind its parts (MiB from which it is): with sequence-parallel
norms XLA:TPU does so to all of them, and compiles for minutes in many GiB; with stages, it sends five times as much."""


class StateLayout(NamedTuple):
    """The train state as shapes with shardings, and how to make it at step 0."""

    abstract: TrainState
    """ShapeDtypeStructs with shardings: what a checkpoint is restored into."""
    specs: TrainState
    init: Callable[[], TrainState]
    """Initialises on the mesh: no host and no device ever holds the whole."""


class Parametrised(Protocol):
    """What has parameters: a model, a task's model, several together."""

    @property
    def init(self) -> Callable[[Array], Params]: ...
    @property
    def rules(self) -> Rules: ...


def lay_out_state(
    model: Model | TaskModel | Parametrised,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    ema: bool,
    carry: Callable[[], PyTree] = lambda: None,
) -> StateLayout:
    """Shapes, PartitionSpecs and initialiser of the whole state. Raises UserError where a dimension does not divide.

    ``carry()`` makes what the objective is handed at step 0; its leaves lie as the rows of a batch, and numbers
    everywhere.
    """

    def create(key: Array) -> TrainState:
        return create_state(model.init(key), tx, carry=carry(), ema=ema)

    shapes = jax.eval_shape(create, jax.random.key(0))
    specs = state_specs(shapes, shapes.params, param_specs(model.rules, shapes.params, dict(mesh.shape)))
    carry_specs = jax.tree.map(lambda x: batch_spec(ndim=1) if x.ndim else PartitionSpec(), shapes.carry)
    specs = specs.replace(carry=carry_specs)
    shardings = named_shardings(mesh, specs)
    abstract = jax.tree.map(lambda s, sh: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sh), shapes, shardings)

    def init() -> TrainState:
        with jax.set_mesh(mesh):
            return jax.jit(create, out_shardings=shardings)(fold_key(seed, Purpose.INIT))

    return StateLayout(abstract, specs, init)


def place_leaf(leaf: Any, want: jax.ShapeDtypeStruct) -> jax.Array:
    """A whole array as one of this dtype and sharding; each device gets its part."""
    array = np.asarray(leaf).astype(want.dtype, copy=False)
    return jax.make_array_from_callback(want.shape, want.sharding, lambda index: array[index])


def place_params(params: Params, rules: Rules, mesh: Mesh) -> Params:
    """Whole parameters on the mesh, as their model's rules say. Raises UserError where a dimension does not divide."""
    shardings = param_shardings(params, rules, mesh)
    wanted = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), params, shardings
    )
    return jax.tree.map(place_leaf, params, wanted)


def param_shardings(shapes: Params, rules: Rules, mesh: Mesh) -> PyTree:
    """Where each parameter lies. Raises UserError where a dimension does not divide."""
    return named_shardings(mesh, param_specs(rules, shapes, dict(mesh.shape)))


def batch_sharding(mesh: Mesh, ndim: int = 2) -> NamedSharding:
    """Rows over the data, fsdp and expert axes, and the positions of each, where there are, over context."""
    return NamedSharding(mesh, batch_spec(ndim))


def abstract_batch(keys: tuple[str, ...], rows: int, seq_len: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a global batch, sharded over the mesh."""
    sharding = batch_sharding(mesh)
    return {
        key: jax.ShapeDtypeStruct((rows, seq_len), BATCH_DTYPES.get(key, "int32"), sharding=sharding) for key in keys
    }


def mesh_of(config: Any) -> Mesh:
    """The mesh of a run's config over all devices. Raises UserError where devices or rows do not fit it."""
    mesh = make_mesh(config.mesh, jax.devices())
    check_rows(
        mesh,
        global_batch_size=config.global_batch_size,
        microbatch_size=config.microbatch_size,
        pipeline=config.mesh.pipeline,
    )
    return mesh


def total_peak_flops(mesh: Mesh) -> float | None:
    """Dense bf16 peak of all devices together, FLOP/s; None where unknown."""
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    return None if peak is None else peak * mesh.devices.size


def check_rows(
    mesh: Mesh, *, global_batch_size: int, microbatch_size: int, pipeline: PipelineConfig | None = None
) -> None:
    """Raises UserError where the rows of a microbatch cannot be dealt evenly to the devices that share the batch, or to
    the microbatches that ``pipeline`` asks for."""
    ways, stages = batch_ways(mesh), mesh.shape["stage"]
    names = ("mesh.stage * " if stages > 1 else "") + "mesh.data * mesh.fsdp * mesh.expert"
    if microbatch_size % ways:
        raise UserError(
            f"microbatches of {microbatch_size} rows (global_batch_size={global_batch_size} / grad_accum_steps="
            f"{global_batch_size // microbatch_size}) do not divide over {names} = {ways} devices: "
            f"make global_batch_size / grad_accum_steps a multiple of {ways}"
        )
    asked = None if pipeline is None or stages == 1 else pipeline.num_microbatches
    if asked is not None and microbatch_size % (asked * ways // stages):
        raise UserError(
            f"{microbatch_size} rows do not divide into mesh.pipeline.num_microbatches={asked} for mesh.data * "
            f"mesh.fsdp * mesh.expert = {ways // stages} devices: leave it None, or make global_batch_size / "
            f"grad_accum_steps a multiple of {asked * ways // stages}"
        )


def lower_train_step(
    train_step: TrainStep,
    layout: StateLayout,
    batch: dict[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
    *,
    key: Any,
    frozen: Any = None,
    sequence_parallel: bool = False,
) -> jax.stages.Lowered:
    """The step traced for its shapes and shardings, not yet compiled; the state that goes in is donated. ``key`` may
    be a ShapeDtypeStruct as well: for devices that are only described. ``sequence_parallel``: the model was made so."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    state_shardings = jax.tree.map(lambda s: s.sharding, layout.abstract)
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    options = WHOLE_PRODUCTS if on_tpu and (sequence_parallel or mesh.shape["stage"] > 1) else None
    jitted = jax.jit(
        train_step, donate_argnums=0, out_shardings=(state_shardings, everywhere), compiler_options=options
    )
    with jax.set_mesh(mesh):
        return jitted.lower(layout.abstract, frozen, batch, key)


def compile_train_step(
    train_step: TrainStep,
    layout: StateLayout,
    batch: dict[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
    *,
    seed: int,
    frozen: Any = None,
    sequence_parallel: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The step compiled for its shapes and shardings, its dropout key bound; the state that goes in is donated."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    # Computed where it will lie: nothing can be put on the devices of other processes.
    key = jax.jit(lambda: purpose_key(seed, Purpose.DROPOUT), out_shardings=everywhere)()
    compiled = lower_train_step(
        train_step, layout, batch, mesh, key=key, frozen=frozen, sequence_parallel=sequence_parallel
    ).compile()
    return lambda state, batch: compiled(state, frozen, batch, key)
