"""The train step, tokens already on the device: tokens a second and MFU, by version of the model and the step."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.core.tree import count_params
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.families import check_installed
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.plan.flops import peak_flops, train_flops_per_token
from jaxlm.train.objectives import causal_objective
from jaxlm.train.step import make_train_step
from tools.bench.measuring import Row, fresh_state, measure, random_tokens, timed
from tools.bench.models import GPT2, LLAMA, SMALL, on_cpu


class Case(NamedTuple):
    """One train step to measure."""

    name: str
    model: DecoderConfig
    rows: int
    seq_len: int
    optimizer: str = "adamw"
    loss_chunk: int | None = None
    steps: int = 10
    """Waited for together, on an accelerator."""

    @property
    def label(self) -> str:
        """Name of its row in the table."""
        return f"train {self.name} {self.optimizer} {self.rows}x{self.seq_len}"

    def but(self, name: str, *, loss_chunk: int | None = None, rows: int | None = None, **changes: Any) -> "Case":
        """The same with these changes of the model."""
        model = dataclasses.replace(self.model, **changes)
        rows = self.rows if rows is None else rows
        chunk = self.loss_chunk if loss_chunk is None else loss_chunk
        return self._replace(name=f"{self.name} {name}", model=model, rows=rows, loss_chunk=chunk)


SMALL_CASE = Case("0.8M", SMALL, 12, 64)
GPT2_CASE = Case("gpt2-124M", GPT2, 16, 1024)
LLAMA_CASE = Case("llama-1.3B", LLAMA, 24, 2048, steps=3)
"""49 k tokens a step: more, in parts that are accumulated, is usual for this size."""


def versions(case: Case) -> list[Case]:
    """What can be chosen about a step, one change at a time."""
    other_remat = "none" if case.model.remat_policy != "none" else "dots"
    return [
        case.but("kernels=xla", kernels="xla"),
        case.but("attention=xla", attention="xla"),
        case.but(f"remat={other_remat}", remat_policy=other_remat),
        case.but("remat=full", remat_policy="full"),
        case.but("written out" if case.model.scan_layers else "scan", scan_layers=not case.model.scan_layers),
        case.but("loss_chunk=128", loss_chunk=128),
        case.but("half the rows", rows=case.rows // 2),
        case.but("int8", quantization="int8"),
        case.but("fp8", quantization="fp8"),
    ]


class Prepared(NamedTuple):
    """A compiled step and its state."""

    run: Callable[[int], None]
    """Takes so many steps and waits for the last."""
    figures: Row
    """Seconds to compile; parameters."""


def prepare(case: Case) -> Prepared:
    """Compiles the step of a case."""
    config, batch_size, seq_len = case.model, case.rows, case.seq_len
    check_installed(config)
    tokens = random_tokens(config.padded_vocab_size, batch_size * seq_len).reshape(batch_size, seq_len)
    batch: Any = {"tokens": tokens, "targets": tokens, "loss_mask": np.ones(tokens.shape, np.float32)}
    batch = jax.device_put(batch)
    opt = OptimizerConfig(name=case.optimizer)  # type: ignore[arg-type]
    model, tx, state = fresh_state(config, opt)
    objective = causal_objective(model, loss_chunk=case.loss_chunk)
    step = make_train_step(objective, tx, schedule=opt.schedule_fn(1000))
    key = purpose_key(0, Purpose.DROPOUT)
    num_params = count_params(state.params)
    start = time.perf_counter()
    compiled: Any = jax.jit(step, donate_argnums=0).lower(state, None, batch, key).compile()
    compile_seconds = time.perf_counter() - start

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = compiled(state, None, batch, key)
        jax.block_until_ready(state.step)

    return Prepared(run, {"compile_seconds": compile_seconds, "num_params": num_params})


def time_step(case: Case, repeats: int, *, steps: int = 1) -> Row:
    """One row: the median of ``repeats`` of ``steps`` steps, waited for together."""
    config, batch_size, seq_len = case.model, case.rows, case.seq_len
    run, figures = prepare(case)
    median, least, most = (seconds / steps for seconds in measure(lambda: run(steps), repeats=repeats))
    flops = batch_size * seq_len * train_flops_per_token(config, seq_len) / median
    peak = peak_flops(jax.devices()[0].device_kind)
    return timed(
        case.label,
        (median, least, most),
        tokens_per_second=batch_size * seq_len / median,
        flops_per_second=flops,
        mfu=None if peak is None else flops / peak,
        **figures,
    )


def bench_train(repeats: int, cases: Sequence[Case] | None = None) -> Iterator[Row]:
    """The train step under AdamW and Muon; on an accelerator GPT-2 124M and a 1.3 B Llama too."""
    if cases is None:
        large = [] if on_cpu() else [GPT2_CASE, GPT2_CASE._replace(optimizer="muon"), LLAMA_CASE]
        cases = [SMALL_CASE, SMALL_CASE._replace(optimizer="muon"), *large]
    for case in cases:
        yield time_step(case, repeats, steps=1 if on_cpu() else case.steps)
