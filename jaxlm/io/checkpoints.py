"""Checkpoints: one Orbax step holds the state and a JSON record of where the run stood.

Saving is asynchronous: `Checkpointer.save` returns once the arrays stand in host memory (the device buffers may then be
donated), and threads do the rest: Orbax writes the step under a temporary name and renames it when whole, then its
files are hashed and the checksums written beside them. A step counts from then on. Older ones go after that, so a
process killed at any moment leaves what counted before, or more. Every file is verified before it is restored.
"""

import functools
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath

from jaxlm.core.errors import UserError, is_full_disk
from jaxlm.core.types import Params, PyTree
from jaxlm.io import checkpoint_steps as files
from jaxlm.io.agree import all_agree, num_processes, on_first_process, process_id
from jaxlm.io.checkpoint_format import pack_meta
from jaxlm.io.checkpoint_policy import CheckpointConfig, out_of_policy
from jaxlm.io.checkpoint_reading import read_meta, read_shapes, read_state, read_subtree, refusing
from jaxlm.io.checkpoint_sealing import Sealing, quiet_abandoned_writes
from jaxlm.io.checkpoint_steps import META, STATE
from jaxlm.io.checkpoint_verifying import TOPIC, Verifier, brief, listing
from jaxlm.io.checksums import find_damage

T = TypeVar("T")


class Restored(NamedTuple):
    """A state, the meta saved with it, and the step that they are from."""

    step: int
    state: PyTree
    meta: dict[str, Any]


class Checkpointer:
    """Saves and restores the steps of one directory.

    With several processes each of them calls every method, in the same order; `steps`, `latest_step`, `is_intact` and
    `close` alone are each one's own. The first decides and speaks.

    Args:
      directory: local path or ``gs://`` address, shared by all processes; made when missing, unless read-only.
      config: what to keep; None = the defaults. The caller decides when to save.
      read_only: opens another process's checkpoints: nothing is made, cleaned, renamed or deleted.
      say: hears, a line each, of what was damaged and what was used instead. None = standard error.
    """

    def __init__(
        self,
        directory: str | Path,
        config: CheckpointConfig | None = None,
        *,
        read_only: bool = False,
        say: Callable[[str], None] | None = None,
    ):
        path = epath.Path(directory)
        self.directory = path if "://" in str(directory) else epath.Path(Path(directory).absolute())
        self._config, self._read_only, self._say = config or CheckpointConfig(), read_only, say or _to_stderr
        self._verifier = Verifier(self.directory, self.steps, self._say)
        self._sealing: Sealing | None = None
        self._keep_before: int | None = None
        self._failed = False
        """Whether the last save did not succeed: it left files, and Orbax's manager an error."""
        logging.getLogger("absl").addFilter(_not_from_orbax)
        quiet_abandoned_writes()
        self._writes = not read_only and process_id() == 0
        if process_id() == 0:  # before the manager: in making one the others wait for the first process
            with refusing(self.directory):
                (files.name_unsealed if read_only else files.clear_unsealed)(self.directory, self._say)
        self._manager = self._open_manager()
        self._purge()

    def save(self, step: int, state: PyTree, meta: dict[str, Any], *, keep_before: int | None = None) -> bool:
        """Starts saving `state` (a pytree of arrays) and `meta` (JSON values; tuples come back as lists) as `step`.

        The newest step before `keep_before` stays too, beyond what the config keeps, until the next save.

        Waits for the save before it, if that is still under way, and raises what went wrong in it: UserError where the
        disk is full. The arrays may be donated as soon as this returns. Returns False, having done nothing, where
        `step` is already saved.
        """
        record = pack_meta(step, meta)
        self.wait()
        if not self._make_way(step):
            return False
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record))
        try:
            if self._writes:
                files.mark_unfinished(self.directory, step)
            self._manager.save(step, args=args, force=True)
        except Exception as error:
            self._failed = True
            self._raise(step, error)
        self._sealing = Sealing(self._manager, self._path(step), step)
        self._keep_before = keep_before
        return True

    def wait(self) -> None:
        """Blocks until the save under way is committed; raises what went wrong in it. Then removes what may go."""
        if (sealing := self._sealing) is None:
            return
        error = sealing.join()
        self._sealing = None
        if not all_agree(TOPIC, error is None):
            self._failed = True
            self._raise(sealing.step, error or UserError(f"saving step {sealing.step} failed in another process"))
        if num_processes() > 1:
            on_first_process(TOPIC, lambda: self._check_shares(sealing.step))
        if self._writes:
            files.unmark(self.directory, sealing.step)
            self._retire(sealing.step)

    def resume(self, abstract_state: PyTree) -> Restored | None:
        """The newest intact step, laid out as `abstract_state` says (see `restore`); None where there is none at all.

        Damaged newer steps are named and, unless read-only, renamed to ``<step>.damaged``, so that they can be saved
        again. Raises UserError where all steps are damaged, or files are there that may not or cannot be read now; then
        nothing is renamed.
        """
        if not on_first_process(TOPIC, self.steps):
            return None
        step, (state, meta) = self._read(None, lambda path: read_state(path, abstract_state))
        return Restored(step, state, meta)

    def restore(self, abstract_state: PyTree, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
        """The state of a step (None = the newest intact one, as `resume`), laid out as asked, and its meta.

        `abstract_state` holds ShapeDtypeStructs with shardings; the mesh may differ from the one that saved. Raises
        UserError where there is no such step, it is damaged, a newer jaxlm wrote it, or its arrays are not those asked
        for.
        """
        return self._read(step, lambda path: read_state(path, abstract_state))[1]

    def restore_params(
        self, abstract_params: Params | None = None, step: int | None = None, *, name: str = "params"
    ) -> tuple[Params, dict[str, Any]]:
        """One sub-tree of the state (``params``, ``ema``) and the meta; nothing else of the state is restored.

        `abstract_params` may ask for other dtypes than were saved (weights to serve in bfloat16). None gives what was
        saved in NumPy arrays on the host, for no device may hold it whole. The step is chosen, and refused, as in
        `restore`.
        """
        return self._read(step, lambda path: read_subtree(path, name, abstract_params))[1]

    def shapes(self, step: int | None = None) -> dict[str, Any]:
        """What a step holds, as nested dicts (tuples as lists, empty nodes as None) of ShapeDtypeStructs."""
        return self._read(step, read_shapes)[1]

    def read_meta(self, step: int | None = None) -> dict[str, Any]:
        """The meta saved with a step (None = the newest intact one)."""
        return self._read(step, read_meta)[1].meta

    def newest_intact(self) -> int | None:
        """The newest step whose files are all as they were saved; None where there is no step at all.

        Verifies from the newest on, each step once in this process, and treats damaged ones as `resume` does.
        """
        if not on_first_process(TOPIC, self.steps):
            return None
        step = self._verifier.newest_intact()
        self._leave_behind(step)
        return step

    def is_intact(self, step: int) -> bool:
        """Whether the files of a step are as they were saved. Not collective: for the first process to ask."""
        return not self._verifier.look(step)

    def set_aside(self, step: int) -> None:
        """Renames a step to ``<step>.damaged`` (numbered where that is taken): it is no step any more."""
        if self._writes:
            files.set_aside(self.directory, step)
        self._verifier.forget(step)
        all_agree(TOPIC, True)

    def forget_after(self, step: int) -> None:
        """Removes the steps after ``step``, newest first, permanent ones too: the run takes another way from there."""
        self.wait()
        if self._writes:
            for later in reversed(self.steps()):
                if later > step:
                    files.discard(self.directory, later)
                    self._verifier.forget(later)
        all_agree(TOPIC, True)
        self._purge()

    def steps(self) -> list[int]:
        """The committed steps, ascending, read from the directory: a save under way is not among them."""
        with refusing(self.directory):
            return files.committed_steps(self.directory)

    def latest_step(self) -> int | None:
        """The newest committed step, or None. It is not verified: see `newest_intact`."""
        return max(self.steps(), default=None)

    def close(self) -> None:
        """Waits, then releases the threads. Several processes do not wait for each other here: one may have failed."""
        try:
            if num_processes() == 1:
                self.wait()
            elif self._sealing is not None and (error := self._sealing.join()) is not None:
                self._raise(self._sealing.step, error)
        finally:
            self._sealing = None
            self._close_manager()
            self._purge()
            for thread in list(files.purging(self.directory)):
                thread.join()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _open_manager(self) -> ocp.CheckpointManager:
        # No preservation policy: Orbax keeps all. What goes is decided here, once the newest step is sealed.
        options = ocp.CheckpointManagerOptions(
            create=not self._read_only,
            read_only=self._read_only,
            cleanup_tmp_directories=not self._read_only,
            lightweight_initialize=True,
        )
        return ocp.CheckpointManager(self.directory, item_names=(STATE, META), options=options)

    def _close_manager(self) -> None:
        with suppress(Exception):  # the sealing thread had it too, and it has been raised
            self._manager.wait_until_finished()
        self._manager.close()

    def _make_way(self, step: int) -> bool:
        """Whether `step` is to be saved: then nothing of that name is left, on disk or in the manager's own list."""
        damaged = on_first_process(TOPIC, lambda: bool(self._verifier.faults.get(step)) and step in self.steps())
        if damaged:
            self.set_aside(step)
        if on_first_process(TOPIC, lambda: step in self.steps()):
            return False
        if on_first_process(TOPIC, lambda: self._failed or self._is_taken(step)):
            self._close_manager()
            if self._writes:
                with refusing(self.directory):
                    files.clear_unsealed(self.directory, self._say)
            self._manager, self._failed = self._open_manager(), False
        self._verifier.forget(step)
        return True

    def _is_taken(self, step: int) -> bool:
        """Whether something of that name is on disk, or in the manager's own list."""
        return self._path(step).exists() or step in self._manager.all_steps()

    def _retire(self, saved: int) -> None:
        """Deletes what is out of policy. Only ever called when step `saved` is sealed."""
        steps = self.steps()
        needed = max((step for step in steps if step < (self._keep_before or 0)), default=None)
        for step in out_of_policy(steps, self._config.keep_last, self._config.keep_every):
            if step not in (saved, needed):  # `saved` is older than others where an older step was resumed from
                files.discard(self.directory, step)
                self._verifier.forget(step)
        self._purge()

    def _purge(self) -> None:
        if self._writes:
            files.purge(self.directory)

    def _check_shares(self, step: int) -> None:
        """Each process hashed its share of the files that it saw: together that must be all that there are."""
        if faults := find_damage(self._path(step), contents=False):
            raise UserError(
                f"the processes do not see the same files in {self._path(step)} ({brief(faults)}): "
                "give them one shared directory"
            )

    def _raise(self, step: int, error: BaseException) -> NoReturn:
        """The error of a save, as the user's business where the disk was full."""
        if not is_full_disk(error):
            raise error
        steps = self.steps()
        kept = f"steps {listing(steps)} are intact, " if steps else "no step was saved yet, "
        raise UserError(
            f"no space left for step {step} in {self.directory}: free space; {kept}the same command goes on from there"
        ) from error

    def _read(self, step: int | None, read: Callable[[epath.Path], T]) -> tuple[int, T]:
        """(the step, ``read`` of its directory): of that step, or else of the newest that is intact and can be read."""
        while True:
            chosen = (
                self._verifier.newest_intact()
                if step is None
                else on_first_process(TOPIC, functools.partial(self._verifier.check, step))
            )
            done: list[T] = []
            fault = "in another process"
            try:
                with refusing(self._path(chosen)):
                    done.append(read(self._path(chosen)))
            except (UserError, MemoryError, jax.errors.JaxRuntimeError):  # of the device, not of the files
                raise
            except Exception as error:
                fault = _first_line(error)
            if all_agree(TOPIC, bool(done)):
                if step is None:
                    self._leave_behind(chosen)
                return chosen, done[0]
            self._verifier.faults[chosen] = [f"Orbax cannot read it: {fault}"]

    def _leave_behind(self, used: int) -> None:
        """Names the damaged steps newer than the one used and, where this process trains on, clears their places."""
        faults = self._verifier.faults
        damaged = [step for step in self.steps() if step > used and faults.get(step)] if faults else []
        for step in on_first_process(TOPIC, lambda: damaged):
            if process_id() == 0:
                what = f"checkpoint {step} of {self.directory} is damaged ({brief(faults[step])})"
                self._say(f"{what}: step {used} is used instead")
            if not self._read_only:
                self.set_aside(step)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0][:200]}"


def _not_from_orbax(record: logging.LogRecord) -> bool:
    """Orbax speaks through absl's logger on every call; and what fails it both logs, at length, and raises."""
    return "/orbax/" not in record.pathname.replace("\\", "/")
