"""``jaxlm pretrain CONFIG``: from text to a trained model. The same command resumes it.

Started once a host, it is one run over all of them (`jaxlm.run.processes`): the first process writes and prints, and
what ends one ends all (`jaxlm.io.agree`).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxlm.core.tree import flatten_with_paths
from jaxlm.evals.compression import primed_xz_bits_per_byte
from jaxlm.io.agree import (
    check_same,
    first_then_others,
    on_every_process,
    on_first_process,
    one_fate,
    say,
)
from jaxlm.io.run_dir import RunDir
from jaxlm.models.families import MASKED, check_installed
from jaxlm.run.assembly import Assembly, plan_batches
from jaxlm.run.begun import Begun
from jaxlm.run.config import PretrainConfig, fields_that_may_change
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.continued import on_base
from jaxlm.run.devices import keep_freed_memory, use_compilation_cache
from jaxlm.run.interval import Figures
from jaxlm.run.loop import Outcome
from jaxlm.run.memory import check_memory
from jaxlm.run.prepare import PreparedData, keep_tokenizer, prepare_data, resolve_model
from jaxlm.run.processes import start_processes
from jaxlm.run.samples import check_prompts, sample_figures
from jaxlm.run.setup import mesh_of
from jaxlm.run.training import Sample, conclude, exit_code, one_run, print_figures, train

MOST_COMPRESSED_BYTES = 32 * 2**20
"""Text beyond this is not given to xz for comparison: half of what it looks back on, and a minute's work."""


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the run's final figures as
    JSON."""
    start_processes()
    with one_fate():
        config, options = on_every_process("command line", lambda: load_config(PretrainConfig, argv))
        if options.dry_run:
            print_figures(plan_run(config, options.run_dir))
            return 0
        figures = pretrain(
            config,
            options.run_dir or f"runs/{config.name}",
            profile_steps=options.profile_steps if options.profile else None,
        )
        print_figures(figures)
    return exit_code(figures)


def inspect_main(argv: list[str]) -> int:
    """``jaxlm inspect CONFIG``: what the model is fed, decoded, with masks and segments."""
    from jaxlm.run.inspect import inspect_batches

    about = "Shows decoded batches, masks and segments: what the model is fed."
    config, _ = load_config(PretrainConfig, argv, CommandOptions, prog="jaxlm inspect", about=about)
    config = on_base(config)
    data = prepare_data(config, say)
    split = data.dataset.splits["train"]
    plan = plan_batches(config, split, data.tokenizer)
    print(inspect_batches(data.tokenizer, split, plan, config.data, dataset_key=data.dataset.key))
    return 0


def plan_run(config: PretrainConfig, run_dir: Path | None = None) -> dict[str, Any]:
    """What ``--dry-run`` shows: mesh, shapes, parameters and memory of a run, nothing compiled and nothing written but
    the data caches. Raises UserError for whatever would stop the run."""
    mesh = on_every_process("mesh", lambda: mesh_of(config))
    if config.base is not None:
        begun = None if run_dir is None else Begun(RunDir(run_dir))
        config = on_base(config) if begun is None else on_base(begun.fill(config), resumes=begun.saved)
    if run_dir is not None:
        on_first_process("run directory", lambda: check_unresolved(RunDir(run_dir), config))
    run, memory = _assemble(config, mesh)
    say(run.describe())
    for path, leaf in flatten_with_paths(run.layout.abstract.params).items():
        say(f"  {path}  {leaf.dtype}{list(leaf.shape)}  {leaf.sharding.spec}")
    say(memory)
    estimate = run.memory
    return {
        "num_params": run.num_params,
        "mesh": dict(mesh.shape),
        "tokens_per_step": config.tokens_per_step,
        "batches_per_epoch": run.plan.batches_per_epoch,
        "memory_bytes_per_device": estimate.total,
        "memory_terms": {term.name: term.num_bytes for term in estimate.terms},
    }


def pretrain(
    config: PretrainConfig,
    run_dir: str | Path,
    *,
    profile_steps: tuple[int, int] | None = None,
    may_change: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train as ``config`` says in ``run_dir``, from its last checkpoint if it has one; returns the final figures.

    Returns at least ``eval/loss``, ``eval/bits_per_byte`` (None under a closed vocabulary), ``perf/tokens_per_second``,
    ``num_params`` and ``step``; with ``stopped_by`` where a signal ended it early. Progress goes to stderr.

    Where the environment names several processes, it joins them: each calls this with the same arguments, and all
    return the same. A process that fails alone ends there and then.

    Raises UserError for bad input, before anything expensive has run. ``may_change``: further fields in which a run
    that has begun may differ.
    """
    directory = RunDir(run_dir)
    with one_run(config, directory) as mesh:
        if config.base is not None:
            begun = Begun(directory)
            config = on_base(begun.fill(config), resumes=begun.saved)
            if not begun.saved:  # nothing has come of that checkpoint yet
                may_change = (*may_change, "base_step")
        final = on_first_process("run directory", lambda: _open(directory, config, may_change))
        if final is not None:
            say(f"{directory.path} is finished: pass another --run-dir to train again")
            return final
        use_compilation_cache()
        keep_freed_memory()
        run, memory = _assemble(config, mesh)  # refuses what cannot run, before the directory is this config's
        on_first_process("config", lambda: _write_config(directory, run, may_change))
        say(run.describe())
        say(memory)
        outcome, samples = train(run, directory, profile_steps)
        return on_first_process("final figures", lambda: _finish(run, directory, outcome, samples))


def _assemble(config: PretrainConfig, mesh: Mesh) -> tuple[Assembly, str]:
    """The parts of the run, its data prepared, and its memory estimate as a line."""
    on_every_process("packages", lambda: check_installed(config.model))
    data = first_then_others("data", lambda: prepare_data(config, say))
    check_same("data", lambda: {"dataset_key": data.dataset.key})

    def assemble() -> tuple[Assembly, str]:
        run = Assembly(_resolve(config, data), data, mesh)
        return run, check_memory(run.memory)

    return on_every_process("model", assemble)


def _finish(run: Assembly, directory: RunDir, outcome: Outcome, samples: list[Sample]) -> dict[str, Any]:
    """The final figures of the run, and its report."""
    likelihood = run.config.model.family not in MASKED
    judged = {} if outcome.stopped_by is not None else _judge(samples, run.data, likelihood=likelihood)
    return conclude(directory, outcome, {"num_params": run.num_params}, judged)


def _judge(samples: list[Sample], data: PreparedData, *, likelihood: bool) -> Figures:
    """Figures that set the result in proportion: what the samples hold, and what xz makes of the same text."""
    figures = sample_figures(samples, data.corpus)
    report = data.corpus.report
    if (
        not data.tokenizer.closed
        and likelihood
        and report.train.bytes + report.validation.bytes <= MOST_COMPRESSED_BYTES
    ):
        texts = (document.text for document in data.corpus.train())
        held_out = (document.text for document in data.corpus.validation())
        figures["eval/xz_bits_per_byte"] = primed_xz_bits_per_byte(texts, held_out)
    for name, value in figures.items():
        say(f"{name}: {value}")
    return figures


def _open(directory: RunDir, config: PretrainConfig, may_change: tuple[str, ...]) -> dict[str, Any] | None:
    """Takes the run directory for this command. Returns the final figures of a finished run."""
    check_unresolved(directory, config, may_change)
    directory.lock()
    return directory.final_figures()


def _write_config(directory: RunDir, run: Assembly, may_change: tuple[str, ...]) -> None:
    keep_tokenizer(run.data.tokenizer, directory.tokenizer_path)
    processes = {"num_processes": jax.process_count(), "num_devices": jax.device_count()}
    free = (*fields_that_may_change(run.config), *may_change)
    directory.write_config(run.config, may_change=free, device=jax.devices()[0].device_kind, **processes)
    directory.require(dataset_key=run.data.dataset.key)


def _resolve(config: PretrainConfig, data: PreparedData) -> PretrainConfig:
    check_prompts(config, data.tokenizer)
    return dataclasses.replace(config, model=resolve_model(config.model, data.tokenizer))


def check_unresolved(directory: RunDir, config: PretrainConfig, may_change: tuple[str, ...] = ()) -> None:
    """Refuses another config's directory before data is prepared; the vocabulary size, not known yet, is taken from
    it."""
    if not directory.config_path.exists():
        return
    if config.model.vocab_size is None:
        saved = directory.read_config()["config"].get("model", {}).get("vocab_size")
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=saved))
    directory.check_config(config, may_change=(*fields_that_may_change(config), *may_change))
