"""Whether a model trains well, layer by layer: what a step does to its weights, and what goes on inside.

A second program, run at some steps on the same state and batch as the plain step, which it leaves as it is. Beside the
figures of `models.observe` it takes the one train step with an optimiser that also measures.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Array, Batch, PyTree
from jaxlm.models.families import ModelConfig
from jaxlm.models.observe import OBSERVED, observe
from jaxlm.optim.groups import param_group
from jaxlm.train.state import TrainState
from jaxlm.train.step import TrainStep, split_microbatches

HealthStep = Callable[[TrainState, PyTree, Batch, Array], dict[str, Array]]
"""``health_step(state, frozen, batch, key) -> figures``: scalars, and [l] by layer."""

LARGEST_BF16 = float(jnp.finfo(jnp.bfloat16).max)


class Measured(NamedTuple):
    """The state of an optimiser that measures."""

    inner: PyTree
    figures: dict[str, Array]


def measured(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """``tx``, whose state also holds the figures of the last update: see `weight_figures`."""

    def init(params: PyTree) -> Measured:
        return Measured(tx.init(params), unknown_figures(params))

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, Measured]:
        steps, inner = tx.update(updates, state.inner, params)
        return steps, Measured(inner, weight_figures(params, updates, steps))

    return optax.GradientTransformation(init, update)


def unknown_figures(params: PyTree) -> dict[str, Array]:
    """The figures before an update: NaN."""
    shapes = jax.eval_shape(lambda p: weight_figures(p, p, p), params)
    return jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)


def weight_figures(params: PyTree, grads: PyTree, updates: PyTree) -> dict[str, Array]:
    """RMS of the hidden matrices of each layer ([l]), of their gradient before clipping and of their update, and
    ``update_ratio``, the update's over the weights'; the same of the table (``embed_``) and of a free head (``head_``),
    scalars. All f32. A healthy ratio is near 1e-3; towards 1e-2 the rate is high, below 1e-4 a layer hardly learns.
    """
    figures: dict[str, Array] = {}
    squares = {name: _mean_squares(tree) for name, tree in (("param", params), ("grad", grads), ("update", updates))}
    for place in squares["param"]:
        root = {name: jnp.sqrt(found[place]) for name, found in squares.items()}
        figures |= {f"{place}{name}_rms": root[name] for name in ("param", "grad")}
        figures[f"{place}update_ratio"] = root["update"] / jnp.maximum(root["param"], 1e-30)
    return figures


def _mean_squares(tree: PyTree) -> dict[str, Array]:
    """Place -> mean square, f32: "" for the layers ([l], in order), "embed_", "head_"."""
    layers: dict[int, list[tuple[Array, int]]] = {}
    places: dict[str, Array] = {}
    leaves = flatten_with_paths(tree)
    group = len({match[1] for path in leaves if (match := re.match(r"layers/layer_(\d+)/", path))}) or 1
    stacked = max((leaf.shape[0] for path, leaf in leaves.items() if path.startswith("layers/")), default=0)
    for path, leaf in leaves.items():
        kind, square = param_group(path), jnp.square(leaf.astype(jnp.float32))
        if path in ("embed/table", "head/kernel"):
            places[f"{path.split('/')[0]}_"] = jnp.mean(square)
        elif kind == "matrix" and path.startswith("layers/"):
            match = re.match(r"layers/layer_(\d+)/", path)
            sums_g = jnp.sum(square, axis=tuple(range(1, leaf.ndim)))
            for i in range(leaf.shape[0]):
                layer = i * group + (int(match[1]) if match else 0)
                layers.setdefault(layer, []).append((sums_g[i], leaf[0].size))
        elif kind == "matrix" and (match := re.match(r"(tail|layer)_(\d+)/", path)):
            layer = int(match[2]) + (stacked * group if match[1] == "tail" else 0)
            layers.setdefault(layer, []).append((jnp.sum(square), leaf.size))
    if layers:
        sums = [layers[layer] for layer in sorted(layers)]
        places[""] = jnp.stack([sum(s for s, _ in parts) / sum(n for _, n in parts) for parts in sums])
    return places


def make_health_step(
    config: ModelConfig,
    step_with: Callable[[optax.GradientTransformation], TrainStep],
    tx: optax.GradientTransformation,
    *,
    grad_accum_steps: int = 1,
) -> HealthStep:
    """The second program. ``step_with(tx)`` makes the run's own train step with another optimiser.

    Its state is only read: it must not be donated. Activations are those of the first of ``grad_accum_steps``
    microbatches. Figures of weights are NaN where the step's loss or gradient is not finite.
    """
    train_step = step_with(measured(tx))

    def health_step(state: TrainState, frozen: PyTree, batch: Batch, key: Array) -> dict[str, Array]:
        watched = dataclasses.replace(state, opt_state=Measured(state.opt_state, unknown_figures(state.params)))
        after, _ = train_step(watched, frozen, batch, key)
        figures: dict[str, Array] = dict(after.opt_state.figures)
        if config.family in OBSERVED:
            first = jax.tree.map(lambda x: x[0], split_microbatches(batch, grad_accum_steps))
            figures |= observe(config, state.params, first)
            figures["overflow_share"] = figures["stream_max"] / LARGEST_BF16
        return figures

    return health_step


def warn(figures: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """What is worth a note, one line each: ``figures`` fetched (lists by layer), ``before`` those of the last look."""
    notes = []

    def layers(name: str, bad: Callable[[float], bool]) -> list[int]:
        return [i for i, value in enumerate(figures.get(name, ())) if bad(float(value))]

    def say(places: list[int], what: str) -> None:
        if places:
            notes.append(f"layer{'s' * (len(places) > 1)} {', '.join(map(str, places))}: {what}")

    say(layers("nonfinite", lambda x: x > 0), "entries of the stream are not finite")
    say(layers("overflow_share", lambda x: x > 1e-3), "the stream is within a factor 1000 of bf16's largest number")
    old = (before or {}).get("attn_logit_max")
    grown = [
        i
        for i in layers("attn_logit_max", lambda x: x > 50)
        if old is not None and len(old) > i and float(figures["attn_logit_max"][i]) > 1.1 * float(old[i])
    ]
    say(grown, "attention scores above 50 and growing: qk_norm or attn_softcap holds them (Dehghani et al. 2023)")
    say(layers("dead_units", lambda x: x > 0.5), "more than half of the MLP's units are dead")
    say(layers("update_ratio", lambda x: x > 0.1), "an update is more than a tenth of the weights: lower the rate")
    return notes
