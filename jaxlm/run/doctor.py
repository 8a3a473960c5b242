"""``jaxlm doctor``: what this machine has, whether jaxlm can run on it, and what to do about what is wrong."""

import dataclasses
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import jaxlm
from jaxlm.run.parsers import Parser

EXTRAS = ("tpu", "cuda", "cuda12", "hf", "clean", "ray", "eval", "tfds", "quant", "dev")
_GIB = 2**30


@dataclasses.dataclass
class Report:
    """Facts by section, and what is wrong: (problem, mend). `fatal` ones stop jaxlm from running at all."""

    facts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    fatal: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    warnings: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def main(argv: list[str]) -> int:
    """``jaxlm doctor [--json]``: exit code 0 where jaxlm is usable (warnings allowed), 1 where it is not."""
    parser = Parser(prog="jaxlm doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(argv)
    report = examine()
    if options.json:
        print(json.dumps(dataclasses.asdict(report) | {"usable": not report.fatal}))
    else:
        print(render(report))
    return 1 if report.fatal else 0


def examine() -> Report:
    """Runs every check; one that fails in an unforeseen way is a finding, not a crash."""
    report = Report()
    checks: tuple[Callable[[Report], None], ...] = (_system, _packages, _extras, _storage, _processes, _devices)
    for check in checks:
        try:
            check(report)
        except Exception as error:
            name = check.__name__.strip("_")
            report.fatal.append((f"{name}: {_one_line(error)}", "mend that, or report it as a fault of jaxlm"))
    return report


def render(report: Report) -> str:
    """The report as text: sections, then what is wrong with its mend, then the verdict."""
    lines: list[str] = []
    for section, facts in report.facts.items():
        width = max(map(len, facts), default=0)
        lines += [section, *(f"  {name:<{width}}  {value}" for name, value in facts.items()), ""]
    problems = [("wrong", *problem) for problem in report.fatal] + [("note ", *note) for note in report.warnings]
    if problems:
        lines += ["what is wrong", *(f"  {kind}: {what}\n         mend: {mend}" for kind, what, mend in problems), ""]
    lines.append("jaxlm cannot run here: see above" if report.fatal else "jaxlm can run here")
    return "\n".join(lines)


def _system(report: Report) -> None:
    memory = _memory_bytes()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report.facts["system"] = {
        "jaxlm": f"{jaxlm.__version__} in {Path(jaxlm.__file__).parent}",
        "python": f"{platform.python_version()} in {sys.prefix}",
        "platform": platform.platform(),
        "cores": cores,
        "memory": f"{memory[0] / _GIB:.1f} GiB free of {memory[1] / _GIB:.1f}" if memory else "unknown",
    }
    report.facts["system"] |= {name: os.environ[name] for name in ("JAX_PLATFORMS", "XLA_FLAGS") if name in os.environ}
    if memory and memory[0] < 2 * _GIB:
        report.warnings.append(
            (f"only {memory[0] / _GIB:.1f} GiB of memory are free", "close other programs, or use small configs")
        )


def _packages(report: Report) -> None:
    wanted = _requirements()
    if wanted is None:
        report.facts["packages"] = {}
        report.warnings.append(
            ("jaxlm runs from a checkout that is not installed", "make install, or pip install -e .")
        )
        return
    pins = _pins()
    facts = report.facts["packages"] = {}
    for need in wanted.get(None, []):
        have = _version(need.name)
        facts[need.name] = have or "missing"
        if have is None:
            report.fatal.append((f"package {need.name} is missing", f"pip install '{need.name}{need.specifier}'"))
        elif not need.specifier.contains(have, prereleases=True):
            report.warnings.append(
                (f"{need.name} {have} is not {need.specifier}", f"pip install '{need.name}{need.specifier}'")
            )
        elif pins.get(_canonical(need.name), have) != have:
            facts[need.name] += f" (tested with {pins[_canonical(need.name)]})"


def _extras(report: Report) -> None:
    wanted = _requirements() or {}
    facts = report.facts["extras"] = {}
    for extra in EXTRAS:
        needs = wanted.get(extra, [])
        missing = [need.name for need in needs if not _is_met(need)]
        if not needs:
            facts[extra] = "unknown: jaxlm is not installed" if not wanted else "not offered"
        else:
            facts[extra] = f"missing {', '.join(missing)}: pip install 'jaxlm[{extra}]'" if missing else "present"


def _storage(report: Report) -> None:
    from jaxlm.run.devices import cache_root

    facts = report.facts["storage"] = {}
    for name, path in (("temporary", Path(tempfile.gettempdir())), ("cache", cache_root()), ("here", Path.cwd())):
        problem = _cannot_write(path)
        existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        facts[name] = f"{path} ({'not writable' if problem else 'writable'}, {free / _GIB:.1f} GiB free)"
        if problem:
            mend = "set JAXLM_CACHE_DIR to one that is" if name == "cache" else "mend its rights, or pass --run-dir"
            report.warnings.append((f"{path} is not writable: {problem}", mend))
        elif free < _GIB:
            report.warnings.append((f"only {free / _GIB:.1f} GiB are free at {path}", "free some disk space"))
    facts["compiled programs"] = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_root() / "xla")


def _processes(report: Report) -> None:
    """What a training command started here would take itself for; joins nothing."""
    from jaxlm.core.errors import UserError
    from jaxlm.run.processes import detect_processes

    facts = report.facts["processes"] = {}
    try:
        launch = detect_processes()
    except UserError as error:
        what, _, mend = str(error).rpartition(": ")
        report.warnings.append((what, mend))
        return
    facts["a run started here"] = "a single process" if launch is None else launch.describe()
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if launch is None and tasks != "1":
        report.warnings.append(
            (f"Slurm gave this job {tasks} tasks, and this command is not one of them", "start the training with srun")
        )


def _devices(report: Report) -> None:
    facts = report.facts["devices"] = {}
    try:
        import jax
        import jax.numpy as jnp
        import numpy as np

        devices = jax.devices()
    except Exception as error:
        report.fatal.append((f"JAX does not start: {_one_line(error)}", "pip install --force-reinstall jax jaxlib"))
        return
    facts["backend"] = f"{jax.default_backend()}, {len(devices)} device(s), {jax.process_count()} process(es)"
    facts["kind"] = ", ".join(sorted({device.device_kind for device in devices}))
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        facts["memory each"] = f"{stats['bytes_limit'] / _GIB:.1f} GiB for JAX"
    _check_unused_accelerators(report, jax.default_backend())

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 256, 256)).astype(np.float32)
    for dtype, tolerance in (("float32", 1e-1), ("bfloat16", 2.0)):
        multiply = jax.jit(lambda x, y: jnp.matmul(x, y, preferred_element_type=jnp.float32))
        x, y = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
        try:
            start = time.perf_counter()
            error = float(np.abs(np.asarray(multiply(x, y)) - a @ b).max())
            compiled = time.perf_counter()
            jax.block_until_ready(multiply(x, y))
            done = time.perf_counter()
        except Exception as failure:
            report.fatal.append((f"a {dtype} matmul fails: {_one_line(failure)}", "check the driver and the JAX build"))
            continue
        facts[f"matmul {dtype}"] = f"{(done - compiled) * 1e6:.0f} us, {compiled - start:.2f} s to compile"
        if not error < tolerance:
            report.fatal.append((f"a {dtype} matmul is wrong by {error:.3g}", "check the driver and XLA_FLAGS"))
    if jax.default_backend() == "gpu":
        facts["cuDNN attention"] = _cudnn_attention(report)
    if jax.default_backend() == "cpu":
        facts["CPU kernels"] = _cpu_kernels(report)


def _cudnn_attention(report: Report) -> str:
    import jax
    import jax.numpy as jnp

    q = jnp.ones((1, 128, 2, 64), jnp.bfloat16)
    try:
        attend = jax.jit(lambda q: jax.nn.dot_product_attention(q, q, q, is_causal=True, implementation="cudnn"))
        jax.block_until_ready(attend(q))
    except Exception as error:
        report.warnings.append(
            (f"cuDNN attention fails: {_one_line(error)}", "set model.attention to xla, or pip install 'jaxlm[cuda]'")
        )
        return "fails"
    return "works"


def _cpu_kernels(report: Report) -> str:
    from jaxlm.nn.kernels import CPU_KERNELS
    from jaxlm.run.cpu_kernels import kernel_missing
    from jaxlm.run.devices import cache_root

    reasons = {name: kernel_missing(name) for name in CPU_KERNELS}
    for name, reason in reasons.items():
        if reason is not None:
            problem = f"{name} layers run at half of their speed or less, {reason}"
            mend = "install a C++17 compiler, or set CXX to one"
            if reason.startswith("[Errno") and _cannot_write(cache_root()):
                mend = "set JAXLM_CACHE_DIR to a directory that can be written"
            report.warnings.append((problem, mend))
    return ", ".join(f"{name} {'built' if reason is None else 'missing'}" for name, reason in reasons.items())


def _check_unused_accelerators(report: Report, backend: str) -> None:
    if backend != "cpu" or os.environ.get("JAX_PLATFORMS") == "cpu":
        return
    if Path("/dev/nvidia0").exists():
        report.warnings.append(("there is an NVIDIA GPU that JAX does not use", "pip install 'jaxlm[cuda]'"))
    if Path("/dev/accel0").exists() and importlib.util.find_spec("libtpu") is None:
        report.warnings.append(("there is a TPU that JAX does not use", "pip install 'jaxlm[tpu]'"))


def _requirements() -> dict[str | None, list[Requirement]] | None:
    """Extra (None = core) -> what the installed jaxlm requires here; None where it is not installed."""
    try:
        lines = metadata.requires("jaxlm") or []
    except metadata.PackageNotFoundError:
        return None
    needs = [Requirement(line) for line in lines]
    found: dict[str | None, list[Requirement]] = {}
    for extra in (None, *EXTRAS):
        for need in needs:
            in_core = need.marker is None or need.marker.evaluate({"extra": ""})
            if in_core if extra is None else not in_core and need.marker and need.marker.evaluate({"extra": extra}):
                found.setdefault(extra, []).append(need)
    return found


def _is_met(need: Requirement) -> bool:
    """Installed, in a version that fits, with what its own extras ask for (``jax[cuda13]`` is more than jax)."""
    have = _version(need.name)
    if have is None or not need.specifier.contains(have, prereleases=True):
        return False
    inner = [Requirement(line) for line in metadata.requires(need.name) or []]
    asked = [i for i in inner if i.marker and any(i.marker.evaluate({"extra": extra}) for extra in need.extras)]
    return all(_version(i.name) is not None for i in asked)


def _pins() -> dict[str, str]:
    """Package -> version in the checkout's constraints file; empty for an installed wheel."""
    path = Path(jaxlm.__file__).parent.parent / "constraints.txt"
    if not path.exists():
        return {}
    lines = (line.split("#")[0].split(";")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {_canonical(name): version for name, equals, version in (line.partition("==") for line in lines) if equals}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _canonical(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _memory_bytes() -> tuple[int, int] | None:
    """(free, total) of the machine, or of the container where that is less."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free, total
    return min(free, limit - used), min(total, limit)


def _cannot_write(path: Path) -> str | None:
    """Why a file cannot be written there, or None. A directory that is not there yet is made and removed again."""
    made = [parent for parent in (path, *path.absolute().parents) if not parent.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for parent in made:
            if parent.exists():
                parent.rmdir()
    return None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
