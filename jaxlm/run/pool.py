"""Numbered tasks in processes of this machine: spawned, ended with their parent, interrupted as one."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from jaxlm.core.errors import UserError
from jaxlm.run.parcels import Parcel, seal

Work = Callable[[int], None]
SENDING_SECONDS = 1.0
"""What a task that is done may take to say so."""


class _Ended(Exception):
    """A task is not begun, for the others are being ended."""


def run_tasks(work: Work, numbers: Sequence[int], workers: int, *, doing: str, killed: str) -> None:
    """``work(number)`` for each number; one at a time here, or so many processes.

    Args:
      work: does one task; picklable.
      numbers: those that are left to do.
      workers: processes at a time; 1 is this one.
      doing: for the person who waits.
      killed: what to say, as a UserError, where a process was killed.

    Raises what a task raised; tasks that have begun end before.
    """
    if not numbers:
        return
    with _bar(doing, len(numbers)) as bar:
        if workers == 1 or len(numbers) == 1:
            for number in numbers:
                work(number)
                bar.update()
            return
        parcel = seal(work, doing, "define what it needs at the top level of the config file, or use one process")
        _run_many(numbers, min(workers, len(numbers)), parcel, killed, bar)


def _run_many(numbers: Sequence[int], workers: int, parcel: Parcel, killed: str, bar: Any) -> None:
    # Spawned: this process may hold threads. Its death is theirs: they watch for it.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    busy = context.Array("l", workers + 1)  # and whether no task is to begin any more

    def own() -> set[Any]:
        return set(multiprocessing.active_children()) - others

    def end_all() -> None:
        busy[-1] = 1
        for process in own():
            process.terminate()

    def end_idle() -> None:
        # What waits for work hears no signal; where the pool is broken it would wait for it for ever.
        busy[-1] = 1
        while any(process.pid in busy[:-1] for process in own()):
            time.sleep(0.05)
        time.sleep(SENDING_SECONDS)
        for process in own():
            process.kill()

    with (
        _handing_on(end_all) as told,
        concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=_begin, initargs=(parcel, busy)
        ) as pool,
    ):
        futures = [pool.submit(_work, number) for number in numbers]
        if told:  # before all processes were there
            end_all()
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                bar.update()
        except BrokenProcessPool as error:
            end_idle()
            if error.__cause__ is not None:  # nobody died: what a task raised could not be sent here
                raise
            if told:  # a task that hears no signal ended of it; the others save
                return
            raise UserError(killed) from None
        except _Ended:  # a task was handed over and not begun: what another one says of the signal counts
            pool.shutdown(wait=False, cancel_futures=True)
            end_idle()
            for future in futures:
                if not future.cancelled() and not isinstance(future.exception(), _Ended | BrokenProcessPool | None):
                    future.result()
            return
        except Exception:
            pool.shutdown(wait=not told, cancel_futures=True)  # tasks that have begun end: their work counts
            if told:
                end_idle()
            raise
        except BaseException:  # interrupted: nobody waits
            end_all()
            end_idle()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextlib.contextmanager
def _handing_on(end_all: Callable[[], None]) -> Iterator[list[int]]:
    """Hands a SIGTERM on to the tasks, which save what they have; the list is then no longer empty. Where no task says
    that it was stopped, this process ends of the signal too, after them."""
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def hear(signum: int, frame: Any) -> None:
        told.append(signum)
        end_all()

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
    if told:
        signal.raise_signal(signal.SIGTERM)


def _bar(doing: str, count: int) -> Any:
    if not sys.stderr.isatty():
        print(f"{doing}: {count} tasks", file=sys.stderr, flush=True)
    return tqdm(total=count, desc=doing, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True)


# ---- in the worker

_begun: Work | Exception | None = None
_busy: Any = None
"""The ids of the processes that are at a task, a place for each; 0 = at none."""
_failed: Exception | None = None
"""What a task of this process raised: those that it was handed beforehand are not begun."""


def _begin(parcel: Parcel, busy: Any) -> None:
    global _begun, _busy
    _busy = busy
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all processes: the parent answers for them
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # but for those at a task: the pool is broken by one that ends idle
    _die_with_parent()
    try:
        _begun = parcel.open()
    except Exception as error:  # said by the first task: what an initializer raises is lost
        _begun = error


def _work(number: int) -> None:
    global _failed
    if isinstance(_begun, Exception):
        raise _begun
    if _failed is not None:
        raise _failed
    assert _begun is not None
    try:
        with _at_work():
            _begun(number)
    except Exception as error:
        _failed = error
        raise


@contextlib.contextmanager
def _at_work() -> Iterator[None]:
    """This process's place among the busy ones; SIGTERM ends it, unless its task hears that itself."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # before it is known as busy: what is signalled then must hear it
    try:
        with _busy.get_lock():
            if _busy[-1]:
                raise _Ended
            place = _busy[:-1].index(0)
            _busy[place] = os.getpid()
        try:
            yield
        finally:
            _busy[place] = 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            multiprocessing.connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
