"""``python -m tools.versus attention [--peer-python PYTHON]``: attention of whole rows on a CPU: ours, XLA's, torch's.

Causal, f32, forward and backward, in a process each, in turns. Torch's is ``scaled_dot_product_attention``. PYTHON has
torch. Prints one JSON line: times, how many times as fast ours is, and how far outputs and gradients are apart (norm of
the difference over norm).
"""

import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxlm.run.parsers import tool_parser
from tools.versus.turns import PEER_TURNS, alternate, check_peer, ratio, serve, spread

PEER = """
import sys, time, statistics
import numpy as np, torch
directory, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
given = np.load(directory + "/given.npz")
q, k, v, out = (torch.tensor(given[name]) for name in ("q", "k", "v", "out"))
for x in (q, k, v): x.requires_grad_(True)
def work():
    for x in (q, k, v): x.grad = None
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    y = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2)
    (y * out).sum().backward()
    return y
start = time.perf_counter()
y = work()
np.savez(directory + "/torch.npz", y=y.detach().numpy(), q=q.grad.numpy(), k=k.grad.numpy(), v=v.grad.numpy())
print(time.perf_counter() - start, flush=True)
"""


def attend_ours(directory: str, implementation: str) -> None:
    """A side of ours: compiles, writes what it got, then works as each line of standard input says."""
    import jax
    import jax.numpy as jnp

    from jaxlm.nn.attention import attend
    from jaxlm.run.cpu_kernels import kernel_missing
    from jaxlm.run.devices import keep_freed_memory

    keep_freed_memory()
    if implementation == "cpu" and (reason := kernel_missing("attention")):
        raise SystemExit(reason)
    given = {name: jnp.asarray(value) for name, value in np.load(f"{directory}/given.npz").items()}

    def scored(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = attend(q, k, v, implementation=implementation)  # pyright: ignore[reportArgumentType]
        return jnp.sum(y * given["out"]), y

    args = tuple(given[name] for name in "qkv")
    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(scored, argnums=(0, 1, 2), has_aux=True)).lower(*args).compile()
    (_, y), grads = compiled(*args)
    dq, dk, dv = map(np.asarray, grads)
    np.savez(f"{directory}/{implementation}.npz", y=np.asarray(y), q=dq, k=dk, v=dv)
    print(time.perf_counter() - start, flush=True)
    serve(sys.stdin, lambda: jax.block_until_ready(compiled(*args)))


def apart(directory: str, name: str) -> float:
    """Of one side from torch: the largest over output and gradients of the norm of the difference over the norm."""
    ours, theirs = (np.load(f"{directory}/{side}.npz") for side in (name, "torch"))
    return max(float(np.linalg.norm(ours[x] - theirs[x]) / np.linalg.norm(theirs[x])) for x in "yqkv")


def main(argv: list[str]) -> int:
    """Prints one JSON line."""
    parser = tool_parser("python -m tools.versus attention", __doc__)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch's threads")
    parser.add_argument("--rows", type=int, default=16, help="default %(default)s")
    parser.add_argument("--length", type=int, default=256, help="positions of a row; default %(default)s")
    parser.add_argument("--heads", type=int, default=4, help="default %(default)s")
    parser.add_argument("--width", type=int, default=32, help="of a head; default %(default)s")
    parser.add_argument("--turns", type=int, default=9, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=10, help="passes a turn; default %(default)s")
    args = parser.parse_args(argv)
    check_peer(args.peer_python, "numpy", "torch")
    shape = (args.rows, args.length, args.heads, args.width)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as directory:
        q, k, v, out = (rng.normal(size=shape).astype(np.float32) for _ in range(4))
        np.savez(Path(directory) / "given.npz", q=q, k=k, v=v, out=out)
        call = "from tools.versus.attention import attend_ours; attend_ours({!r}, {!r})"
        commands = {"torch": [args.peer_python, "-c", PEER + PEER_TURNS, directory, str(args.threads)]}
        commands |= {name: [sys.executable, "-c", call.format(directory, name)] for name in ("cpu", "xla")}
        sides = alternate(commands, turns=args.turns, count=args.repeats)
        speed = functools.partial(ratio, sides["cpu"]["turns"])
        figures = {
            "shape": shape,
            **{name: spread(side["turns"]) for name, side in sides.items()},
            "times_as_fast_as_torch": speed(sides["torch"]["turns"]),
            "times_as_fast_as_xla": speed(sides["xla"]["turns"]),
            "apart": {name: apart(directory, name) for name in ("cpu", "xla")},
        }
    print(json.dumps(figures))
    return 0
