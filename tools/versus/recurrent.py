"""``python -m tools.versus recurrent [--peer-python PYTHON]``: our recurrent layers against ``torch.nn``'s.

One layer with the same weights on the same input, forward and backward, in a process each: the largest relative
difference of outputs and gradients (norm of the difference over norm), and the times in turns. PYTHON has torch. Prints
one JSON line a cell.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxlm.nn.recurrent import IMPLEMENTATIONS
from jaxlm.run.parsers import tool_parser
from tools.versus.turns import PEER_TURNS, alternate, check_peer, ratio, serve, spread

BLOCKS = {"rnn": 1, "lstm": 4, "gru": 3}

PEER = """
import sys, time, statistics
import numpy as np, torch
cell, directory, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
given = np.load(directory + "/given.npz")
x, w, u, b, n, out = (torch.tensor(given[name]) for name in ("x", "w", "u", "b", "n", "out"))
layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](x.shape[2], u.shape[0])
with torch.no_grad():
    layer.weight_ih_l0.copy_(w.T); layer.weight_hh_l0.copy_(u.T); layer.bias_ih_l0.copy_(b); layer.bias_hh_l0.copy_(n)
x.requires_grad_(True)
def work():
    layer.zero_grad(); x.grad = None
    y, _ = layer(x)
    (y * out).sum().backward()
    return y
start = time.perf_counter()
y = work()
np.savez(directory + "/torch.npz", y=y.detach().numpy(), x=x.grad.numpy(), w=layer.weight_ih_l0.grad.T.numpy(),
         u=layer.weight_hh_l0.grad.T.numpy(), b=layer.bias_ih_l0.grad.numpy())
print(time.perf_counter() - start, flush=True)
"""


def unroll_ours(cell: str, directory: str, asked: str) -> None:
    """Our side: compiles, writes what it got, then works as each line of standard input says."""
    import jax
    import jax.numpy as jnp

    from jaxlm.nn.recurrent import choose_unroll, init_state, unroll
    from jaxlm.nn.recurrent_kernel import input_product
    from jaxlm.run.cpu_kernels import kernel_missing
    from jaxlm.run.devices import keep_freed_memory

    keep_freed_memory()
    implementation = choose_unroll(
        asked,  # pyright: ignore[reportArgumentType]
        jax.default_backend(),
        dtype=jnp.dtype("float32"),
        kernel_missing=kernel_missing,
    )
    given = {name: jnp.asarray(value) for name, value in np.load(f"{directory}/given.npz").items()}
    bias = given["n"] if cell == "gru" else None
    rows = given["x"].shape[1]
    width = given["u"].shape[0]

    def scored(x_tbd: jax.Array, w: jax.Array, u: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_tbg = input_product(x_tbd, w)
        state = init_state(cell, rows, width)  # pyright: ignore[reportArgumentType]
        y_tbd, _ = unroll(cell, x_tbg, u, bias, state, x_bias_g=b, implementation=implementation)  # pyright: ignore
        return jnp.sum(y_tbd * given["out"]), y_tbd

    args = tuple(given[name] for name in ("x", "w", "u", "b"))
    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(scored, argnums=(0, 1, 2, 3), has_aux=True)).lower(*args).compile()
    (_, y), grads = compiled(*args)
    names = dict(zip(("x", "w", "u", "b"), map(np.asarray, grads), strict=True))
    used = np.asarray(implementation)
    np.savez(
        f"{directory}/jaxlm.npz",
        y=np.asarray(y),
        x=names["x"],
        w=names["w"],
        u=names["u"],
        b=names["b"],
        implementation=used,
    )
    print(time.perf_counter() - start, flush=True)
    serve(sys.stdin, lambda: jax.block_until_ready(compiled(*args)))


def give(directory: Path, cell: str, *, width: int, rows: int, steps: int) -> None:
    """Weights as both layers begin with, an input, and what the outputs are summed with."""
    rng = np.random.default_rng(0)

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(width))

    columns = BLOCKS[cell] * width
    x, out = (rng.normal(size=(steps, rows, width)).astype(np.float32) for _ in range(2))
    w, u, b = uniform(width, columns), uniform(width, columns), uniform(columns)
    # The second bias adds to the first, but for the GRU's candidate.
    second = uniform(columns) if cell == "gru" else np.zeros(columns, np.float32)
    np.savez(directory / "given.npz", x=x, out=out, w=w, u=u, b=b, n=second)


def differences(directory: Path) -> dict[str, float]:
    """Norm of the difference over norm: of the outputs, and the largest of the gradients."""
    ours, theirs = (np.load(directory / f"{name}.npz") for name in ("jaxlm", "torch"))
    apart = {
        name: float(np.linalg.norm(ours[name].astype(np.float64) - theirs[name]) / np.linalg.norm(theirs[name]))
        for name in ("y", "x", "w", "u", "b")
    }
    return {"outputs": apart.pop("y"), "gradients": max(apart.values())}


def main(argv: list[str]) -> int:
    """Prints one JSON line a cell."""
    parser = tool_parser("python -m tools.versus recurrent", __doc__)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch's threads")
    parser.add_argument("--cells", nargs="+", choices=list(BLOCKS), default=["lstm", "gru"], help="default both")
    parser.add_argument(
        "--implementation", choices=IMPLEMENTATIONS, default="auto", help="of our loop over time; default %(default)s"
    )
    parser.add_argument("--width", type=int, default=256, help="of the layer; default %(default)s")
    parser.add_argument("--rows", type=int, default=32, help="default %(default)s")
    parser.add_argument("--steps", type=int, default=64, help="steps of the unrolled layer; default %(default)s")
    parser.add_argument("--turns", type=int, default=9, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=10, help="passes a turn; default %(default)s")
    args = parser.parse_args(argv)
    check_peer(args.peer_python, "numpy", "torch")
    for cell in args.cells:
        with tempfile.TemporaryDirectory() as directory:
            give(Path(directory), cell, width=args.width, rows=args.rows, steps=args.steps)
            call = f"unroll_ours({cell!r}, {directory!r}, {args.implementation!r})"
            ours = f"from tools.versus.recurrent import unroll_ours; {call}"
            commands = {
                "torch": [args.peer_python, "-c", PEER + PEER_TURNS, cell, directory, str(args.threads)],
                "jaxlm": [sys.executable, "-c", ours],
            }
            sides = alternate(commands, turns=args.turns, count=args.repeats)
            figures = {name: spread(side["turns"]) for name, side in sides.items()}
            speed = ratio(sides["jaxlm"]["turns"], sides["torch"]["turns"])
            used = str(np.load(f"{directory}/jaxlm.npz")["implementation"])
            apart = differences(Path(directory))
            print(json.dumps({"cell": cell, "implementation": used, **figures, "speed_ratio": speed, "apart": apart}))
    return 0
