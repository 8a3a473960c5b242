"""``jaxlm pretrain CONFIG``: from text to a trained decoder. The same command resumes it."""

import contextlib
import dataclasses
import json
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.core.errors import UserError
from jaxlm.core.tree import count_params, flatten_with_paths
from jaxlm.core.types import Params
from jaxlm.data.batches import DataState, eval_plan, train_plan
from jaxlm.evals.compression import primed_xz_bits_per_byte
from jaxlm.evals.perplexity import make_eval_step
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.loader import eval_batches, train_batches
from jaxlm.io.metrics import MetricsWriter
from jaxlm.io.progress import Progress, notice
from jaxlm.io.report import write_report
from jaxlm.io.run_dir import RunDir
from jaxlm.models.api import Model
from jaxlm.models.decoder import make_decoder, resolve_attention
from jaxlm.optim.optimizers import make_optimizer
from jaxlm.plan.flops import peak_flops, train_flops_per_token
from jaxlm.run.config import MAY_CHANGE, PretrainConfig
from jaxlm.run.config_files import load_config
from jaxlm.run.devices import use_compilation_cache
from jaxlm.run.loop import Cadence, Figures, Job, run_loop
from jaxlm.run.memory import check_memory, estimate_run_memory
from jaxlm.run.prepare import PreparedData, keep_tokenizer, prepare_data, resolve_model
from jaxlm.run.samples import check_prompts, make_sampler, sample_figures
from jaxlm.run.setup import StateLayout, abstract_batch, batch_sharding, check_rows, compile_train_step, lay_out_state
from jaxlm.run.signals import StopRequest
from jaxlm.sharding.mesh import make_mesh
from jaxlm.train.objectives import causal_objective
from jaxlm.train.state import TrainState
from jaxlm.train.step import make_train_step

MOST_COMPRESSED_BYTES = 32 * 2**20
"""Text beyond this is not given to xz for comparison: half of what it looks back on, and a minute's work."""


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the run's final figures as
    JSON."""
    config, options = load_config(PretrainConfig, argv)
    if options.dry_run:
        print(json.dumps(plan_run(config, options.run_dir)))
        return 0
    figures = pretrain(
        config,
        options.run_dir or f"runs/{config.name}",
        profile_steps=options.profile_steps if options.profile else None,
    )
    print(json.dumps(figures))
    stopped_by = figures.get("stopped_by")
    return 0 if stopped_by is None else 128 + signal.Signals[stopped_by]


def inspect_main(argv: list[str]) -> int:
    """``jaxlm inspect CONFIG``: what the model is fed, decoded, with masks and segments."""
    from jaxlm.run.inspect import inspect_batches

    config, _ = load_config(PretrainConfig, argv, prog="jaxlm inspect")
    data = prepare_data(config, _say)
    split = data.dataset.splits["train"]
    plan = train_plan(split, config.data, global_batch_size=config.global_batch_size, seed=config.seed)
    print(inspect_batches(data.tokenizer, split, plan, config.data, dataset_key=data.dataset.key))
    return 0


def plan_run(config: PretrainConfig, run_dir: Path | None = None) -> dict[str, Any]:
    """What ``--dry-run`` shows: mesh, shapes, parameters and memory of a run, nothing compiled and nothing written but
    the data caches. Raises UserError for whatever would stop the run."""
    mesh = _mesh_of(config)
    if run_dir is not None:
        _check_unresolved(RunDir(run_dir), config)
    data = prepare_data(config, _say)
    config = _resolve(config, data)
    run = _Run(config, data, mesh)
    _say(run.describe())
    for path, leaf in flatten_with_paths(run.layout.abstract.params).items():
        _say(f"  {path}  {leaf.dtype}{list(leaf.shape)}  {leaf.sharding.spec}")
    estimate = estimate_run_memory(config, run.layout, mesh)
    _say(check_memory(estimate))
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

    Raises UserError for bad input, before anything expensive has run.
    """
    mesh = _mesh_of(config)
    directory = RunDir(run_dir)
    _check_unresolved(directory, config)
    with directory:
        final = directory.final_figures()
        if final is not None:
            _say(f"{directory.path} is finished: pass another --run-dir to train again")
            return final
        use_compilation_cache()
        data = prepare_data(config, _say)
        config = _resolve(config, data)
        run = _Run(config, data, mesh)  # refuses what cannot run, before the directory is this config's
        keep_tokenizer(data.tokenizer, directory.path / "tokenizer")
        directory.write_config(config, may_change=MAY_CHANGE, device=jax.devices()[0].device_kind)
        directory.require(dataset_key=data.dataset.key)
        figures = _train(run, directory, profile_steps)
        write_report(directory.path)
        _say(f"report: {directory.report_path}")
        return figures


class _Run:
    """What a resolved config and its data make: model, plans, optimiser, the layout of the state on the mesh."""

    def __init__(self, config: PretrainConfig, data: PreparedData, mesh: Mesh):
        self.config, self.data, self.mesh = config, data, mesh
        self.model: Model = make_decoder(resolve_attention(config.model, mesh.devices.flat[0].platform))
        self.train_split, self.validation_split = data.dataset.splits["train"], data.dataset.splits["validation"]
        self.plan = train_plan(
            self.train_split, config.data, global_batch_size=config.global_batch_size, seed=config.seed
        )
        if self.plan.num_batches is not None and self.plan.num_batches < config.num_steps:
            raise UserError(
                f"data.num_epochs={config.data.num_epochs} gives {self.plan.num_batches} batches, fewer than num_steps="
                f"{config.num_steps}: lower num_steps, raise num_epochs, or set it to None to repeat"
            )
        self.eval_plan = eval_plan(self.validation_split, config.data, batch_size=self.eval_rows)
        self.tx = make_optimizer(config.optimizer, config.num_steps)
        self.layout: StateLayout = lay_out_state(
            self.model, self.tx, mesh, seed=config.seed, ema=config.ema_decay is not None
        )
        self.num_params = count_params(self.layout.abstract.params)
        self.flops_per_step = config.tokens_per_step * train_flops_per_token(config.model, config.data.seq_len)

    @property
    def eval_rows(self) -> int:
        """Rows of an evaluation batch: what was asked for, rounded up to a multiple of the devices that share it."""
        ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        return -(-self.config.eval_batch_size // ways) * ways

    def describe(self) -> str:
        config = self.config
        axes = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
        epochs = config.num_steps / self.plan.batches_per_epoch
        return (
            f"model: {self.num_params:,} parameters; mesh {axes} on {self.mesh.devices.flat[0].device_kind}; "
            f"{config.num_steps} steps of {config.tokens_per_step:,} tokens ({epochs:.2f} epochs), "
            f"{config.num_steps * self.flops_per_step:.2e} FLOPs"
        )

    def compile_step(self) -> Callable[..., Any]:
        config = self.config
        step = make_train_step(
            causal_objective(self.model, z_loss_coef=config.z_loss_coef),
            self.tx,
            schedule=config.optimizer.schedule_fn(config.num_steps),
            grad_accum_steps=config.grad_accum_steps,
            ema_decay=config.ema_decay,
        )
        keys = ("tokens", "targets", "loss_mask") + (("segment_ids", "positions") if self.plan.rows.segmented else ())
        batch = abstract_batch(keys, config.global_batch_size, config.data.seq_len, self.mesh)
        return compile_train_step(step, self.layout, batch, self.mesh, seed=config.seed)

    def evaluator(self) -> Callable[[Params], Figures]:
        """Loss over the whole validation split, every target once, and bits per byte where the tokenizer allows it."""
        eval_step = jax.jit(make_eval_step(self.model))
        sharding, tokenizer = batch_sharding(self.mesh), self.data.tokenizer

        def evaluate(params: Params) -> Figures:
            sums: dict[str, float] = {"nats": 0.0, "tokens": 0.0, "correct": 0.0}
            with jax.set_mesh(self.mesh):
                batches = eval_batches(self.validation_split, self.eval_plan, sharding, pad_id=tokenizer.pad_id)
                found = jax.device_get([eval_step(params, batch) for batch in batches])
            for name in sums:
                sums[name] = float(np.sum([batch[name] for batch in found], dtype=np.float64))
            loss = sums["nats"] / sums["tokens"]
            num_bytes = self.validation_split.num_bytes
            return {
                "eval/loss": loss,
                "eval/perplexity": math.exp(min(loss, 700.0)),
                "eval/accuracy": sums["correct"] / sums["tokens"],
                "eval/bits_per_byte": None if tokenizer.closed else sums["nats"] / (math.log(2) * num_bytes),
            }

        return evaluate


def _train(run: _Run, directory: RunDir, profile_steps: tuple[int, int] | None) -> dict[str, Any]:
    config, data = run.config, run.data
    _say(run.describe())
    _say(check_memory(estimate_run_memory(config, run.layout, run.mesh)))
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        checkpointer = stack.enter_context(Checkpointer(directory.checkpoints_path, config.checkpoint))
        state, data_state = _start(run, checkpointer)
        first_step = int(state.step)
        with notice("compiling the train step; the first step follows"):
            step_fn = run.compile_step()
        batches = stack.enter_context(
            train_batches(
                run.train_split,
                run.plan,
                data_state,
                batch_sharding(run.mesh),
                pad_id=data.tokenizer.pad_id,
                read_threads=config.data.read_threads,
                prefetch=config.data.prefetch,
            )
        )
        writer = stack.enter_context(MetricsWriter(directory.path, resume_step=first_step))
        progress = stack.enter_context(Progress(config.num_steps, first_step))
        evaluate, sample = run.evaluator(), make_sampler(run.model, data.tokenizer, config, config_to_dict(config))
        samples: list[dict[str, Any]] = []

        def judged(state: TrainState) -> Params:
            return state.params if state.ema_params is None else state.ema_params

        def write_samples(state: TrainState, step: int) -> None:
            samples[:] = sample(judged(state))
            writer.write_samples(step, samples)
            for one in samples:
                progress.note(f"  | {one['prompt']}{one['completion']}".replace("\n", "\n  | "))

        job = Job(
            num_steps=config.num_steps,
            step_fn=step_fn,
            batches=batches,
            data_state=data_state,
            evaluate=lambda state: evaluate(judged(state)),
            sample=write_samples,
            cadence=Cadence(config.log_every, config.eval_every, config.checkpoint.save_every),
            tokens_per_step=config.tokens_per_step,
            flops_per_step=run.flops_per_step,
            peak_flops=_total_peak(run.mesh),
            checkpointer=checkpointer,
            writer=writer,
            progress=progress,
            profile_dir=directory.profile_path,
            profile_steps=profile_steps,
        )
        outcome = run_loop(job, state, stop)
    figures: dict[str, Any] = {"step": outcome.step, "num_params": run.num_params, "run_dir": str(directory.path)}
    figures |= outcome.figures
    if outcome.stopped_by is not None:
        _say(f"stopped by {outcome.stopped_by} at step {outcome.step}, saved: the same command goes on from here")
        return figures | {"stopped_by": outcome.stopped_by}
    figures |= _judge(samples, data)
    directory.mark_done(figures)
    return figures


def _judge(samples: list[dict[str, Any]], data: PreparedData) -> Figures:
    """Figures that set the result in proportion: what the samples hold, and what xz makes of the same text."""
    figures = sample_figures(samples, data.corpus)
    report = data.corpus.report
    if not data.tokenizer.closed and report.train.bytes + report.validation.bytes <= MOST_COMPRESSED_BYTES:
        texts = (document.text for document in data.corpus.train())
        held_out = (document.text for document in data.corpus.validation())
        figures["eval/xz_bits_per_byte"] = primed_xz_bits_per_byte(texts, held_out)
    for name, value in figures.items():
        _say(f"{name}: {value}")
    return figures


def _start(run: _Run, checkpointer: Checkpointer) -> tuple[TrainState, DataState]:
    """The newest checkpoint, or a fresh state."""
    step = checkpointer.latest_step()
    if step is None:
        with notice("initialising"):
            return run.layout.init(), DataState()
    _say(f"resuming from step {step}")
    state, meta = checkpointer.restore(run.layout.abstract, step)
    return state, DataState.from_json(meta["data"])


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


def _total_peak(mesh: Mesh) -> float | None:
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    return None if peak is None else peak * mesh.devices.size


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
