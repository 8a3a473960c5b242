"""The thread that seals a step, and the errors of saving."""

import logging
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from jaxlm.io.checksums import write_manifest


class Sealing:
    """Hashes a step in a thread, once Orbax has committed it.

    With several processes each hashes its share, and needs no barrier of its own: Orbax's thread holds every process at
    ``async_commit_complete`` (``_background_wait_for_commit_futures`` in its async_checkpointer.py) until the first has
    merged, renamed and thereby finished the step, and ``wait_until_finished`` joins that thread. Whether the others'
    shares are there too is known to the main thread only, after its next collective.
    """

    def __init__(self, manager: ocp.CheckpointManager, path: epath.Path, step: int):
        self.step = step
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._seal, args=(manager, path), name=f"seal-{step}")
        self._thread.start()

    def join(self) -> BaseException | None:
        """Waits for the end; returns what went wrong in saving or sealing."""
        self._thread.join()
        return self._error

    def _seal(self, manager: ocp.CheckpointManager, path: epath.Path) -> None:
        try:
            manager.wait_until_finished()
            write_manifest(path, jax.process_index(), jax.process_count())
        except BaseException as error:
            self._error = error


_QUIET = False


def quiet_abandoned_writes() -> None:
    """Keeps the other writes of a save that has failed from printing a traceback each: TensorStore does where Orbax has
    closed the event loop by then, and asyncio for tasks whose error nobody asks for. What failed the save is raised as
    itself."""
    global _QUIET
    if _QUIET:
        return
    _QUIET, before = True, sys.unraisablehook

    def hook(unraisable: Any) -> None:
        abandoned = isinstance(unraisable.exc_value, RuntimeError) and unraisable.object is None
        if not (abandoned and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").addFilter(_not_of_a_write)


def _not_of_a_write(record: logging.LogRecord) -> bool:
    """False for "... exception was never retrieved" where the exception comes out of Orbax."""
    error = record.exc_info[1] if record.exc_info else None
    frames = traceback.extract_tb(error.__traceback__) if error else ()
    lost = "exception was never retrieved" in record.getMessage()
    return not (lost and any("orbax" in Path(frame.filename).parts for frame in frames))
