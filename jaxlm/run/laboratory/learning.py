"""How a model of the laboratory learns and is examined: the one train step, many times in one program."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.core.tree import count_params
from jaxlm.core.types import Array, Params
from jaxlm.generate.decode import generate_tokens
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.io.agree import say
from jaxlm.io.progress import format_seconds
from jaxlm.losses.tokens import token_nll
from jaxlm.models.api import Model
from jaxlm.models.decoder_config import DecoderConfig, resolve_kernels
from jaxlm.optim.optimizers import make_optimizer
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.devices import keep_freed_memory, use_compilation_cache
from jaxlm.run.laboratory.config import TrainingConfig
from jaxlm.train.state import create_state
from jaxlm.train.step import Objective, make_many_steps, make_train_step

Record = dict[str, Any]
"""What is kept of a trial, for JSON."""
_RUN_ONCE = {"xla_backend_optimization_level": 0}
"""For a program that takes longer to compile than to run."""
_SAID = 4
"""How often a trial says how far it is."""


class Trial(NamedTuple):
    """One model, trained and examined from nothing to the end in a minute or so: an interrupted one begins anew."""

    name: str
    """Also that of its file."""
    run: Callable[[], Record]


class Pupil(NamedTuple):
    """Who learns what."""

    init: Callable[[Array], Params]
    objective: Objective
    batch: Callable[[int], dict[str, np.ndarray]]
    """By number: a step's rows."""
    examine: Callable[[Params], Record]
    score: str
    """The figure of an examination that is shown on the way, a share of 1."""
    row_len: int


def on_this_machine(config: DecoderConfig) -> DecoderConfig:
    """The config with attention's implementation chosen."""
    return resolve_kernels(config, jax.default_backend(), kernel_missing)


def learn(pupil: Pupil, training: TrainingConfig, *, seed: int) -> tuple[Params, Record]:
    """The parameters at the end, and ``num_params``, ``seconds`` and the ``looks``: a list of examinations with
    ``step`` and ``tokens`` read before, the first of the untrained model."""
    use_compilation_cache()
    keep_freed_memory()
    start = time.perf_counter()
    tx = make_optimizer(training.optimizer, training.num_steps)
    step = make_train_step(pupil.objective, tx, schedule=training.optimizer.schedule_fn(training.num_steps))
    many_steps = jax.jit(make_many_steps(step), donate_argnums=0)
    fresh = jax.jit(lambda key: create_state(pupil.init(key), tx), compiler_options=_RUN_ONCE)
    state = fresh(purpose_key(seed, Purpose.INIT))
    key = purpose_key(seed, Purpose.DROPOUT)
    tokens_per_step = training.num_rows(pupil.row_len) * pupil.row_len
    looks = [{"step": 0, "tokens": 0, **pupil.examine(state.params)}]
    for look in range(1, training.num_looks + 1):
        done = look * training.steps_per_look
        batches = [pupil.batch(cursor) for cursor in range(done - training.steps_per_look, done)]
        state, metrics = many_steps(state, None, jax.tree.map(lambda *rows: np.stack(rows), *batches), key)
        found = {"loss": float(metrics["loss"][-1]), **pupil.examine(state.params)}
        looks.append({"step": done, "tokens": done * tokens_per_step, **found})
        if look * _SAID % training.num_looks < _SAID:
            taken = format_seconds(time.perf_counter() - start)
            say(f"step {done}/{training.num_steps}  {pupil.score} {found[pupil.score]:.3f}  ({taken})")
    record = {"num_params": count_params(state.params), "seconds": time.perf_counter() - start, "looks": looks}
    return state.params, record


def has_diverged(record: Record) -> bool:
    """Whether an examination, as it is kept, has a figure that is no number: JSON has null in its place."""

    def missing(value: Any) -> bool:
        return value is None or (isinstance(value, list) and any(map(missing, value)))

    return any(missing(value) for look in record["looks"] for value in look.values())


class Judgement(NamedTuple):
    """Of rows whose end a model has to say."""

    right_b: Array
    """Whether the likeliest token is right at every counted place: then, and only then, greedy writing gives exactly
    this end."""
    nats_b: Array
    """Of the counted tokens together."""


def make_judge(model: Model) -> Callable[[Params, dict[str, np.ndarray]], Judgement]:
    """``judge(params, batch)``, compiled."""

    @jax.jit
    def judge(params: Params, batch: dict[str, Array]) -> Judgement:
        logits_btv = model.apply_fn(params, batch["tokens"])
        counted_bt = batch["loss_mask"] > 0
        right_bt = jnp.argmax(logits_btv, axis=-1) == batch["targets"]
        nll_bt, _ = token_nll(logits_btv, batch["targets"])
        return Judgement(jnp.all(right_bt | ~counted_bt, axis=1), jnp.sum(jnp.where(counted_bt, nll_bt, 0.0), axis=1))

    return judge


def make_writer(model: Model, max_new_tokens: int) -> Callable[[Params, np.ndarray], np.ndarray]:
    """``write(params, prompts int32 [b, t]) -> int32 [b, max_new_tokens]``: the likeliest token, one after another."""

    @jax.jit
    def write(params: Params, prompts_bt: Array) -> Array:
        positions_bt = jnp.broadcast_to(jnp.arange(prompts_bt.shape[1], dtype=jnp.int32), prompts_bt.shape)
        greedy = SamplingConfig(temperature=0.0)
        return generate_tokens(
            model,
            params,
            prompts_bt,
            jnp.ones_like(prompts_bt),
            positions_bt,
            max_new_tokens=max_new_tokens,
            sampling=greedy,
            key=jax.random.key(0),  # nothing is drawn
        ).tokens_bn

    return lambda params, prompts_bt: np.asarray(write(params, prompts_bt))


class Check(NamedTuple):
    """One thing that an experiment is to show, and whether it did."""

    what: str
    target: str
    found: str
    holds: bool
