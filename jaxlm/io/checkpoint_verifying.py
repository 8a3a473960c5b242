"""Which steps of a directory are as they were saved. Each is looked at once, and remembered."""

import functools
from collections.abc import Callable
from typing import NoReturn

from etils import epath

from jaxlm.core.errors import UserError
from jaxlm.io import checkpoint_steps as files
from jaxlm.io.agree import exchange, num_processes, on_every_process, on_first_process, process_id
from jaxlm.io.checkpoint_reading import refusing
from jaxlm.io.checksums import find_damage, is_sealed

TOPIC = "checkpoints"


class Verifier:
    """Looks at the steps of a directory.

    Args:
      directory: of the steps.
      steps: lists those that are there, ascending.
      say: hears of a step that cannot be verified.
    """

    def __init__(self, directory: epath.Path, steps: Callable[[], list[int]], say: Callable[[str], None]):
        self._directory, self._steps, self._say = directory, steps, say
        self.faults: dict[int, list[str]] = {}
        """What is wrong with each step that was looked at; the first process's is what counts."""

    def look(self, step: int) -> list[str]:
        """What is wrong with a step, one line for each file; empty = intact. Not collective."""
        if step in self.faults:
            return self.faults[step]
        path = self._path(step)
        with refusing(path):
            if is_sealed(path) or not files.is_old(path):  # what was retired since it was listed is neither
                self.faults[step] = find_damage(path)
            else:
                self._say(
                    f"checkpoint {step} of {self._directory} is of an older format without checksums: not verified"
                )
                self.faults[step] = []
        return self.faults[step]

    def forget(self, step: int) -> None:
        """Another step may come to lie there."""
        self.faults.pop(step, None)

    def check(self, step: int) -> int:
        """The step. Raises UserError where it is not there, or damaged. Not collective."""
        steps = self._steps()
        if not steps:
            self._refuse_empty()
        if step not in steps:
            raise UserError(f"no checkpoint for step {step} in {self._directory}: there are {listing(steps)}")
        if faults := self.look(step):
            intact = [other for other in steps if not self.look(other)]
            mend = f", or name another step: intact are {listing(intact)}" if intact else "; no other step is intact"
            raise UserError(
                f"checkpoint {step} of {self._directory} is damaged ({brief(faults)}): remove {self._path(step)}{mend}"
            )
        return step

    def newest_intact(self) -> int:
        """The newest step that is intact, the same in all processes.

        Each hashes its share of the files: for one alone a terabyte takes minutes, and the others would wait. Raises
        UserError where there is no step, or all are damaged.
        """
        while (step := on_first_process(TOPIC, self._to_share)) is not None:
            found = exchange(TOPIC, on_every_process(TOPIC, functools.partial(self._look_at_share, step)))
            self.faults[step] = sorted({fault for faults in found for fault in faults})
        return on_first_process(TOPIC, self._first_intact)

    def _look_at_share(self, step: int) -> list[str]:
        path = self._path(step)
        with refusing(path):
            return find_damage(path, share=process_id(), shares=num_processes())

    def _to_share(self) -> int | None:
        """The step to look at next; None where one is known to be intact, or there are no shares."""
        if num_processes() == 1:
            return None
        for step in reversed(self._steps()):
            if step not in self.faults:
                return step if is_sealed(self._path(step)) else None
            if not self.faults[step]:
                return None
        return None

    def _first_intact(self) -> int:
        while True:
            steps = self._steps()
            if not steps:
                self._refuse_empty()
            for step in reversed(steps):
                if not self.look(step):
                    return step
            if not (gone := set(steps) - set(self._steps())):
                break
            for step in gone:  # retired by its trainer while it was read here
                del self.faults[step]
        found = ", ".join(f"{step} ({brief(self.faults[step])})" for step in reversed(steps))
        raise UserError(
            f"all checkpoints of {self._directory} are damaged: {found}: bring them back from a copy, or train in "
            "another run directory; nothing was removed"
        )

    def _refuse_empty(self) -> NoReturn:
        raise UserError(f"no checkpoint in {self._directory}: train first, or name another run directory")

    def _path(self, step: int) -> epath.Path:
        return self._directory / str(step)


def brief(faults: list[str]) -> str:
    """The first, and how many more."""
    return faults[0] if len(faults) == 1 else f"{faults[0]}, and {len(faults) - 1} more"


def listing(steps: list[int], most: int = 8) -> str:
    """The newest of them."""
    text = ", ".join(map(str, steps[-most:]))
    return text if len(steps) <= most else f"..., {text}"
