"""What is trained of a model: all of it, or adapters beside a frozen base; laid out over a mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxlm.core.errors import UserError
from jaxlm.core.tree import count_params, flatten_with_paths
from jaxlm.core.types import Array, Params, PyTree
from jaxlm.models.api import Model, Rules
from jaxlm.models.decoder import make_decoder
from jaxlm.models.families import for_platform, make_model, width_of
from jaxlm.models.heads import TaskModel
from jaxlm.models.int8_base import dequantize_base, int8_rules, quantize_base
from jaxlm.models.lora import attach, init_adapters, lora_rules, merge, target_paths
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.run.align.config import TuningConfig
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.setup import StateLayout, lay_out_state, param_shardings, place_leaf, place_params
from jaxlm.train.adapters import lora_objective
from jaxlm.train.state import TrainState
from jaxlm.train.step import Objective


def make_policy_model(config: Any, tuning: TuningConfig, mesh: Mesh, *, neftune_alpha: float = 0.0) -> Model:
    """The model of a config (a base's) as it runs on this mesh. Raises UserError for noise on what is no decoder."""
    config = for_platform(config, mesh.devices.flat[0].platform, kernel_missing=kernel_missing)
    if not neftune_alpha:
        return make_model(config, tuning.mesh.activations)
    if config.family != "decoder":
        raise UserError(f"neftune_alpha={neftune_alpha} is for decoders, and the base is {config.family}: use 0")
    return make_decoder(config, tuning.mesh.activations, neftune_alpha=neftune_alpha)


def with_dropout(config: Any, dropout: float | None) -> Any:
    """The model's config with this rate; None leaves it as it is."""
    if dropout is None:
        return config
    if not hasattr(config, "dropout"):
        raise UserError(f"dropout={dropout}: a {config.family} has rates of other names, leave it None")
    return dataclasses.replace(config, dropout=dropout)


def in_int8(params: Params, rules: Rules, mesh: Mesh) -> Params:
    """A base on the mesh, its kernels rounded to int8."""
    shardings = param_shardings(jax.eval_shape(quantize_base, params), int8_rules(rules), mesh)
    return jax.jit(quantize_base, out_shardings=shardings)(params)


class Policy:
    """A model (or a task's model), what is trained of it, and where that lies. Making it compiles nothing.

    Args:
      model: its ``init`` gives all parameters.
      base: parameters to start from, a part of those of ``model`` or all; None = fresh ones.
      extra: patterns of parameters that adapters leave out and that are trained whole: a new head.

    Raises UserError where adapters fit no kernel, or dimensions do not divide over the mesh.
    """

    def __init__(
        self,
        model: Model | TaskModel,
        base: Params | None,
        tuning: TuningConfig,
        num_steps: int,
        mesh: Mesh,
        *,
        extra: tuple[str, ...] = (),
    ):
        self.model, self.mesh, self.tuning, self.num_steps = model, mesh, tuning, num_steps
        self.adapts = tuning.tune != "all"
        self.lora = dataclasses.replace(tuning.lora, trained=(*tuning.lora.trained, *extra))
        self.shapes: Params = jax.eval_shape(model.init, jax.random.key(0))
        self.width = None if self.adapts else width_of(model.config)
        self.num_params = count_params(self.shapes)
        self._base, self._frozen = base, None
        if self.adapts:
            target_paths(self.shapes, self.lora)
        trained: Any = model._replace(init=self._init_adapters, rules=lora_rules(model.rules)) if self.adapts else model
        self.layout: StateLayout = lay_out_state(
            trained, self.optimizer(tuning.optimizer), mesh, seed=tuning.seed, ema=False
        )
        self.num_trained = count_params(self.layout.abstract.params)

    def _init_adapters(self, key: Array) -> Params:
        """Fresh adapters, and what is trained whole as the model starts it."""
        return init_adapters(self.model.init(key), self.lora, key)

    def optimizer(self, optimizer: OptimizerConfig) -> optax.GradientTransformation:
        return make_optimizer(optimizer, self.num_steps, width=self.width)

    @property
    def flops_share(self) -> float:
        """Of the FLOPs of a step that trains all: adapters need no gradients of the kernels, a third of it."""
        return 2 / 3 if self.adapts else 1.0

    def objective(self, objective: Objective) -> Objective:
        """An objective of the whole model, as one of what is trained."""
        return lora_objective(objective, self.lora) if self.adapts else objective

    def frozen(self, rest: PyTree = None) -> PyTree:
        """What the step is handed beside the state: the base beside its adapters, and what the objective itself has."""
        return {"base": self.base_params(), "rest": rest} if self.adapts else rest

    def base_params(self) -> Params:
        """The frozen base on the mesh, in int8 where the config says so. Only for adapters."""
        if self._frozen is None:
            whole = place_params(self._whole_base(), self.model.rules, self.mesh)
            int8 = self.tuning.tune == "lora_int8"
            self._frozen = in_int8(whole, self.model.rules, self.mesh) if int8 else whole
        return self._frozen

    def _whole_base(self) -> Params:
        """The base's parameters; those it lacks (a new head) are zeros, which nothing reads."""
        assert self._base is not None
        lacking = {name: part for name, part in self.shapes.items() if name not in self._base}
        known = {name: part for name, part in self._base.items() if name in self.shapes}
        return known | jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), lacking)

    def fresh_state(self) -> TrainState:
        """Step 0: the base's parameters, or new ones; adapters that change nothing yet."""
        state = self.layout.init()
        if self._base is None:
            return state
        flat = flatten_with_paths(self._base)

        def start(path: tuple[Any, ...], made: Array, want: jax.ShapeDtypeStruct) -> Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if name not in flat:  # a factor of an adapter, a new head
                return made
            return place_leaf(flat[name], want)

        params = jax.tree_util.tree_map_with_path(start, state.params, self.layout.abstract.params)
        return dataclasses.replace(state, params=params)

    def compute(self, params: Params, frozen: PyTree) -> Params:
        """Parameters that compute the tuned model, from what is trained and ``frozen()``: for use under jit."""
        return attach(frozen["base"], params, self.lora) if self.adapts else params

    def whole(self) -> Callable[[Params], Params]:
        """A function that gives plain parameters of the tuned model, to generate with."""
        if not self.adapts:
            return lambda params: params

        @jax.jit
        def merged(params: Params, base: Params) -> Params:
            plain = dequantize_base(base, self.shapes) if self.tuning.tune == "lora_int8" else base
            return merge(plain, params, self.lora)

        return lambda params: merged(params, self.base_params())

    def describe(self) -> str:
        """How many parameters, and where they come from."""
        tuning = self.tuning
        start = "fresh" if tuning.base is None else f"from {tuning.base} step {tuning.base_step}"
        if not self.adapts:
            return f"{self.num_params:,} parameters, {start}"
        kept = " in int8" if tuning.tune == "lora_int8" else ""
        share = self.num_trained / self.num_params
        return f"{self.num_trained:,} of {self.num_params:,} parameters ({share:.2%}) beside the base{kept}, {start}"

    def facts(self) -> dict[str, Any]:
        """For the final figures."""
        return {"num_params": self.num_params, "num_trained": self.num_trained}
