"""``jaxlm coordinates CONFIG``: do activations keep their size as the model grows wider? The check of muP.

A few steps at each width at one rate; then how much each coordinate of the network has changed, and the slope of that
against width, both logarithmic: 0 where a rate serves all widths, above where wide models move further (Yang et al.
2022, appendix D.1). The config is that of ``jaxlm transfer``.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.core.types import Array, Batch, Params
from jaxlm.io.agree import say
from jaxlm.io.coordinates_report import coordinates_table, draw_coordinates, write_coordinates_report
from jaxlm.io.run_dir import RunDir, json_ready, write_json, write_text
from jaxlm.models.observe import mean_abs, record
from jaxlm.run.assembly import Assembly
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.devices import keep_freed_memory, use_compilation_cache
from jaxlm.run.prepare import prepare_data
from jaxlm.run.processes import require_single_process
from jaxlm.run.rated import assemble_at, check_steps, compile_rated_step, first_batches
from jaxlm.run.setup import mesh_of
from jaxlm.run.training import print_figures
from jaxlm.run.transfer_config import TransferConfig
from jaxlm.scaling.transfer import log_slope

RESULTS = "coordinates.json"
MAY_CHANGE = tuple(field.name for field in dataclasses.fields(TransferConfig))
"""All of it: nothing is kept from one check to the next."""
FLAT_BELOW = 0.2
"""A coordinate is called flat where its slope is no further from 0."""


@dataclasses.dataclass(frozen=True)
class CoordinatesOptions(CommandOptions):
    """Options of the check."""

    lr: float = 2.0**-8
    """The rate of all widths."""
    steps: int = 20
    """Training steps before the last look."""


def main(argv: list[str]) -> int:
    """``CONFIG [--lr R] [--steps N] [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the verdict,
    as JSON."""
    require_single_process("jaxlm coordinates")
    about = "The coordinate check of muP: how much activations change in training, by width."
    config, options = load_config(TransferConfig, argv, CoordinatesOptions, prog="jaxlm coordinates", about=about)
    run_dir = options.run_dir or Path("runs") / config.name
    print_figures(check_coordinates(config, run_dir.with_name(f"{run_dir.name}_coordinates"), options))
    return 0


def check_coordinates(
    config: TransferConfig, run_dir: str | Path, options: CoordinatesOptions | None = None
) -> dict[str, Any]:
    """Returns for each parametrisation the ``slopes`` of every coordinate's change, the ``largest``, whether it is
    ``flat``, and the widths that ``diverged``, which have no part in the slopes; pictures, a page and all sizes go to
    ``run_dir``. Raises UserError for bad input, and where fewer than two widths are left."""
    options = CoordinatesOptions() if options is None else options
    if options.steps < 1 or not 0 < options.lr < float("inf"):
        raise UserError(f"--steps {options.steps} must be at least 1, and --lr {options.lr} a number above 0")
    if len(config.widths) < 2:
        raise UserError(f"--widths {' '.join(map(str, config.widths))} has no slope: give two or more")
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        use_compilation_cache()
        keep_freed_memory()
        data, mesh = prepare_data(config.run, say), mesh_of(config.run)
        for name in config.parametrisations:  # what cannot run is refused before the directory is this config's
            for width in config.widths:
                check_steps(assemble_at(config, name, width, config.seeds[0], data, mesh), options.steps)
        directory.write_config(config, may_change=MAY_CHANGE)
        sizes: dict[str, dict[str, Any]] = {}
        for name in config.parametrisations:
            by_width = []
            for width in config.widths:
                seeds = [_follow(assemble_at(config, name, width, seed, data, mesh), options) for seed in config.seeds]
                by_width.append(jax.tree.map(lambda *xs: float(np.mean(xs)), *seeds))
                say(f"{name:8} width {width:4}: loss {by_width[-1]['loss']:.4f}")
            sizes[name] = jax.tree.map(lambda *xs: list(xs), *by_width)
            if (left := len(config.widths) - len(_diverged(config.widths, sizes[name]))) < 2:
                raise UserError(f"{name}: {left} widths did not diverge at --lr {options.lr:g}; give a lower --lr")
        by = {name: _verdict(config.widths, found) for name, found in sizes.items()}
        results = {"widths": list(config.widths), "steps": options.steps, "lr": options.lr, "by": by, "sizes": sizes}
        write_json(directory.path / RESULTS, json_ready(results))
        for name in by:
            write_text(directory.path / f"coordinates_{name}.svg", draw_coordinates(results, name))
        write_coordinates_report(directory.report_path, f"{config.name}: coordinates", results)
        say(coordinates_table(results))
        say(f"report: {directory.report_path}")
        return by | {"run_dir": str(directory.path)}


def _diverged(widths: tuple[int, ...], sizes: dict[str, Any]) -> list[int]:
    """The widths where something is no finite number."""
    found = np.array(jax.tree.leaves(sizes), np.float64).reshape(-1, len(widths))
    return [width for i, width in enumerate(widths) if not np.isfinite(found[:, i]).all()]


def _verdict(widths: tuple[int, ...], sizes: dict[str, Any]) -> dict[str, Any]:
    """Slopes over the widths that did not diverge; where one did, nothing is flat."""
    diverged = _diverged(widths, sizes)
    kept = [i for i, width in enumerate(widths) if width not in diverged]

    def slopes_of(values: dict[str, list[float]]) -> dict[str, float]:
        return {name: log_slope([widths[i] for i in kept], [row[i] for i in kept]) for name, row in values.items()}

    slopes = slopes_of(sizes["change"])
    largest = max(slopes.values(), key=abs)
    flat = abs(largest) <= FLAT_BELOW and not diverged
    return {
        "slopes": slopes,
        "start_slopes": slopes_of(sizes["start"]),
        "largest": largest,
        "flat": flat,
        "diverged": diverged,
    }


def _follow(run: Assembly, options: CoordinatesOptions) -> dict[str, Any]:
    """Sizes of coordinates at the start, of their change after the steps, and the loss of the last step."""
    step, batches = compile_rated_step(run), first_batches(run, options.steps)
    look = jax.jit(_looker(run))
    state = run.fresh_state()
    before = jax.tree.map(jnp.copy, state.params)
    key, loss = purpose_key(run.config.seed, Purpose.DROPOUT), None
    for batch in batches:
        state, loss = step(state, jnp.float32(options.lr), batch, key)
    found = jax.device_get(look(before, state.params, batches[0]))
    return jax.tree.map(float, found) | {"loss": float(jax.device_get(loss))}


def _looker(run: Assembly) -> Callable[[Params, Params, Batch], dict[str, dict[str, Array]]]:
    model = run.model

    def coordinates(params: Params, batch: Batch) -> dict[str, list[Array]]:
        found = record(model.config, params, batch)
        scale = model.config.attn_scale
        return {
            "embedding": found.embedding,
            "attention": found.attention,
            **({"MLP": found.mlp} if found.mlp else {}),
            "stream": found.stream,
            "scores": [
                scale * jnp.einsum("btnh,bsnh->bnts", q, jnp.repeat(k, q.shape[2] // k.shape[2], axis=2))
                for q, k in found.queries_keys
            ],
            "logits": [model.logits(params, found.hidden[0])],
        }

    def look(before: Params, after: Params, batch: Batch) -> dict[str, dict[str, Array]]:
        old, new = coordinates(before, batch), coordinates(after, batch)

        def mean(layers: list[Array]) -> Array:
            return jnp.mean(jnp.stack([mean_abs(x) for x in layers]))

        return {
            "start": {name: mean(layers) for name, layers in old.items()},
            "change": {
                name: mean([y - x for x, y in zip(layers, new[name], strict=True)]) for name, layers in old.items()
            },
        }

    return look
