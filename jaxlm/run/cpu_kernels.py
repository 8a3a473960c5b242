"""Our kernels for CPUs: their C++ source is built once a machine, kept in the cache, and made known to XLA.

Needs a C++17 compiler ($CXX, c++, g++ or clang++). Without one, and after any failure, XLA's own programs serve.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax

from jaxlm.io.agree import num_processes
from jaxlm.nn.cpu_attention import BACKWARD, FORWARD
from jaxlm.nn.kernels import CpuKernel
from jaxlm.nn.recurrent import CELLS
from jaxlm.nn.recurrent_kernel import OUTER, target
from jaxlm.run.devices import cache_root

SOURCES = Path(__file__).parent / "kernels"
BUILD_SECONDS = 120
"""A compiler that takes longer is given up."""

# Contraction: products are added to sums unrounded, in every loop alike, so that a row's result does not depend on
# which of them it goes through.
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-shared")


class _Built(NamedTuple):
    """What a source file holds."""

    calls: dict[str, str]
    """XLA's names for its functions -> their symbols."""
    without: str
    """What is said where it cannot be had."""


_KERNELS: dict[CpuKernel, _Built] = {
    "recurrent": _Built(
        {target(cell, way): f"{cell}_{way}" for cell in CELLS for way in ("forward", "backward")} | {OUTER: "outer"},
        "recurrent layers run as XLA's loops, at about half the speed",
    ),
    "attention": _Built(
        {FORWARD: "attention_forward", BACKWARD: "attention_backward"},
        "attention runs as XLA's products and softmax, at a third of the speed or less",
    ),
}


def kernel_missing(name: CpuKernel) -> str | None:
    """Builds, loads and registers a kernel: None where it is ready, else why it is not (`nn.kernels.KernelMissing`).

    A failure is said once, on stderr. Several processes run one program, where each would decide for itself: none uses
    it.
    """
    return "several processes run one program" if num_processes() > 1 else _kernel_missing(name)


@functools.cache
def _kernel_missing(name: CpuKernel) -> str | None:
    try:
        library = _load(SOURCES / f"{name}.cc")
        for call, symbol in _KERNELS[name].calls.items():
            jax.ffi.register_ffi_target(call, jax.ffi.pycapsule(getattr(library, symbol)), platform="cpu")
    # RuntimeError: an XLA that speaks another FFI
    except (OSError, subprocess.SubprocessError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        print(f"{_KERNELS[name].without}: {reason}", file=sys.stderr, flush=True)
        return reason
    return None


def _load(source: Path) -> ctypes.CDLL:
    """The library of a source file, built where the cache has none. Raises OSError or SubprocessError."""
    compiler = _compiler()
    command = [*compiler, *_FLAGS, _machine_flag(), f"-I{jax.ffi.include_dir()}"]
    library = cache_root() / "kernels" / f"{source.stem}-{_identity(source, command)}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        # Built beside it and renamed: processes that start together each build one, and none loads a half.
        with tempfile.TemporaryDirectory(dir=library.parent) as directory:
            built = Path(directory) / library.name
            code, said = _run([*command, str(source), "-o", str(built)])
            if code:
                first = next((line for line in said.splitlines() if "error" in line), f"code {code}")
                raise OSError(f"{compiler[0]} cannot build {source.name}: {first}")
            built.replace(library)
    return ctypes.CDLL(str(library))


def _run(command: list[str]) -> tuple[int, str]:
    """(exit code, stderr) of a compiler. Raises SubprocessError where it takes too long, and ends all it started."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            said = process.communicate(timeout=BUILD_SECONDS)[1]
        except BaseException:  # an interrupt, too, does not reach another session
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said


def _compiler() -> list[str]:
    """Raises OSError where there is none."""
    asked = shlex.split(os.environ.get("CXX", ""))
    for command in [asked] if asked else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    raise OSError(f"no C++ compiler ({asked[0] if asked else 'c++, g++ or clang++'}) is installed")


def _machine_flag() -> str:
    return "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"


def _identity(source: Path, command: list[str]) -> str:
    """Of a build: source and headers, the command with its compiler's version, and the processor that it is for."""
    version = subprocess.run([command[0], "--version"], capture_output=True, timeout=BUILD_SECONDS, check=True).stdout
    headers = (*source.parent.glob("*.h"), *Path(jax.ffi.include_dir()).rglob("*.h"))
    parts = [path.read_bytes() for path in (source, *sorted(headers))]
    parts += [" ".join(command).encode(), version, _processor().encode()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:24]


def _processor() -> str:
    """What tells processors apart that run other instructions: homes are shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    kept = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    return "\n".join(sorted({line for line in lines if line.startswith(kept)}))
