"""What a run directory tells of a run that has begun: whether it has parameters of its own, and of what it was made."""

import dataclasses
from typing import Any

from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.run_dir import RunDir


def named_steps(config: Any) -> list[tuple[tuple, tuple]]:
    """Where a config names a run, and where the step of its checkpoint stands: (path, path) from the config's top."""
    named: list[tuple[tuple, tuple]] = [
        (("base",), ("base_step",)),
        (("reference",), ("reference_step",)),
        (("distil", "teacher"), ("distil", "step")),
    ]
    rewards = value_at(config, ("rewards",)) or ()
    named += [(("rewards", i, "run"), ("rewards", i, "run_step")) for i in range(len(rewards))]
    return [(run, step) for run, step in named if value_at(config, run) is not None]


def value_at(tree: Any, path: tuple) -> Any:
    """What stands there in a config or in its JSON values; None where there is no such place."""
    for name in path:
        if isinstance(name, int) or isinstance(tree, dict):
            there = name < len(tree) if isinstance(name, int) else name in tree
            tree = tree[name] if there else None
        else:
            tree = getattr(tree, name, None)
    return tree


def _replaced(config: Any, path: tuple, value: Any) -> Any:
    """The config with another value there."""
    name, *rest = path
    if rest:
        value = _replaced(value_at(config, (name,)), tuple(rest), value)
    if isinstance(name, int):
        return (*config[:name], value, *config[name + 1 :])
    return dataclasses.replace(config, **{name: value})


def dotted(path: tuple) -> str:
    """As an option names it."""
    return ".".join(map(str, path))


class Begun:
    """What a run directory tells of a run that has begun."""

    def __init__(self, directory: RunDir):
        self._config = directory.read_config()["config"] if directory.config_path.exists() else {}
        self.saved = False
        """Whether it has a checkpoint: the base's parameters are not needed any more."""
        if directory.checkpoints_path.is_dir():
            with Checkpointer(directory.checkpoints_path, read_only=True) as checkpointer:
                self.saved = bool(checkpointer.steps())

    def fill(self, config: Any) -> Any:
        """``base_step`` and its like as the run wrote them down when it began: those may have been trained on since."""
        if not self.saved:
            return config
        for run, step in named_steps(config):
            if value_at(config, run) == value_at(self._config, run) and value_at(config, step) is None:
                config = _replaced(config, step, value_at(self._config, step))
        return config
