"""How a stage gets to another process: pickled, with the config files that define some of its steps.

A config file is no module that another process could import by name, and its neighbours lie beside it.
"""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler  # from process to process, never a file format
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.run.config_files import MODULE_PREFIX
from jaxlm.run.corpus.workspace import Stage, Workspace

_PICKLER: Any = ForkingPickler


@dataclasses.dataclass(frozen=True)
class Parcel:
    """Something, a stage and its workspace say, ready to be sent."""

    content: bytes = dataclasses.field(repr=False)
    directory: str
    """Where the build was started: relative paths of sources mean this."""
    paths: tuple[str, ...]
    """Where modules are looked for, beside the receiver's own places."""
    modules: tuple[tuple[str, str], ...]
    """(name, file) of the config files that the content names."""

    def open(self) -> Any:
        """What was sent, in this process; goes to the sender's directory."""
        os.chdir(self.directory)
        sys.path += [path for path in self.paths if path not in sys.path]
        for name, file in self.modules:
            if name not in sys.modules:
                _load(name, file)
        return _PICKLER.loads(self.content)


def pack(stage: Stage, workspace: Workspace) -> Parcel:
    """A stage. Raises UserError where something in it, a lambda as a score, cannot be sent."""
    mend = "define its steps and scores at the top level of the config file, not inside a function, or set "
    return seal((stage, workspace), f"stage {stage.name}", mend + "executor.workers=1")


def seal(what: Any, name: str, mend: str) -> Parcel:
    """Whatever can be pickled. Raises UserError, with its name and the mend, for what cannot."""
    try:
        content = bytes(_PICKLER.dumps(what))
    except Exception as error:  # whatever stands in the way of it
        raise UserError(f"{name} cannot be sent to other processes ({error}): {mend}") from error
    loaded = {name: module.__file__ for name, module in sys.modules.items() if name.startswith(MODULE_PREFIX)}
    files = {name: file for name, file in loaded.items() if file}
    folders = dict.fromkeys(str(Path(file).absolute().parent) for file in files.values())
    named = tuple((name, str(Path(file).absolute())) for name, file in files.items() if name.encode() in content)
    return Parcel(content, os.getcwd(), (os.getcwd(), *folders), named)


def check_travels(stages: Sequence[Stage], workspace: Workspace) -> None:
    """Raises UserError where a stage cannot be sent."""
    for stage in stages:
        pack(stage, workspace)


def _load(name: str, file: str) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {file} is gone: it defines steps of this build")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
