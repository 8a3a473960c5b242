"""``jaxlm pretrain CONFIG``: from text to a trained model. The same command resumes it.

Started once a host, it is one run over all of them (`jaxlm.run.processes`): the first process writes and prints, and
what ends one ends all (`jaxlm.io.agree`).
"""

import contextlib
import dataclasses
import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Params
from jaxlm.data.batches import DataState
from jaxlm.evals.compression import primed_xz_bits_per_byte
from jaxlm.io.agree import (
    check_same,
    first_stderr,
    first_then_others,
    is_first,
    on_every_process,
    on_first_process,
    one_fate,
    say,
)
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.loader import train_batches
from jaxlm.io.metrics import MetricsWriter, SilentWriter
from jaxlm.io.progress import Progress, notice
from jaxlm.io.report import write_report
from jaxlm.io.run_dir import RunDir, environment, write_json
from jaxlm.models.families import MASKED
from jaxlm.run.assembly import Assembly, plan_batches
from jaxlm.run.config import MAY_CHANGE, PretrainConfig
from jaxlm.run.config_files import load_config
from jaxlm.run.devices import keep_freed_memory, use_compilation_cache
from jaxlm.run.incidents import Incident, Incidents, describe
from jaxlm.run.loop import Cadence, Figures, Job, Outcome, run_loop
from jaxlm.run.memory import check_memory, estimate_run_memory
from jaxlm.run.prepare import PreparedData, keep_tokenizer, prepare_data, resolve_model
from jaxlm.run.processes import start_processes
from jaxlm.run.samples import check_prompts, make_sampler, sample_figures
from jaxlm.run.setup import batch_sharding, check_rows
from jaxlm.run.signals import StopRequest
from jaxlm.sharding.mesh import make_mesh
from jaxlm.train.state import TrainState

MOST_COMPRESSED_BYTES = 32 * 2**20
"""Text beyond this is not given to xz for comparison: half of what it looks back on, and a minute's work."""


_INFINITE = (float("inf"), float("-inf"))  # like NaN no JSON: null


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the run's final figures as
    JSON."""
    start_processes()
    with one_fate():
        config, options = on_every_process("command line", lambda: load_config(PretrainConfig, argv))
        if options.dry_run:
            _print_figures(plan_run(config, options.run_dir))
            return 0
        figures = pretrain(
            config,
            options.run_dir or f"runs/{config.name}",
            profile_steps=options.profile_steps if options.profile else None,
        )
        _print_figures(figures)
    stopped_by = figures.get("stopped_by")
    return 0 if stopped_by is None else 128 + signal.Signals[stopped_by]


def inspect_main(argv: list[str]) -> int:
    """``jaxlm inspect CONFIG``: what the model is fed, decoded, with masks and segments."""
    from jaxlm.run.inspect import inspect_batches

    config, _ = load_config(PretrainConfig, argv, prog="jaxlm inspect")
    data = prepare_data(config, say)
    split = data.dataset.splits["train"]
    plan = plan_batches(config, split, data.tokenizer)
    print(inspect_batches(data.tokenizer, split, plan, config.data, dataset_key=data.dataset.key))
    return 0


def plan_run(config: PretrainConfig, run_dir: Path | None = None) -> dict[str, Any]:
    """What ``--dry-run`` shows: mesh, shapes, parameters and memory of a run, nothing compiled and nothing written but
    the data caches. Raises UserError for whatever would stop the run."""
    mesh = on_every_process("mesh", lambda: _mesh_of(config))
    if run_dir is not None:
        on_first_process("run directory", lambda: _check_unresolved(RunDir(run_dir), config))
    run, memory = _assemble(config, mesh)
    say(run.describe())
    for path, leaf in flatten_with_paths(run.layout.abstract.params).items():
        say(f"  {path}  {leaf.dtype}{list(leaf.shape)}  {leaf.sharding.spec}")
    say(memory)
    estimate = estimate_run_memory(run.config, run.layout, mesh)
    return {
        "num_params": run.num_params,
        "mesh": dict(mesh.shape),
        "tokens_per_step": config.tokens_per_step,
        "batches_per_epoch": run.plan.batches_per_epoch,
        "memory_bytes_per_device": estimate.total,
        "memory_terms": {term.name: term.num_bytes for term in estimate.terms},
    }


def pretrain(
    config: PretrainConfig, run_dir: str | Path, *, profile_steps: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Train as ``config`` says in ``run_dir``, from its last checkpoint if it has one; returns the final figures.

    Returns at least ``eval/loss``, ``eval/bits_per_byte`` (None under a closed vocabulary), ``perf/tokens_per_second``,
    ``num_params`` and ``step``; with ``stopped_by`` where a signal ended it early. Progress goes to stderr.

    Where the environment names several processes, it joins them: each calls this with the same arguments, and all
    return the same. A process that fails alone ends there and then.

    Raises UserError for bad input, before anything expensive has run.
    """
    start_processes()
    directory = RunDir(run_dir)
    with one_fate():
        check_same("start", lambda: _identity(config, directory))
        mesh = on_every_process("mesh", lambda: _mesh_of(config))
        try:
            final = on_first_process("run directory", lambda: _open(directory, config))
            if final is not None:
                say(f"{directory.path} is finished: pass another --run-dir to train again")
                return final
            use_compilation_cache()
            keep_freed_memory()
            run, memory = _assemble(config, mesh)  # refuses what cannot run, before the directory is this config's
            on_first_process("config", lambda: _write_config(directory, run))
            say(run.describe())
            say(memory)
            outcome, samples = _train(run, directory, profile_steps)
            return on_first_process("final figures", lambda: _finish(run, directory, outcome, samples))
        finally:
            directory.unlock()


def _assemble(config: PretrainConfig, mesh: Mesh) -> tuple[Assembly, str]:
    """The parts of the run, its data prepared, and its memory estimate as a line."""
    data = first_then_others("data", lambda: prepare_data(config, say))
    check_same("data", lambda: {"dataset_key": data.dataset.key})

    def assemble() -> tuple[Assembly, str]:
        run = Assembly(_resolve(config, data), data, mesh)
        return run, check_memory(estimate_run_memory(run.config, run.layout, mesh))

    return on_every_process("model", assemble)


def _train(
    run: Assembly, directory: RunDir, profile_steps: tuple[int, int] | None
) -> tuple[Outcome, list[dict[str, Any]]]:
    """Trains to the end or to a signal; also returns the last samples."""
    config, data = run.config, run.data
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        checkpointer = stack.enter_context(Checkpointer(directory.checkpoints_path, config.checkpoint))
        start = _start(run, checkpointer)
        first_step = int(start.state.step)
        with notice("compiling the train step; the first step follows", first_stderr()):
            step_fn = run.compile_step()
        batches = stack.enter_context(
            train_batches(
                run.train_split,
                run.plan,
                start.data_state,
                batch_sharding(run.mesh),
                pad_id=data.tokenizer.pad_id,
                read_threads=config.data.read_threads,
                prefetch=config.data.prefetch,
            )
        )
        writer = stack.enter_context(
            MetricsWriter(directory.path, resume_step=first_step) if is_first() else SilentWriter()
        )
        progress = stack.enter_context(Progress(config.num_steps, first_step, stream=first_stderr()))
        evaluate, sample = run.evaluator(), make_sampler(run.model, data.tokenizer, config, config_to_dict(config))
        samples: list[dict[str, Any]] = []

        def judged(state: TrainState) -> Params:
            return state.params if state.ema_params is None else state.ema_params

        def write_samples(state: TrainState, step: int) -> None:
            samples[:] = sample(judged(state))
            writer.write_samples(step, samples)
            for one in samples:
                progress.note(f"  | {one['prompt']}{one['completion']}".replace("\n", "\n  | "))

        def write_incidents(entries: list[Incident], new: list[Incident]) -> None:
            if is_first() and (entries or directory.incidents_path.exists()):
                write_json(directory.incidents_path, entries)
            for incident in new:
                progress.note(describe(incident))

        write_incidents(start.incidents, [])  # a killed run may have noted some past its last save
        job = Job(
            num_steps=config.num_steps,
            step_fn=step_fn,
            batches=batches,
            data_state=start.data_state,
            evaluate=lambda state: evaluate(judged(state)),
            sample=write_samples,
            cadence=Cadence(
                config.log_every,
                config.eval_every,
                config.checkpoint.save_every,
                config.checkpoint.save_minutes,
            ),
            tokens_per_step=config.tokens_per_step,
            flops_per_step=run.flops_per_step,
            peak_flops=run.peak_flops,
            checkpointer=checkpointer,
            writer=writer,
            progress=progress,
            incidents=Incidents(start.incidents, skipped=int(start.state.skipped), changed=write_incidents),
            saved_step=start.saved_step,
            profile_dir=directory.profile_path,
            profile_steps=profile_steps if is_first() else None,
        )
        stack.enter_context(one_fate())  # innermost: the checkpointer would wait for processes that are gone
        return run_loop(job, start.state, stop), samples


class _Start(NamedTuple):
    """What training goes on from."""

    state: TrainState
    data_state: DataState
    incidents: list[Incident]
    saved_step: int | None


def _start(run: Assembly, checkpointer: Checkpointer) -> _Start:
    """The newest checkpoint, or a fresh state."""
    restored = checkpointer.resume(run.layout.abstract)
    if restored is None:
        with notice("initialising", first_stderr()):
            return _Start(run.layout.init(), DataState(), [], None)
    say(f"resuming from step {restored.step}")
    data_state, incidents = DataState.from_json(restored.meta["data"]), list(restored.meta["incidents"])
    return _Start(restored.state, data_state, incidents, restored.step)


def _finish(run: Assembly, directory: RunDir, outcome: Outcome, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The final figures, and what the run directory holds of a finished run: its mark and its report."""
    figures: dict[str, Any] = {"step": outcome.step, "num_params": run.num_params, "run_dir": str(directory.path)}
    figures |= outcome.figures
    if outcome.stopped_by is not None:
        say(f"stopped by {outcome.stopped_by} at step {outcome.step}, saved: the same command goes on from here")
        figures["stopped_by"] = outcome.stopped_by
    else:
        figures |= _judge(samples, run.data, likelihood=run.config.model.family not in MASKED)
    figures = {name: None if value != value or value in _INFINITE else value for name, value in figures.items()}
    if outcome.stopped_by is None:
        directory.mark_done(figures)
    write_report(directory.path)
    say(f"report: {directory.report_path}")
    return figures


def _judge(samples: list[dict[str, Any]], data: PreparedData, *, likelihood: bool) -> Figures:
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


def _identity(config: PretrainConfig, directory: RunDir) -> dict[str, Any]:
    """What must be the same in all processes of a run."""
    here = environment()
    return config_to_dict(config) | {
        "run_dir": str(directory.path.absolute()),
        "versions": here["versions"],
        "git_commit": here["git_commit"],
    }


def _open(directory: RunDir, config: PretrainConfig) -> dict[str, Any] | None:
    """Takes the run directory for this command. Returns the final figures of a finished run."""
    _check_unresolved(directory, config)
    directory.lock()
    return directory.final_figures()


def _write_config(directory: RunDir, run: Assembly) -> None:
    keep_tokenizer(run.data.tokenizer, directory.tokenizer_path)
    processes = {"num_processes": jax.process_count(), "num_devices": jax.device_count()}
    directory.write_config(run.config, may_change=MAY_CHANGE, device=jax.devices()[0].device_kind, **processes)
    directory.require(dataset_key=run.data.dataset.key)


def _mesh_of(config: PretrainConfig) -> Mesh:
    mesh = make_mesh(config.mesh, jax.devices())
    check_rows(mesh, global_batch_size=config.global_batch_size, microbatch_size=config.microbatch_size)
    return mesh


def _resolve(config: PretrainConfig, data: PreparedData) -> PretrainConfig:
    check_prompts(config, data.tokenizer)
    return dataclasses.replace(config, model=resolve_model(config.model, data.tokenizer))


def _check_unresolved(directory: RunDir, config: PretrainConfig) -> None:
    """Refuses another config's directory before data is prepared; the vocabulary size, not known yet, is taken from
    it."""
    if not directory.config_path.exists():
        return
    if config.model.vocab_size is None:
        saved = directory.read_config()["config"].get("model", {}).get("vocab_size")
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=saved))
    directory.check_config(config, may_change=MAY_CHANGE)


def _print_figures(figures: dict[str, Any]) -> None:
    if is_first():
        print(json.dumps(figures), flush=True)
