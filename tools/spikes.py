"""``python -m tools.spikes run CONFIG --inject JSON [--run-dir DIR] [--field value ...]``: a real run with faults.

``python -m tools.spikes table [--seeds 0 1] [--num-steps 600] [--quick]``: the clean run and each kind of fault, at
random places, on the small Shakespeare model (the quickstart's where that text is not there), as a table of losses.

Faults come from outside the run: other batches are handed to it, and its step's update is made larger. Batches are bad
by their number, rates by the step: a batch can be skipped, a rate stays wrong in that place however often it is tried.
"""

import argparse
import dataclasses
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array, Batch
from jaxlm.data.batches import DataState
from jaxlm.io.agree import first_then_others, on_first_process, say
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.io.config_json import config_from_dict, config_to_dict
from jaxlm.io.run_dir import RunDir
from jaxlm.run.assembly import Assembly
from jaxlm.run.cli import run_main
from jaxlm.run.config import PretrainConfig, fields_that_may_change
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.devices import keep_freed_memory, use_compilation_cache
from jaxlm.run.loop import StepFn
from jaxlm.run.parsers import tool_parser
from jaxlm.run.prepare import prepare_data, resolve_model
from jaxlm.run.training import conclude, exit_code, one_run, print_figures, train
from jaxlm.train.responses import Adjustment, rollbacks
from jaxlm.train.spikes import SpikeConfig
from jaxlm.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Faults:
    """What is wrong with a run."""

    junk: tuple[int, ...] = ()
    """Batches of random tokens."""
    nan: tuple[int, ...] = ()
    """Batches in which one weight of the loss is NaN, and so every gradient."""
    rate_steps: tuple[int, ...] = ()
    """Steps (the first is 0) whose update is ``rate_factor`` times too large."""
    rate_from: int | None = None
    """From this step on they all are."""
    rate_factor: float = 30.0

    def describe(self) -> str:
        """One line."""
        parts = [f"{name} {list(ids)}" for name, ids in (("junk", self.junk), ("nan", self.nan)) if ids]
        if self.rate_steps:
            parts.append(f"rate x {self.rate_factor:g} at steps {list(self.rate_steps)}")
        if self.rate_from is not None:
            parts.append(f"rate x {self.rate_factor:g} from step {self.rate_from}")
        return "; ".join(parts) or "none"


@dataclasses.dataclass(frozen=True)
class FaultOptions(CommandOptions):
    """Options of a run with faults."""

    inject: str = "{}"
    """A JSON object of junk, nan, rate_steps, rate_from, rate_factor: '{"junk": [80, 81], "rate_steps": [120]}'."""


class FaultyRun(Assembly):
    """A run with faults in its batches and steps."""

    faults = Faults()

    @contextmanager
    def batches(self, state: DataState) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The training batches, the bad ones among them."""
        with super().batches(state) as batches:
            yield ((batch_id, self._spoil(batch_id, batch)) for batch_id, batch in batches)

    def _spoil(self, batch_id: int, batch: Batch) -> Batch:
        if batch_id in self.faults.junk:
            draw = np.random.default_rng(batch_id)
            tokens = batch["tokens"]
            random_ids = draw.integers(0, self.data.tokenizer.vocab_size, (2, *tokens.shape)).astype(np.int32)
            return batch | {
                name: _lay_out(ids, tokens) for name, ids in zip(("tokens", "targets"), random_ids, strict=True)
            }
        if batch_id in self.faults.nan:
            spoilt = np.ones(batch["loss_mask"].shape, np.float32)
            spoilt[0, 0] = np.nan
            return batch | {"loss_mask": _lay_out(spoilt, batch["loss_mask"])}
        return batch

    def compile_step(self, rows: int, adjustment: Adjustment) -> StepFn:
        """The step, whose update is too large at some steps."""
        step_fn, faults = super().compile_step(rows, adjustment), self.faults
        copy = jax.jit(lambda params: jax.tree.map(lambda p: p + 0, params))
        enlarge = jax.jit(lambda old, new: jax.tree.map(lambda o, n: o + faults.rate_factor * (n - o), old, new))

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
            number = int(state.step)
            too_large = number in faults.rate_steps or (faults.rate_from is not None and number >= faults.rate_from)
            before = copy(state.params) if too_large else None
            state, metrics = step_fn(state, batch)
            return (dataclasses.replace(state, params=enlarge(before, state.params)) if too_large else state), metrics

        return step if faults.rate_steps or faults.rate_from is not None else step_fn


def _lay_out(array: np.ndarray, like: Array) -> Array:
    """On the devices as another lies, of however many processes."""
    return jax.make_array_from_callback(array.shape, like.sharding, lambda index: array[index])


def run_with(config: PretrainConfig, run_dir: str | Path, faults: Faults) -> dict[str, Any]:
    """The final figures of ``pretrain`` with these faults, and the run's ``incidents``; the same call resumes it."""
    directory = RunDir(run_dir)
    with one_run(config, directory) as mesh:
        on_first_process("run directory", directory.lock)
        use_compilation_cache()
        keep_freed_memory()
        data = first_then_others("data", lambda: prepare_data(config, say))
        resolved = dataclasses.replace(config, model=resolve_model(config.model, data.tokenizer))
        run = FaultyRun(resolved, data, mesh)
        run.faults = faults
        on_first_process(
            "config", lambda: directory.write_config(run.config, may_change=fields_that_may_change(run.config))
        )
        outcome, _ = train(run, directory, None)
        facts = {"num_params": run.num_params}
        figures = on_first_process("final figures", lambda: conclude(directory, outcome, facts, {}))
    path = directory.incidents_path
    return figures | {"incidents": json.loads(path.read_text()) if path.exists() else []}


def small_run(num_steps: int, seed: int, text: Path, *, quick: bool) -> PretrainConfig:
    """The small Shakespeare model, or the quickstart's, trained for so long; answers to spikes suit a short run.
    ``quick``: half as wide and half as deep."""
    name = "shakespeare_char" if text.exists() else "quickstart"
    argv = ["--num-steps", str(num_steps), "--seed", str(seed)]
    argv += ["--corpus.paths", str(text)] if text.exists() else []
    argv += ["--model.num-layers", "2", "--model.model-dim", "64", "--model.mlp-dim", "176"] if quick else []
    config, _ = load_config(PretrainConfig, [name, *argv])
    return dataclasses.replace(
        config,
        log_every=10,
        eval_every=None,
        checkpoint=CheckpointConfig(save_every=25, keep_last=4),
        spikes=SpikeConfig(window=64, rate_factor=0.1, adjust_steps=12, within_steps=num_steps // 8),
        sample=dataclasses.replace(config.sample, prompts=()),
    )


MIN_STEPS = 100
"""Of a run whose faults are drawn: stretches of them need steps between."""


def draw_faults(seed: int, num_steps: int) -> dict[str, Faults]:
    """Name -> faults at random places between a fifth and four fifths of the run."""
    if num_steps < MIN_STEPS:
        raise UserError(f"--num-steps {num_steps} has no room for faults: give {MIN_STEPS} or more")
    draw = random.Random(seed)

    def stretches(count: int, longest: int) -> tuple[int, ...]:
        starts = sorted(draw.sample(range(num_steps // 5, num_steps * 4 // 5, num_steps // 10), count))
        starts = [start + draw.randrange(num_steps // 20) for start in starts]
        return tuple(start + i for start in starts for i in range(draw.randint(3, longest)))

    mixed = [stretches(3, 3)[i : i + 3] for i in (0, 3, 6)]
    return {
        "clean": Faults(),
        "bad batches": Faults(junk=stretches(3, 8)),
        "one bad batch at a time": Faults(junk=stretches(4, 3)[::3]),
        "NaN gradients": Faults(nan=stretches(3, 6)),
        "rate x 30": Faults(rate_steps=stretches(2, 6)),
        "all three": Faults(junk=mixed[0], nan=mixed[1], rate_steps=mixed[2]),
        "hopeless: rate x 30 from a step on": Faults(rate_from=draw.randrange(num_steps // 5, num_steps // 2)),
    }


def make_table(args: argparse.Namespace) -> int:
    """Trains them all; a line each on stderr, the table as JSON on stdout."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(args.out or scratch)
        for seed in args.seeds:
            clean: float | None = None
            for name, faults in draw_faults(seed, args.num_steps).items():
                if args.only and name != "clean" and not any(word in name for word in args.only):
                    continue
                config = small_run(args.num_steps, seed, args.text, quick=args.quick)
                if name.startswith("hopeless"):
                    config = dataclasses.replace(config, spikes=dataclasses.replace(config.spikes, rate_factor=1.0))
                figures = run_with(config, out / f"{name.replace(' ', '_').replace(':', '')}-{seed}", faults)
                stopped = "stopped_by" in figures
                loss = None if stopped else figures["eval/loss"]
                clean = loss if name == "clean" else clean
                row = {
                    "seed": seed,
                    "faults": name,
                    "injected": faults.describe(),
                    "eval/loss": loss,
                    "difference": None if loss is None or clean is None else loss - clean,
                    "incidents": len(figures["incidents"]),
                    "rollbacks": [
                        (one["onset"], one["response"]["rolled_back_to"]) for one in rollbacks(figures["incidents"])
                    ],
                    "goodput": figures["perf/goodput"],
                    "diagnosis": figures.get("diagnosis"),
                }
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    print(json.dumps({"num_steps": args.num_steps, "rows": rows}))
    return 0


def main(argv: list[str]) -> int:
    """``run`` or ``table``; see the module."""
    if argv[:1] == ["run"]:
        about = "A real run with faults in its batches and steps."
        config, options = load_config(
            PretrainConfig, argv[1:], FaultOptions, prog="python -m tools.spikes run", about=about
        )
        figures = run_with(config, options.run_dir or f"runs/{config.name}", read_faults(options.inject))
        print_figures(figures)
        return exit_code(figures)
    parser = tool_parser("python -m tools.spikes", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{run,table}")
    commands.add_parser("run", help="one run with the faults of --inject; run --help shows its options")
    table = commands.add_parser("table", help="the clean run and each kind of fault", allow_abbrev=False)
    table.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of runs and faults; default 0 1")
    table.add_argument("--num-steps", type=int, default=600, help="of each run; default %(default)s")
    table.add_argument("--only", nargs="*", help="words of the rows wanted, beside the clean run")
    table.add_argument("--quick", action="store_true", help="a smaller model: a fifth of the time")
    table.add_argument("--out", help="keep the run directories here")
    text = Path("../shared/data/text/tinyshakespeare/input.txt")
    table.add_argument("--text", type=Path, default=text, help="default %(default)s, or else the quickstart's")
    return make_table(parser.parse_args(argv))


def read_faults(text: str) -> Faults:
    """The faults of ``--inject``. Raises UserError for what is no such object."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UserError(f"--inject {text!r} is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise UserError(f"--inject {text!r} is no JSON object")
    return config_from_dict(Faults, config_to_dict(Faults()) | given, "--inject")


if __name__ == "__main__":
    sys.exit(run_main(main))
