"""SIGTERM and Ctrl-C ask the loop to stop after the step in hand; a second Ctrl-C stops at once."""

import signal
import types
from typing import Self


class StopRequest:
    """A context in which the first SIGTERM or SIGINT sets ``signum`` instead of killing the process.

    Outside the main thread (notebooks' workers, tests) no handler can be set, and the context does nothing.
    """

    signum: int | None = None

    def __enter__(self) -> Self:
        self._previous = {}
        try:
            for signum in (signal.SIGTERM, signal.SIGINT):
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

    @property
    def name(self) -> str | None:
        """``'SIGTERM'``, ``'SIGINT'`` or None."""
        return None if self.signum is None else signal.Signals(self.signum).name
