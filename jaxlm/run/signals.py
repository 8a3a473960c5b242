"""SIGTERM and Ctrl-C ask the loop to hand over no further step and to save; a second Ctrl-C stops at once.

Several processes must stop at the same step. jax's preemption service sees to it: a SIGTERM to any of them gives all a
step, a little ahead, at which to stop. Its handler is jax's own, so Python sets none for SIGTERM then, and Ctrl-C is
handed on to it.
"""

import contextlib
import os
import signal
import types
from collections.abc import Iterator
from typing import Self

from jax.experimental.multihost_utils import reached_preemption_sync_point

from jaxlm.io.agree import exchange, num_processes


class Interrupted(BaseException):
    """A signal asked to stop inside `StopRequest.interrupting`. It is no Exception: nothing on the way may take it for
    one."""


class StopRequest:
    """A context in which the first SIGTERM or SIGINT asks to stop instead of killing the process.

    Outside the main thread (notebooks' workers, tests) no handler can be set, and only other processes can ask.
    """

    signum: int | None = None
    """The signal that this process was sent; of several processes, only of a SIGINT is it known."""

    _interrupting = False

    def __enter__(self) -> Self:
        self._several = num_processes() > 1
        self._previous = {}
        try:
            for signum in (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT):
                self._previous[signum] = signal.signal(signum, self._handle)
        except ValueError:
            self._previous.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _: types.FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self._interrupting:
            raise Interrupted

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """What may be dropped where it stands, since nothing comes of it but figures: a signal raises Interrupted in
        it. Not in one of several processes, which must do the same work."""
        if self.signum is not None and not self._several:
            raise Interrupted
        self._interrupting = True
        try:
            yield
        finally:
            self._interrupting = False

    def requested(self, step: int) -> bool:
        """Whether to stop before taking ``step``: the same answer in all processes. To be asked once for every step."""
        return reached_preemption_sync_point(step) if self._several else self.signum is not None

    def agreed_name(self) -> str:
        """``'SIGTERM'`` or ``'SIGINT'``: what made all processes stop. To be asked once, after ``requested`` was
        True."""
        sent = [name for name in exchange("stopped by", self.name) if name is not None]
        return sent[0] if sent else signal.SIGTERM.name

    @property
    def name(self) -> str | None:
        """``'SIGTERM'``, ``'SIGINT'`` or None."""
        return None if self.signum is None else signal.Signals(self.signum).name
