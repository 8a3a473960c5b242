"""``jaxlm transfer CONFIG``: the best rate at each width, in the standard parametrisation and under muP.

Every run is a few hundred steps of the one train step, its rate an argument of the compiled program; its loss is
written down at once, and not computed again. The figures: `docs/mup.md`.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.core.types import Array, Batch
from jaxlm.io.agree import say
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.io.transfer_report import transfer_table, write_transfer_report
from jaxlm.run.assembly import Assembly
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.devices import keep_freed_memory, use_compilation_cache
from jaxlm.run.prepare import PreparedData, prepare_data
from jaxlm.run.processes import require_single_process
from jaxlm.run.rated import assemble_at, compile_rated_step, first_batches
from jaxlm.run.setup import mesh_of
from jaxlm.run.training import print_figures
from jaxlm.run.transfer_config import Parametrisation, TransferConfig
from jaxlm.scaling.transfer import best_rate, drift_steps
from jaxlm.train.state import TrainState

LOSSES, RESULTS = "losses.json", "transfer.json"
MAY_CHANGE = (
    "name",
    "widths",
    "seeds",
    "parametrisations",
    "standard_log2_lrs",
    "mup_log2_lrs",
    "run.name",
    "run.corpus.paths",
    "run.checkpoint",
)
"""The grid may grow: a run is known by what it is. Where the text lies is no matter: the data set's key says what is in
it."""
_LOOKS = 10
"""How often a run is looked at to see whether it has diverged."""


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the verdict as JSON."""
    require_single_process("jaxlm transfer")
    config, options = load_config(TransferConfig, argv, CommandOptions, prog="jaxlm transfer")
    print_figures(transfer(config, options.run_dir or Path("runs") / config.name))
    return 0


def transfer(config: TransferConfig, run_dir: str | Path) -> dict[str, Any]:
    """Trains the grid; returns (and writes to ``transfer.json``) by parametrisation the ``best`` rate of each width and
    the ``drift_steps`` between them; a width that diverged at every rate has no best one (None) and is left out of the
    drift. Raises UserError for bad input, before anything is trained."""
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        use_compilation_cache()
        keep_freed_memory()
        data = prepare_data(config.run, say)
        grid = _Grid(config, data, directory)
        grid.check()  # refuses what cannot run, before the directory is this config's
        directory.write_config(config, may_change=MAY_CHANGE)
        directory.require(dataset_key=data.dataset.key)
        grid.train()
        results = grid.results()
        write_json(directory.path / RESULTS, results)
        write_transfer_report(directory.report_path, config.name, results)
        say(transfer_table(results))
        say(f"report: {directory.report_path}")
        return {
            "best_lr": {
                name: {w: b and b["rate"] for w, b in one["best"].items()} for name, one in results["by"].items()
            },
            "drift_steps": {name: one["drift_steps"] for name, one in results["by"].items()},
            "at_edge": {
                name: [w for w, b in one["best"].items() if b and b["at_edge"]] for name, one in results["by"].items()
            },
            "num_runs": len(grid.losses),
            "run_dir": str(directory.path),
        }


def _name(parametrisation: str, width: int, rate: float, seed: int) -> str:
    return f"{parametrisation} {width} {rate:.6g} {seed}"


class _Grid:
    """The runs and their losses so far; a run that diverged has null."""

    def __init__(self, config: TransferConfig, data: PreparedData, directory: RunDir):
        self.config, self.data, self.path = config, data, directory.path / LOSSES
        self.mesh = mesh_of(config.run)
        self.losses: dict[str, float | None] = (
            json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        )
        self._programs: dict[tuple[str, int], Callable[..., Any]] = {}

    def cells(self) -> Iterator[tuple[Parametrisation, int, int]]:
        """Parametrisation, width, seed: one seed of all widths before the next, so that a part of the grid tells."""
        for seed in self.config.seeds:
            for width in self.config.widths:
                for parametrisation in self.config.parametrisations:
                    yield parametrisation, width, seed

    def check(self) -> None:
        """Raises UserError where a run that is to do could not start."""
        for cell in self.cells():
            if cell[-1] == self.config.seeds[-1] and self._missing(*cell):  # one seed of each width: they are alike
                assemble_at(self.config, *cell, self.data, self.mesh)

    def _missing(self, parametrisation: Parametrisation, width: int, seed: int) -> list[float]:
        """The rates that are not there yet."""
        rates = self.config.rates(parametrisation)
        return [rate for rate in rates if _name(parametrisation, width, rate, seed) not in self.losses]

    def train(self) -> None:
        """All runs that are not there yet."""
        batches: dict[int, list[Batch]] = {}
        for cell in self.cells():
            parametrisation, width, seed = cell
            missing = self._missing(*cell)
            if not missing:
                continue
            run = assemble_at(self.config, *cell, self.data, self.mesh)
            if seed not in batches:
                batches = {seed: first_batches(run, self.config.run.num_steps)}
            step = self._program(parametrisation, width, run)
            start = jax.device_get(run.fresh_state())
            for rate in missing:
                clock = time.perf_counter()
                loss = self._train_one(run, step, start, batches[seed], rate)
                self.losses[_name(parametrisation, width, rate, seed)] = loss
                write_json(self.path, self.losses)
                shown = "diverged" if loss is None else f"loss {loss:.4f}"
                seconds = time.perf_counter() - clock
                say(f"{parametrisation:8} width {width:4} rate {rate:.3e} seed {seed}: {shown} ({seconds:.1f} s)")

    def _program(self, parametrisation: str, width: int, run: Assembly) -> Callable[..., Any]:
        """The compiled step of a width: its seeds and rates share it."""
        if (parametrisation, width) not in self._programs:
            self._programs[parametrisation, width] = compile_rated_step(run)
        return self._programs[parametrisation, width]

    def _train_one(
        self, run: Assembly, step: Callable[..., Any], start: TrainState, batches: list[Batch], rate: float
    ) -> float | None:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, run.layout.abstract)
        state = jax.device_put(start, shardings)
        key = purpose_key(run.config.seed, Purpose.DROPOUT)
        losses: list[Array] = []
        look = max(1, len(batches) // _LOOKS)
        for i, batch in enumerate(batches):
            state, loss = step(state, jnp.float32(rate), batch, key)
            losses.append(loss)
            if i % look == 0 and not np.isfinite(float(loss)):
                return None
        mean = float(np.mean(jax.device_get(losses[-self.config.average_steps :])))
        return mean if np.isfinite(mean) else None

    def results(self) -> dict[str, Any]:
        """What the report shows."""
        config = self.config
        by: dict[str, Any] = {}
        for parametrisation in config.parametrisations:
            rates = config.rates(parametrisation)
            grid = {
                width: np.array(
                    [
                        [
                            np.nan if (x := self.losses[_name(parametrisation, width, r, s)]) is None else x
                            for s in config.seeds
                        ]
                        for r in rates
                    ]
                )
                for width in config.widths
            }
            best = {width: best_rate(rates, losses) for width, losses in grid.items()}
            for width in (width for width, one in best.items() if one is None):
                low, _ = getattr(config, f"{parametrisation}_log2_lrs")
                say(
                    f"{parametrisation} width {width} has no best rate: every rate diverged; try some below 2^{low} "
                    f"({parametrisation}_log2_lrs)"
                )
            by[parametrisation] = {
                "rates": list(rates),
                "best": {str(width): one and one._asdict() for width, one in best.items()},
                "drift_steps": drift_steps(best),
                "losses": {
                    str(width): [[None if x != x else x for x in row] for row in losses.tolist()]
                    for width, losses in grid.items()
                },
            }
        return {
            "widths": list(config.widths),
            "seeds": list(config.seeds),
            "num_steps": config.run.num_steps,
            "tokens_per_step": config.run.tokens_per_step,
            "by": by,
        }
