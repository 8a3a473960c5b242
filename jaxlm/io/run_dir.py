"""A run directory: its layout, its config, the lock that one command holds on it, and the mark of a finished run."""

import fcntl
import json
import math
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.io.config_json import config_to_dict, diff_configs, diff_fields, with_added_fields

PINNED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
"""The packages whose versions a run writes down."""


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""``gs://bucket``, and ``gs:/bucket`` as a Path writes it: else a folder of the name ``gs:`` were made."""


def text_of(run_config: dict[str, Any]) -> dict[str, Any]:
    """How plain text begins and lies in rows for the model of a run: its ``data``, or the ``prompts`` of one that has
    learnt from rewards."""
    return run_config.get("data") or run_config.get("prompts") or {}


class RunDir:
    """The files of one run, by name. Making one touches nothing. Raises UserError for an address (``gs://...``)."""

    def __init__(self, path: str | Path):
        if _ADDRESS.match(str(path)):
            raise UserError(
                f"run directory {path} is an address: mount what lies there (docs/start_tpu_vm.md) and name the folder"
            )
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.samples_path = self.path / "samples.jsonl"
        self.incidents_path = self.path / "incidents.json"
        self.supervisor_path = self.path / "supervisor.jsonl"
        self.goodput_path = self.path / "goodput.jsonl"
        self.checkpoints_path = self.path / "checkpoints"
        self.tensorboard_path = self.path / "tensorboard"
        self.tokenizer_path = self.path / "tokenizer"
        self.chat_template_path = self.path / "chat_template.jinja"
        self.profile_path = self.path / "profile"
        self.report_path = self.path / "report.html"
        self.done_path = self.path / "done.json"
        self._lock_path = self.path / "lock"
        self._lock_fd: int | None = None
        self._since = time.monotonic()

    @property
    def seconds_open(self) -> float:
        """Since this object was made: a command makes it first of all."""
        return time.monotonic() - self._since

    def lock(self) -> None:
        """Makes the directory and takes it for this process, until `unlock` or the end of the process however it comes.

        Raises UserError where another command holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot write to run directory {self.path}: {error.strerror}: pass --run-dir") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 200).decode("utf-8", "replace").strip()
            os.close(fd)
            raise UserError(
                f"run directory {self.path} is in use by {holder or 'another command'}: wait for it or pass --run-dir"
            ) from error
        os.ftruncate(fd, 0)
        os.write(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._lock_fd = fd
        # A forked child (a data reader) shares the lock and would hold it past this process's death.
        os.register_at_fork(after_in_child=self._drop_lock)

    def unlock(self) -> None:
        """Gives the directory back."""
        if self._lock_fd is not None:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
        self._drop_lock()

    def _drop_lock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> "RunDir":
        self.lock()
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()

    def write_config(self, config: Any, *, may_change: Sequence[str] = (), **facts: Any) -> bool:
        """Writes config.json, or compares where there is one; True where the run was there before.

        Args:
          config: the resolved config dataclass.
          may_change: dotted names of the fields, or groups of fields, that alter no result: a resumed run may have
            others.
          facts: further entries (device). They describe the latest start and are not compared.

        Raises UserError, the fields shown, where the directory holds another config.
        """
        record = {"config": config_to_dict(config), **environment(), **facts}
        if not self.config_path.exists():
            if self.checkpoints_path.exists():
                raise UserError(f"{self.path} has checkpoints but no config.json: pass another --run-dir")
            write_json(self.config_path, record | {"started": _now()})
            return False
        saved = self.read_config()
        self.check_config(config, may_change=may_change)
        write_json(self.config_path, saved | record | {"resumed": [*saved.get("resumed", []), _now()]})
        return True

    def check_config(self, config: Any, *, may_change: Sequence[str] = ()) -> None:
        """Raises UserError where the directory holds another config; writes nothing (for ``--dry-run``)."""
        if not self.config_path.exists():
            return
        old, new = with_added_fields(config, self.read_config()["config"]), config_to_dict(config)
        fixed = [name for name in diff_fields(old, new) if not any(_covers(free, name) for free in may_change)]
        shown = [line for line in diff_configs(old, new) if line.split(": ", 1)[0] in fixed]
        if shown:
            more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
            raise UserError(
                f"run directory {self.path} holds another config ({', '.join(shown[:6])}{more}): "
                "pass another --run-dir, or the values it was started with"
            )

    def require(self, **facts: Any) -> None:
        """Writes facts found after the start (``dataset_key``) into config.json; on resume they must be the same.

        Raises UserError where they are not: the run would go on with other data under the same name.
        """
        record = self.read_config()
        for name, value in facts.items():
            if name in record and record[name] != value:
                raise UserError(
                    f"{name}={value} differs from {record[name]}, with which {self.path} was started (Python was "
                    f"{record.get('versions', {}).get('python')}): mend the input or pass another --run-dir"
                )
        write_json(self.config_path, record | facts)

    def read_config(self) -> dict[str, Any]:
        """config.json as a dict: ``config``, ``versions``, ``git_commit``, ... Raises UserError where it is no run."""
        try:
            record = json.loads(self.config_path.read_text(encoding="utf-8"))
            if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
                raise ValueError("no config in it")
        except FileNotFoundError as error:
            raise UserError(f"{self.path} is not a run directory: it has no config.json") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{self.config_path} cannot be read: {error}") from error
        return record

    def mark_done(self, final: dict[str, Any]) -> None:
        """Marks the run as finished, with its final figures."""
        write_json(self.done_path, final)

    def final_figures(self) -> dict[str, Any] | None:
        """What `mark_done` wrote, or None where the run has not finished. Raises UserError where it is damaged."""
        if not self.done_path.exists():
            return None
        try:
            final = json.loads(self.done_path.read_text(encoding="utf-8"))
            if not isinstance(final, dict):
                raise ValueError("no figures in it")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.done_path} cannot be read: {error}: remove it, and the same command ends the run again"
            ) from error
        return final


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all: a reader, or a crash, never meets half of it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def json_ready(value: Any, infinite: Mapping[float, str] = MappingProxyType({})) -> Any:
    """The same, infinite numbers (as ``infinite`` writes them) and NaN as None: JSON has none of them."""
    if isinstance(value, Mapping):
        return {name: json_ready(item, infinite) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item, infinite) for item in value]
    return infinite.get(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """Versions, git commit, host and command line of this process; imports nothing heavy and starts no device."""
    return {
        "versions": {"jaxlm": jaxlm.__version__, "python": platform.python_version(), **package_versions(PINNED)},
        "git_commit": git_commit(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "command": sys.argv,
    }


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Name -> installed version, without those that are missing."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the checkout that jaxlm runs from (else of the working directory), ``-dirty`` where edited."""
    home = Path(jaxlm.__file__).parent
    where = Path.cwd() if "site-packages" in home.parts else home

    def git(*args: str) -> str | None:
        try:
            # Without its lock: other processes of this run ask at the same moment, and people commit meanwhile.
            command = ["git", "--no-optional-locks", "-C", str(where), *args]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return None
    return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit


def _covers(group: str, name: str) -> bool:
    return name == group or name.startswith(f"{group}.")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
