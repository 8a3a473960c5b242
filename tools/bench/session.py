"""What a session on a GPU is for, in the order of its worth, within a budget of seconds.

Each step is a process of its own, so that one which runs out of memory or time costs no other; rows are printed and
written to ``$OUT/bench.json`` as they come.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.io.writing import check_new_file
from tools.bench.decode import GPU_CASES, time_decode
from tools.bench.decode import Case as DecodeCase
from tools.bench.measuring import Row
from tools.bench.train import GPT2_CASE, LLAMA_CASE, Case, time_step, versions


class Step(NamedTuple):
    """One process of the session."""

    name: str
    command: list[str]
    expected: float
    """Seconds that it is thought to take: it is left out where fewer remain, and ended after twice as many."""


def _measured() -> dict[str, DecodeCase | Case]:
    """Label -> what is measured under it."""
    train = [GPT2_CASE, *versions(GPT2_CASE), LLAMA_CASE, *versions(LLAMA_CASE)]
    return {case.label: case for case in (*train, *GPU_CASES)}


def make_plan(nanogpt: str | None) -> list[Step]:
    """The steps, the most wanted first."""
    # GPT-2 beside nanoGPT; a row by one kernel; 1.3 B; decoding; GPT-2; sections; then one change at a time.
    wanted: list[Any] = [LLAMA_CASE, *GPU_CASES[::2], GPT2_CASE, *GPU_CASES[1::2]]
    wanted += [*versions(GPT2_CASE), *versions(LLAMA_CASE)]
    command = [sys.executable, "-m"]
    steps = [Step(case.label, [*command, "tools.bench.session", case.label, "4"], 45.0) for case in wanted]
    sections = (("kernels", "3", 60.0), ("recurrent", "5", 60.0), ("likelihood", "2", 150.0))
    place = 2 + len(GPU_CASES[::2])
    steps[place:place] = [Step(name, [*command, "tools.bench", name, "--repeats", n], s) for name, n, s in sections]
    steps.insert(0, Step("decode_kernel", [*command, "tools.bench", "decode_kernel", "--repeats", "7"], 70.0))
    if nanogpt is not None:
        versus = [*command, "tools.versus", "nanogpt", nanogpt, "--model", "gpt2", "--turns", "5", "--steps", "5"]
        steps.insert(0, Step("versus nanogpt", versus, 60.0))
    return steps


def run_session(seconds: float, nanogpt: str | None) -> int:
    """Runs the plan; prints each row as it comes and the whole table as one JSON line."""
    out = Path(os.environ.get("OUT", ".")) / "bench.json"
    check_new_file(out)
    end, table = time.monotonic() + seconds, []
    for step in make_plan(nanogpt):
        left = end - time.monotonic()
        row: Row = {"name": step.name}
        if left < step.expected:
            row["left_out"] = f"{left:.0f} s left"
        else:
            row |= _run(step, min(left, 2 * step.expected))
        table.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        out.write_text(json.dumps(table, indent=1), encoding="utf-8")
    print(json.dumps({"rows": table}))
    return 0


def _run(step: Step, seconds: float) -> Row:
    """What a process printed as its last line, or how it failed."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
    if "versus" in step.command[2]:  # two processes share the device's memory
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    try:
        done = subprocess.run(step.command, capture_output=True, text=True, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired as error:
        said = error.stderr or b""  # bytes, whatever was asked for
        so_far = (said if isinstance(said, str) else said.decode("utf-8", "replace")).strip().splitlines()
        return {"failed": f"not done after {seconds:.0f} s", "so_far": so_far[-20:]}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(argv: list[str]) -> int:
    """One label: measures it, prints its row."""
    import jax

    case = _measured()[argv[0]]
    repeats = int(argv[1]) if len(argv) > 1 else 5
    if isinstance(case, Case):
        row = time_step(case, repeats, steps=1 if jax.default_backend() == "cpu" else case.steps)
    else:
        row = time_decode(case, repeats)
    print(json.dumps(row | {"device": jax.devices()[0].device_kind, "jax": jax.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
