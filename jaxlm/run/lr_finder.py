"""``jaxlm lr-finder CONFIG``: a rate for a pretraining config, from one short run whose rate is raised at every step.

The real data, model and optimiser of the config, and its train step; the rate goes from ``--lowest-lr`` to
``--highest-lr`` by one factor a step (Smith 2017).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.io.agree import say
from jaxlm.io.lr_finder_report import write_lr_finder_report
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.run.assembly import Assembly
from jaxlm.run.config import PretrainConfig
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.continued import on_base
from jaxlm.run.devices import keep_freed_memory, use_compilation_cache
from jaxlm.run.prepare import prepare_data, resolve_model
from jaxlm.run.processes import require_single_process
from jaxlm.run.rated import compile_rated_step, first_batches
from jaxlm.run.setup import mesh_of
from jaxlm.run.training import print_figures
from jaxlm.scaling.rate_range import rate_range, smooth

RESULTS = "lr_finder.json"
_HOPELESS = 4.0
"""The run ends where the smoothed loss is so many times the lowest."""
_BURN_IN = 5
"""Steps whose loss is no guide: the smoothed loss has not settled."""


@dataclasses.dataclass(frozen=True)
class FinderOptions(CommandOptions):
    """Options of the finder."""

    lowest_lr: float = 1e-6
    """The rate of the first step."""
    highest_lr: float = 1.0
    """The rate of the last."""
    steps: int = 120
    """Steps from the one to the other."""


def main(argv: list[str]) -> int:
    """``CONFIG [--lowest-lr R] [--highest-lr R] [--steps N] [--field.sub value ...] [--run-dir DIR]``; the last line on
    stdout is the rates as JSON."""
    require_single_process("jaxlm lr-finder")
    about = "Finds a learning rate by raising it step by step in one short run."
    config, options = load_config(PretrainConfig, argv, FinderOptions, prog="jaxlm lr-finder", about=about)
    config = on_base(config)
    run_dir = options.run_dir or Path("runs") / config.name
    print_figures(find_lr(config, run_dir.with_name(f"{run_dir.name}_lr_finder"), options))
    return 0


def find_lr(config: PretrainConfig, run_dir: str | Path, options: FinderOptions | None = None) -> dict[str, Any]:
    """Returns ``suggested_lr``, ``steepest_lr``, ``lowest_loss_lr`` and ``diverged_lr`` (`scaling.rate_range`); the
    curve goes to ``lr_finder.json`` and ``report.html`` in ``run_dir``. Raises UserError for bad input, and where the
    loss never falls."""
    options = FinderOptions() if options is None else options
    if not 0 < options.lowest_lr < options.highest_lr < float("inf") or options.steps < 4 * _BURN_IN:
        raise UserError(
            f"--lowest-lr {options.lowest_lr} must be above 0 and below --highest-lr {options.highest_lr}, a number, "
            f"and --steps {options.steps} at least {4 * _BURN_IN}"
        )
    if config.batch_ramp or config.data.packing == "stream":
        raise UserError("batch_ramp and data.packing='stream' alter the batches of a run: find the rate without them")
    optimizer = config.optimizer
    embedding = None if optimizer.embedding_lr is None else optimizer.embedding_lr / optimizer.peak_lr
    unit = dataclasses.replace(
        config,
        num_steps=options.steps,
        optimizer=dataclasses.replace(
            optimizer, peak_lr=1.0, embedding_lr=embedding, schedule="constant", warmup_steps=0
        ),
    )
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config)
        use_compilation_cache()
        keep_freed_memory()
        data, mesh = prepare_data(config, say), mesh_of(config)
        run = Assembly(dataclasses.replace(unit, model=resolve_model(unit.model, data.tokenizer)), data, mesh)
        directory.write_config(config)  # not before: what was refused is mended in the same directory
        rates, losses = _raise_rate(run, options)
        smoothed = smooth(losses)
        try:
            found = rate_range(rates[_BURN_IN:], smoothed[_BURN_IN:])
        except ValueError as error:
            raise UserError(f"{error} (--lowest-lr)") from error
        figures = found._asdict() | {"steps": len(rates), "run_dir": str(directory.path)}
        curve = {"rates": rates, "losses": _finite(losses), "smoothed": _finite(smoothed)}
        write_json(directory.path / RESULTS, figures | curve)
        write_lr_finder_report(directory.report_path, f"{config.name}: rates", figures, curve)
        say(f"suggested rate {found.suggested_lr:.3g}; report: {directory.report_path}")
        return figures


def _raise_rate(run: Assembly, options: FinderOptions) -> tuple[list[float], list[float]]:
    """Rates, and the loss after the step at each: that of the next batch, not seen before."""
    rates = np.geomspace(options.lowest_lr, options.highest_lr, options.steps)
    step, batches = compile_rated_step(run), first_batches(run, options.steps)
    state, key = run.fresh_state(), purpose_key(run.config.seed, Purpose.DROPOUT)
    losses: list[float] = []
    for rate, batch in zip(rates, batches, strict=True):
        state, loss = step(state, jnp.float32(rate), batch, key)
        losses.append(float(jax.device_get(loss)))
        smoothed = smooth(losses)
        if not np.isfinite(losses[-1]) or smoothed[-1] > _HOPELESS * smoothed.min():
            break
    return rates[: len(losses) - 1].tolist(), losses[1:]


def _finite(values: Any) -> list[float | None]:
    """JSON has no NaN."""
    return [float(x) if np.isfinite(x) else None for x in values]
