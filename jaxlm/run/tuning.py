"""What all tuning of a trained model does alike around the loop: the run directory, the base, the data, the end.

The loop, the step and checkpoints are those of pretraining (`jaxlm.run.training`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
from jax.sharding import Mesh

from jaxlm.io.agree import check_same, on_every_process, on_first_process, one_fate, say
from jaxlm.io.run_dir import RunDir
from jaxlm.run.begun import Begun, dotted, named_steps, value_at
from jaxlm.run.config import MAY_CHANGE
from jaxlm.run.config_files import load_config
from jaxlm.run.devices import keep_freed_memory, use_compilation_cache
from jaxlm.run.interval import Figures
from jaxlm.run.prepare import keep_tokenizer
from jaxlm.run.processes import start_processes
from jaxlm.run.training import AssembledRun, conclude, exit_code, one_run, print_figures, train
from jaxlm.text.tokenizer import Tokenizer


class TuningData(Protocol):
    """What a tuning run reads, and its config with all that only the data could tell."""

    @property
    def config(self) -> Any: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that is learnt from: a resumed run must find the same."""
        ...


class TuningRun(AssembledRun, Protocol):
    """The parts of one tuning run. Making it compiles nothing."""

    num_params: int

    @property
    def facts(self) -> Figures:
        """What the final figures say beside scores."""
        ...

    def describe(self) -> str:
        """One line: what is learnt, by which parameters, from where, in how many steps."""
        ...

    def make_ready(self, directory: RunDir) -> None:
        """Computes, once for a run directory, what must be there before the first step; keeps what the model needs."""
        ...


Data = TypeVar("Data", bound=TuningData)


def tuning_command(argv: list[str], config_class: type[Any], run: Callable[..., dict[str, Any]], name: str) -> int:
    """``jaxlm NAME CONFIG [--field.sub value ...] [--run-dir DIR]``: ``run(config, run_dir, ...)``. The last line on
    stdout is the run's final figures as JSON. Returns the exit code."""
    start_processes()
    with one_fate():
        config, options = on_every_process(
            "command line", lambda: load_config(config_class, argv, prog=f"jaxlm {name}")
        )
        steps = options.profile_steps if options.profile else None
        figures = run(config, options.run_dir or f"runs/{config.name}", profile_steps=steps, dry_run=options.dry_run)
        print_figures(figures)
    return exit_code(figures)


def tune(
    config: Any,
    run_dir: str | Path,
    assemble: Callable[[Data, Mesh], TuningRun],
    *,
    prepare: Callable[..., Data],
    open_fields: Sequence[str] = (),
    may_change: tuple[str, ...] = (),
    profile_steps: tuple[int, int] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train as ``config`` says in ``run_dir``, from its last checkpoint if it has one; returns the final figures.

    Args:
      config: with ``base`` and ``base_step``, and what a training run asks of its config.
      assemble: makes the run of its data.
      prepare: ``prepare(config, say, resumes=...)`` reads everything. ``resumes``: the run has parameters of its own.
      open_fields: names of the fields that ``prepare`` fills in.
      may_change: further fields in which a run that has begun may differ.
      dry_run: stop before anything is compiled or written.

    Raises UserError for bad input, before anything expensive has run.
    """
    directory = RunDir(run_dir)
    with one_run(config, directory) as mesh:
        if not dry_run:
            final = on_first_process("run directory", lambda: _open(directory))
            if final is not None:
                steps = [dotted(step) for _, step in named_steps(config) if value_at(config, step) is None]
                unsaid = [*open_fields, *steps]
                free = (*MAY_CHANGE, *may_change, *unsaid)
                on_first_process("config", lambda: directory.check_config(config, may_change=free))
                say(f"{directory.path} is finished: pass another --run-dir to train again")
                return final
        begun = Begun(directory)
        data = on_every_process("examples", lambda: prepare(begun.fill(config), say, resumes=begun.saved))
        check_same("examples", lambda: {"examples_sha256": data.fingerprint})
        run = on_every_process("model", lambda: assemble(data, mesh))
        say(run.describe())
        if dry_run:
            return {"num_params": run.num_params, "num_steps": run.config.num_steps}
        use_compilation_cache()
        keep_freed_memory()
        steps = [] if begun.saved else named_steps(config)  # nothing has come of those checkpoints yet
        free = (*may_change, *(dotted(step) for _, step in steps))
        on_first_process("config", lambda: _write_config(directory, data, (*MAY_CHANGE, *free)))
        run.make_ready(directory)
        outcome, _ = train(run, directory, profile_steps)
        return on_first_process("final figures", lambda: conclude(directory, outcome, run.facts, {}))


def _open(directory: RunDir) -> dict[str, Any] | None:
    """Takes the run directory for this command. Returns the final figures of a finished run."""
    directory.lock()
    return directory.final_figures()


def _write_config(directory: RunDir, data: TuningData, may_change: tuple[str, ...]) -> None:
    directory.write_config(data.config, may_change=may_change, device=jax.devices()[0].device_kind)
    directory.require(examples_sha256=data.fingerprint)
    keep_tokenizer(data.tokenizer, directory.tokenizer_path)
