"""The shape of the house, held by reading the source: floors, purity, where linen may stand, no code in data files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent

FLOORS = {
    "core": 0,
    "text": 1,
    "nn": 1,
    "losses": 1,
    "optim": 1,
    "sharding": 1,
    "scaling": 1,
    "models": 2,
    "data": 2,
    "generate": 3,
    "plan": 3,
    "train": 4,
    "evals": 5,
    "io": 6,
    "run": 7,
}
"""A package imports only from lower floors and from itself."""

NEIGHBOURS: dict[tuple[str, str], str] = {}
"""The arrows between packages of one floor: (importer, imported) -> why. Never both ways; none so far."""

ABOVE_ALL = {"jaxlm", "jaxlm.__main__"}
"""The front door: opens run/ lazily."""

EFFECTS_FROM = 6
"""Packages from this floor on may touch the world."""

IMPURE_MODULES = {
    "builtins", "datetime", "fcntl", "getpass", "glob", "importlib", "logging", "multiprocessing", "os", "random",
    "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "warnings",
    "grain", "matplotlib", "orbax", "pyarrow", "rich", "sentencepiece", "tensorboardX", "tensorflow_datasets", "tqdm",
    "tyro",
}  # fmt: skip

IMPURE_CALLS = {
    "open", "print", "input", "exec", "eval", "breakpoint", "__import__",
    "jax.devices", "jax.local_devices", "jax.device_count", "jax.local_device_count", "jax.process_index",
    "jax.process_count", "jax.default_backend", "jax.config.update", "jax.debug.print", "jax.device_get",
    "jax.block_until_ready", "jax.set_mesh",
    "numpy.load", "numpy.save", "numpy.savez", "numpy.fromfile", "numpy.memmap", "numpy.loadtxt", "numpy.savetxt",
    "pathlib.Path.cwd", "pathlib.Path.home",
}  # fmt: skip

IMPURE_METHODS = {
    "read_text", "write_text", "read_bytes", "write_bytes", "mkdir", "rmdir", "unlink", "touch", "iterdir", "glob",
    "rglob", "exists", "is_file", "is_dir", "tofile",
}  # fmt: skip
"""Methods that only paths and arrays-to-files have."""

CODE_IN_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}

GLOBAL_RANDOMNESS = {
    "seed",
    "rand",
    "randn",
    "randint",
    "random",
    "choice",
    "shuffle",
    "permutation",
    "normal",
    "uniform",
}

MAX_LINES = {"jaxlm": 400, "configs": 400, "tools": 400, "tests": 400, "experiments": 150}


class Module:
    """One parsed file: its dotted name and what its names stand for."""

    def __init__(self, path: Path, source: str | None = None):
        self.path = path
        parts = path.relative_to(REPO).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.tree = ast.parse(path.read_text(encoding="utf-8") if source is None else source, filename=str(path))
        self.aliases: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self.aliases[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.aliases[alias.asname or alias.name] = f"{self.source(node)}.{alias.name}"

    def source(self, node: ast.ImportFrom) -> str:
        """The absolute module of a ``from ... import``."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        base = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*base, node.module] if node.module else base)

    @property
    def package(self) -> str | None:
        """``jaxlm.io.loader`` -> ``io``; None for what is no package of jaxlm."""
        parts = self.name.split(".")
        return parts[1] if parts[0] == "jaxlm" and len(parts) > 1 and parts[1] in FLOORS else None

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and absolute dotted name of all that is imported, lazily too; ``from a import b`` gives ``a.b``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.lineno, f"{self.source(node)}.{alias.name}") for alias in node.names)

    def full_name(self, node: ast.expr) -> str:
        """``np.load`` -> ``numpy.load``, by this file's imports; "" for what is no plain dotted name."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self.aliases.get(node.id, node.id), *reversed(parts)])

    def at(self, line: int, what: str) -> str:
        return f"{self.path.relative_to(REPO)}:{line}: {what}"


def _modules(*folders: str) -> list[Module]:
    return [Module(path) for folder in folders for path in sorted((REPO / folder).rglob("*.py"))]


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return _modules("jaxlm")


@pytest.fixture(scope="module")
def everything() -> list[Module]:
    return _modules("jaxlm", "configs", "experiments", "tools", "tests")


def _report(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


def test_every_package_has_a_floor():
    packages = {path.parent.name for path in (REPO / "jaxlm").glob("*/__init__.py")}
    assert packages <= set(FLOORS), f"give them a floor here and in docs/architecture.md: {packages - set(FLOORS)}"
    bare = {path.name for path in (REPO / "jaxlm").iterdir() if path.is_dir() and any(path.glob("*.py"))} - packages
    assert not bare, f"no __init__.py in {bare}"


def test_imports_go_down(modules):
    found = []
    for module in modules:
        if module.name in ABOVE_ALL or module.package is None:
            continue
        floor = FLOORS[module.package]
        for line, name in module.imports():
            parts = name.split(".")
            if parts[0] in ("configs", "experiments", "tools", "tests"):
                found.append(module.at(line, f"the package imports {name}"))
            if parts[0] != "jaxlm" or len(parts) < 2 or parts[1] in (module.package, "__version__"):
                continue
            if parts[1] not in FLOORS:
                found.append(module.at(line, f"imports the front door, {name}"))
            elif FLOORS[parts[1]] > floor:
                found.append(module.at(line, f"{module.package} (F{floor}) imports up: {name} (F{FLOORS[parts[1]]})"))
            elif FLOORS[parts[1]] == floor and (module.package, parts[1]) not in NEIGHBOURS:
                found.append(module.at(line, f"{module.package} imports its neighbour on F{floor}: {name}"))
    _report(found)


def test_neighbours_are_real_and_one_way(modules):
    arrows = {(m.package, name.split(".")[1]) for m in modules for _, name in m.imports() if name.startswith("jaxlm.")}
    for importer, imported in NEIGHBOURS:
        assert FLOORS[importer] == FLOORS[imported]
        assert (imported, importer) not in NEIGHBOURS, f"{importer} and {imported} go in a circle"
        assert (importer, imported) in arrows, f"{importer} -> {imported} is used no more: take it off the list"


def test_no_circles_between_modules(modules):
    names = {module.name for module in modules}
    graph: dict[str, set[str]] = {}
    for module in modules:
        if module.name in ABOVE_ALL:
            continue
        targets = (name if name in names else name.rpartition(".")[0] for _, name in module.imports())
        graph[module.name] = {t for t in targets if t in names and t != module.name and t not in ABOVE_ALL}

    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "a circle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for target in sorted(graph.get(name, ())):
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def impurities(module: Module) -> Iterator[str]:
    """What a module does that floors 0 to 5 may not."""
    for line, name in module.imports():
        if name.split(".")[0] in IMPURE_MODULES:
            yield module.at(line, f"imports {name}")
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = module.full_name(node.func)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        drawn = name.startswith("numpy.random.") and name.rpartition(".")[2] in GLOBAL_RANDOMNESS
        unseeded = name == "numpy.random.default_rng" and not node.args and not node.keywords
        takes_all = name == "jax.make_mesh" and "devices" not in {keyword.arg for keyword in node.keywords}
        if name in IMPURE_CALLS or method in IMPURE_METHODS or drawn or unseeded or takes_all:
            yield module.at(node.lineno, f"calls {name or method}")


def test_lower_floors_are_pure(modules):
    """Floors 0 to 5 open no file, print nothing, read no clock, environment or devices, use no global randomness."""
    below = (module for module in modules if module.package is not None and FLOORS[module.package] < EFFECTS_FROM)
    _report([line for module in below for line in impurities(module)])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os", "imports os"),
        ("def f():\n    from time import monotonic", "imports time.monotonic"),
        ("print(1)", "calls print"),
        ("import jax as j\nj.devices()", "calls jax.devices"),
        ("from jax import make_mesh\nmake_mesh((1,), ('data',))", "calls jax.make_mesh"),
        ("import numpy as np\nnp.load('a.npy')", "calls numpy.load"),
        ("import numpy as np\nnp.random.default_rng()", "calls numpy.random.default_rng"),
        ("(root / 'a').read_text()", "calls read_text"),
        ("import jax, numpy as np\njax.make_mesh((1,), ('data',), devices=d)\nnp.random.default_rng(3)", None),
    ],
)
def test_impurities_are_seen(source, found):
    seen = list(impurities(Module(REPO / "jaxlm" / "core" / "planted.py", source)))
    assert [line.partition(": ")[2] for line in seen] == ([found] if found else [])


def test_nothing_read_can_run_code(everything):
    """No pickle and its kin, no np.load(allow_pickle=True), no torch.load."""
    found = []
    for module in everything:
        found += [module.at(n, f"imports {name}") for n, name in module.imports() if name.split(".")[0] in CODE_IN_DATA]
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = module.full_name(node.func)
            if name in ("torch.load", "pandas.read_pickle"):
                found.append(module.at(node.lineno, f"calls {name}"))
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not off:
                    found.append(module.at(node.lineno, f"{name} with allow_pickle"))
    _report(found)


def test_linen_stays_in_its_rooms(everything):
    """flax.linen in nn/ and models/ (and their tests) only; nnx nowhere."""
    found = []
    for module in everything:
        room = module.path.relative_to(REPO).parts[1]
        for line, name in module.imports():
            if name.startswith("flax.nnx") or (name.startswith("flax.linen") and room not in ("nn", "models")):
                found.append(module.at(line, f"imports {name}"))
    _report(found)


def test_experiments_and_configs_are_thin(everything):
    """Configs import jaxlm and the standard library's dataclasses; experiments import jaxlm.run and sys."""
    allowed = {"configs": {"jaxlm", "configs", "dataclasses", "typing"}, "experiments": {"jaxlm", "sys"}}
    found = []
    for module in everything:
        folder = module.path.relative_to(REPO).parts[0]
        if folder in allowed:
            imports = [(n, name) for n, name in module.imports() if name.split(".")[0] not in allowed[folder]]
            found += [module.at(n, f"imports {name}") for n, name in imports]
        if folder == "experiments":
            found += [
                module.at(n, f"imports {x}") for n, x in module.imports() if not x.startswith(("jaxlm.run.", "sys"))
            ]
    _report(found)


def test_files_are_short(everything):
    found = []
    for module in everything:
        lines = len(module.path.read_text(encoding="utf-8").splitlines())
        most = MAX_LINES[module.path.relative_to(REPO).parts[0]]
        if lines > most:
            found.append(module.at(lines, f"{lines} lines, at most {most}: split it"))
    _report(found)


def test_tests_have_unique_names():
    """importmode=importlib allows doubles, people searching for a file do not."""
    names = [path.name for path in (REPO / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
