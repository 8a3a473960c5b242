"""Several processes act as one: the first decides, all hear, and a refusal ends all of them the same way.

Everything here goes through the key-value store of ``jax.distributed``, not through devices: any length of text, before
the devices have started, and as long as the first process needs. With a single process the functions are plain calls.

Each function is called by every process, in the same order.
"""

import contextlib
import hashlib
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO, TypeVar

import jax
from jax._src import distributed  # the key-value store of jax.distributed has no public name; Orbax uses this one too

from jaxlm.core.errors import UserError, full_disk_line, is_full_disk
from jaxlm.io.config_json import diff_fields

T = TypeVar("T")

_ROUND = itertools.count()
_LEFT = "jaxlm/left/"
_LOOK_MS = 2000
"""How long a process waits for others before it looks whether one has left."""


class AgreedError(UserError):
    """A refusal that every process raises at the same place: each may end in its own time."""


class ProcessLost(Exception):
    """Another process has left; the message says which, and why if it could."""


def num_processes() -> int:
    """How many processes run this command; starts no device."""
    return distributed.global_state.num_processes if jax.distributed.is_initialized() else 1


def process_id() -> int:
    """Which of them this is; starts no device."""
    return distributed.global_state.process_id if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """True in the process that writes and prints."""
    return process_id() == 0


def client() -> Any:
    """The key-value store that the processes share."""
    return distributed.global_state.client


def say(text: str) -> None:
    """A line on stderr, from the first process only."""
    print(text, file=first_stderr(), flush=True)


def first_stderr() -> TextIO:
    """stderr in the first process, and in the others a place where nothing is seen."""
    return sys.stderr if is_first() else _nowhere()


def _nowhere() -> TextIO:
    global _NOWHERE
    if _NOWHERE is None:
        _NOWHERE = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (as long as the process)
    return _NOWHERE


_NOWHERE: TextIO | None = None


def on_first_process(topic: str, fn: Callable[[], T]) -> T:
    """What ``fn`` returns in the first process, a JSON value, in all of them; the others do not call it.

    Raises AgreedError in all where it raises UserError, ProcessLost where the first process leaves.
    """
    if num_processes() == 1:
        return fn()
    outcome = exchange(topic, _attempt(fn)[0] if is_first() else None)[0]
    if outcome["refused"] is not None:
        raise AgreedError(outcome["refused"])
    return outcome["value"]


def on_every_process(topic: str, fn: Callable[[], T]) -> T:
    """What ``fn`` returns here, once it has returned everywhere.

    Raises AgreedError in all processes where it raises UserError in one of them, ProcessLost where one leaves.
    """
    if num_processes() == 1:
        return fn()
    outcome, value = _attempt(fn, keep=True)
    refused = {index: other["refused"] for index, other in enumerate(exchange(topic, outcome)) if other["refused"]}
    if refused:
        first, text = next(iter(refused.items()))
        same = len(refused) == num_processes() and len(set(refused.values())) == 1
        raise AgreedError(text if same else f"process {first}: {text}")
    return value[0]


def first_then_others(topic: str, fn: Callable[[], T]) -> T:
    """``fn()`` in the first process, then in the others at once: what it builds on a shared disk is built once.

    Raises as `on_every_process`.
    """
    made: list[T] = []
    on_first_process(topic, lambda: made.append(fn()))
    return on_every_process(topic, lambda: made[0] if made else fn())


def check_same(topic: str, record: Callable[[], dict[str, Any]]) -> None:
    """Raises AgreedError in all processes, with field and process, where their records (JSON values) differ.

    A single process does not make one.
    """
    if num_processes() == 1:
        return
    text = json.dumps(record(), sort_keys=True)
    if len(set(exchange(topic, hashlib.sha256(text.encode()).hexdigest()))) == 1:
        return
    first = on_first_process(topic, lambda: json.loads(text))
    here = process_id()
    lines = [
        f"{name} is {_short(a)} on process 0 and {_short(b)} on process {here}"
        for name, (a, b) in diff_fields(first, json.loads(text)).items()
    ]
    found = list(itertools.chain.from_iterable(exchange(topic, lines)))
    more = f" (and {len(found) - 6} more)" if len(found) > 6 else ""
    raise AgreedError(f"the processes differ: {', '.join(found[:6])}{more}: start the same command on all hosts")


def all_agree(topic: str, ok: bool) -> bool:
    """Whether ``ok`` holds in all processes; none goes on before all have come."""
    return all(exchange(topic, ok))


def exchange(topic: str, value: Any) -> list[Any]:
    """The JSON values of all processes, by process id. The first collects them and hands them out: each process asks
    once, however many there are. Raises ProcessLost where one leaves."""
    if num_processes() == 1:
        return [value]
    number, store = next(_ROUND), client()
    base = f"jaxlm/{number}/{topic}"
    if not is_first():
        store.key_value_set(f"{base}/{process_id()}", json.dumps(value))
        return json.loads(_wait_for(f"{base}/all"))
    values = [value] + [json.loads(_wait_for(f"{base}/{other}")) for other in range(1, num_processes())]
    store.key_value_set(f"{base}/all", json.dumps(values))
    # All are in this round, so all have read the one before.
    store.key_value_delete(f"jaxlm/{number - 1}")
    return values


@contextlib.contextmanager
def one_fate() -> Iterator[None]:
    """What only this process meets ends it here, with its line and exit code, and tells the others.

    The usual way out of the interpreter waits for the other processes, and they would be waiting for this one. A single
    process, or a refusal that all raise, goes the usual way.
    """
    try:
        yield
    except (AgreedError, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if num_processes() == 1:
            raise
        _leave(error)


def _attempt(fn: Callable[[], T], *, keep: bool = False) -> tuple[dict[str, Any], list[T]]:
    """(what the others are told, [the value]): the value itself is told unless it is kept."""
    try:
        value = fn()
    except UserError as error:
        return {"refused": str(error), "value": None}, []
    return {"refused": None, "value": None if keep else value}, [value]


def _wait_for(key: str) -> str:
    while True:
        try:
            return client().blocking_key_value_get(key, _LOOK_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise ProcessLost(f"process 0 cannot be reached ({_first_line(error)})") from error
        for _, text in client().key_value_dir_get(_LEFT):
            raise ProcessLost(text)


def _leave(error: BaseException) -> NoReturn:
    here = f"process {process_id()} of {num_processes()}"
    again = "start the same command on all hosts again: it goes on from its last checkpoint"
    if isinstance(error, UserError):
        code, text = 2, f"error: {' '.join(str(error).split())}"
    elif is_full_disk(error):
        code, text = 2, f"error: {full_disk_line(error)}"
    elif isinstance(error, KeyboardInterrupt):
        code, text = 130, f"interrupted ({here})"
    elif isinstance(error, ProcessLost):
        code, text = 1, f"error: {error}: {here} ends too; {again}"
    elif isinstance(error, jax.errors.JaxRuntimeError) and _is_broken_line(error):
        code, text = 1, f"error: another process is gone ({_first_line(error)}): {here} ends too; {again}"
    else:
        code, text = 1, f"error: {here} failed; {again}"
        traceback.print_exception(error)
    print(text, file=sys.stderr, flush=True)
    if not isinstance(error, ProcessLost):
        with contextlib.suppress(Exception):
            client().key_value_set(f"{_LEFT}{process_id()}", f"{here} has left ({text.removeprefix('error: ')})")
    if is_first():
        time.sleep(_LOOK_MS / 1000 + 1)  # the store ends with this process, and the others should read why
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def _is_broken_line(error: BaseException) -> bool:
    """What Gloo, NCCL and the coordination service say when the other end is gone."""
    text = str(error).lower()
    return any(sign in text for sign in ("connection closed", "connection reset", "broken pipe", "unavailable", "nccl"))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
