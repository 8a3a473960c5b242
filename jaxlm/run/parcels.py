"""How work gets to another process: pickled, with the config files that define parts of it.

A config file is no module that another process could import by name, and its neighbours lie beside it.
"""

import dataclasses
import importlib.util
import os
import sys
from multiprocessing.reduction import ForkingPickler  # from process to process, never a file format
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.run.config_files import MODULE_PREFIX

_PICKLER: Any = ForkingPickler


@dataclasses.dataclass(frozen=True)
class Parcel:
    """Something ready to be sent."""

    content: bytes = dataclasses.field(repr=False)
    directory: str
    """Where the sender was started: relative paths mean this."""
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


def _load(name: str, file: str) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {file} is gone: it defines a part of this work")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
