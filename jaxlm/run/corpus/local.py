"""The tasks of a stage, in processes of this machine."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from jaxlm.core.errors import UserError
from jaxlm.run.corpus.parcels import Parcel, pack
from jaxlm.run.corpus.workspace import Stage, Workspace


def workers_of(wanted: int | None) -> int:
    """Processes at a time."""
    if wanted is not None:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_stage(stage: Stage, workspace: Workspace, workers: int) -> None:
    """Does what is left of a stage. Raises what a task raised, or UserError where a process was killed."""
    waiting = workspace.unfinished(stage.name, stage.num_tasks)
    if not waiting:
        return
    with _bar(stage, len(waiting)) as bar:
        if workers == 1 or len(waiting) == 1:
            for number in waiting:
                stage.run(workspace, number)
                bar.update()
            return
        _run_many(stage, workspace, waiting, min(workers, len(waiting)), bar)


def _run_many(stage: Stage, workspace: Workspace, waiting: list[int], workers: int, bar: Any) -> None:
    # Spawned: this process may hold threads. Its death is theirs: they watch for it.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(pack(stage, workspace),)
    ) as pool:
        futures = [pool.submit(_work, number) for number in waiting]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                bar.update()
        except BrokenProcessPool as error:
            if error.__cause__ is not None:  # nobody died: what a task raised could not be sent here
                raise
            raise UserError(
                f"a process of stage {stage.name} was killed (out of memory?): start the same command again to go "
                "on, with a lower --executor.workers or more shards"
            ) from None
        except Exception:
            pool.shutdown(wait=True, cancel_futures=True)  # tasks that have begun end: their work counts
            raise
        except BaseException:  # interrupted: nobody waits
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _bar(stage: Stage, count: int) -> Any:
    text = stage.doing or stage.name
    if not sys.stderr.isatty():
        print(f"{text}: {count} tasks", file=sys.stderr, flush=True)
    return tqdm(total=count, desc=text, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True)


# ---- in the worker

_begun: tuple[Stage, Workspace] | Exception | None = None


def _begin(parcel: Parcel) -> None:
    global _begun
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all processes: the parent answers for them
    _die_with_parent()
    try:
        _begun = parcel.open()
    except Exception as error:  # said by the first task: what an initializer raises is lost
        _begun = error


def _work(number: int) -> None:
    if isinstance(_begun, Exception):
        raise _begun
    assert _begun is not None
    stage, workspace = _begun
    stage.run(workspace, number)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            multiprocessing.connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
