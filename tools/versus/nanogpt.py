"""``python -m tools.versus nanogpt FOLDER [--peer-python PYTHON]``: our train step against nanoGPT's compiled one.

FOLDER has nanoGPT's model.py; PYTHON is an interpreter that has torch. Both train the model of its README's CPU recipe,
or with ``--model gpt2`` on a GPU GPT-2 124M in bf16 (AdamW, flash attention), on random tokens of the same shape, each
in a process of its own, on the same device, and take turns of some steps.
Prints one JSON line: milliseconds a step (median over turns of the median step), tokens a second, seconds to compile.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.run.parsers import tool_parser
from tools.versus.turns import alternate, check_peer, ratio, serve, spread


class Shape(NamedTuple):
    """What both train."""

    rows: int
    seq_len: int
    vocab_size: int
    num_layers: int
    num_heads: int
    model_dim: int
    device: str
    together: int
    """Steps that are waited for together."""


SHAPES = {"char": Shape(12, 64, 65, 4, 4, 128, "cpu", 1), "gpt2": Shape(16, 1024, 50304, 12, 12, 768, "cuda", 5)}

PEER = """
import contextlib, sys, time, statistics
sys.path.insert(0, sys.argv[1])
import torch
from model import GPT, GPTConfig
rows, seq_len, vocab_size, n_layer, n_head, n_embd = map(int, sys.argv[3:9])
device, together = sys.argv[9], int(sys.argv[10])
torch.manual_seed(0)
torch.set_num_threads(int(sys.argv[2]))
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
stdout, sys.stdout = sys.stdout, sys.stderr
model = GPT(GPTConfig(
    block_size=seq_len, vocab_size=vocab_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, dropout=0.0, bias=False))
model.to(device)
optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), device)
compiled = torch.compile(model)
x, y = (torch.randint(0, vocab_size, (rows, seq_len), device=device) for _ in range(2))
half = torch.amp.autocast(device_type="cuda", dtype=torch.bfloat16) if device == "cuda" else contextlib.nullcontext()
def step():
    with half:
        _, loss = compiled(x, y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
def work():
    for _ in range(together):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
start = time.perf_counter()
work()
print(time.perf_counter() - start, file=stdout, flush=True)
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) / together)
    print(statistics.median(times), file=stdout, flush=True)
"""


def take_steps(name: str) -> None:
    """Our side: compiles, then takes as many steps as each line of standard input says."""
    import jax
    import numpy as np

    from jaxlm.core.keys import Purpose, fold_key, purpose_key
    from jaxlm.models.families import for_platform, make_model
    from jaxlm.optim.optimizers import make_optimizer
    from jaxlm.run.devices import keep_freed_memory
    from jaxlm.train.objectives import causal_objective
    from jaxlm.train.state import create_state
    from jaxlm.train.step import make_train_step

    keep_freed_memory()
    model_config, optimizer, num_steps = _ours(name)
    shape = SHAPES[name]
    model = make_model(for_platform(model_config, jax.default_backend()))
    tx = make_optimizer(optimizer, num_steps)
    tokens = np.random.default_rng(0).integers(0, shape.vocab_size, (shape.rows, shape.seq_len)).astype(np.int32)
    batch = jax.device_put({"tokens": tokens, "targets": tokens, "loss_mask": np.ones(tokens.shape, np.float32)})
    state = jax.jit(lambda key: create_state(model.init(key), tx))(fold_key(0, Purpose.INIT))
    schedule = optimizer.schedule_fn(num_steps)
    step = jax.jit(make_train_step(causal_objective(model), tx, schedule=schedule), donate_argnums=0)
    key = purpose_key(0, Purpose.DROPOUT)
    start = time.perf_counter()
    compiled: Any = step.lower(state, None, batch, key).compile()

    def work() -> None:
        nonlocal state
        for _ in range(shape.together):
            state, _ = compiled(state, None, batch, key)
        jax.block_until_ready(state)

    work()
    print(time.perf_counter() - start, flush=True)
    serve(sys.stdin, work, pieces=shape.together)


def _ours(name: str) -> tuple[Any, Any, int]:
    """(model, optimiser, steps of the schedule) of our side."""
    if name == "gpt2":  # a machine with a GPU may lack what configs of whole runs import
        from jaxlm.optim.optimizers import OptimizerConfig
        from tools.bench.models import GPT2

        return GPT2, OptimizerConfig(name="adamw", b2=0.99), 1000
    from configs.shakespeare_nanogpt import config

    made = config()
    return dataclasses.replace(made.model, vocab_size=SHAPES[name].vocab_size), made.optimizer, made.num_steps


def main(argv: list[str]) -> int:
    """Prints the table as one JSON line."""
    parser = tool_parser("python -m tools.versus nanogpt", __doc__)
    parser.add_argument("nanogpt", type=Path, help="a folder with nanoGPT's model.py")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch's threads")
    parser.add_argument("--turns", type=int, default=15, help="default %(default)s")
    parser.add_argument(
        "--steps", type=int, default=40, help="pieces of work a turn: a step, on a GPU five; default %(default)s"
    )
    parser.add_argument(
        "--model", choices=list(SHAPES), default="char", help="gpt2: 124M, on a GPU; default %(default)s"
    )
    args = parser.parse_args(argv)
    if not (args.nanogpt / "model.py").exists():
        parser.error(f"{args.nanogpt} has no model.py: give nanoGPT's folder")
    check_peer(args.peer_python, "torch")
    shape = SHAPES[args.model]
    ours = f"from tools.versus.nanogpt import take_steps; take_steps({args.model!r})"
    commands = {
        "nanogpt": [args.peer_python, "-c", PEER, str(args.nanogpt), str(args.threads), *map(str, shape)],
        "jaxlm": [sys.executable, "-c", ours],
    }
    sides = alternate(commands, turns=args.turns, count=args.steps)
    figures: dict[str, Any] = {}
    for name, side in sides.items():
        times = spread(side["turns"])
        per_second = shape.rows * shape.seq_len / times["ms"] * 1e3
        figures[name] = times | {"tokens_per_second": per_second, "compile_seconds": side["prepare"]}
    speed = ratio(sides["jaxlm"]["turns"], sides["nanogpt"]["turns"])
    print(json.dumps({**figures, "speed_ratio": speed, "turns": args.turns, "steps": args.steps}))
    return 0
