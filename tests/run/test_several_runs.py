"""Several runs at once: which of them speaks, and what a signal that meets them between two saves comes to."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jaxlm.core.errors import UserError
from jaxlm.run.several_runs import train_several
from jaxlm.run.signals import StopRequest

BEGUN = "JAXLM_TEST_BEGUN"


@pytest.fixture
def tell(tmp_path, monkeypatch):
    """``tell(count, after)``: sends this process SIGTERM so many seconds after ``count`` runs have begun."""
    monkeypatch.setenv(BEGUN, str(tmp_path))

    def begin(count: int, after: float = 0.0) -> None:
        def send():
            while len(list(tmp_path.iterdir())) < count:
                time.sleep(0.05)
            time.sleep(after)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=send, daemon=True).start()

    return begin


def note_begun(number: int) -> None:
    (Path(os.environ[BEGUN]) / str(number)).touch()


def hear(number: int, saving: float) -> dict[str, Any]:
    """A run that hears SIGTERM, and takes its time to save."""
    with StopRequest() as stop:
        note_begun(number)
        while not stop.requested(0):
            time.sleep(0.05)
        time.sleep(saving)
    return {"stopped_by": stop.name, "run_dir": "here"}


def sleep(number: int) -> dict[str, float]:
    """A run that hears no signal, as one that prepares its data."""
    note_begun(number)
    time.sleep(120)
    return {}


def test_a_signal_that_no_run_can_answer_is_said_all_the_same(tell):
    before = signal.getsignal(signal.SIGTERM)
    tell(2)
    start = time.monotonic()
    assert train_several(sleep, "abc", (0, 1, 2), 2) == {"stopped_by": "SIGTERM"}
    assert time.monotonic() - start < 110, "it waited for the runs"
    assert signal.getsignal(signal.SIGTERM) is before


def speak(number: int) -> dict[str, float]:
    print(f"step {number}", file=sys.stderr)
    return {}


@pytest.mark.parametrize(
    ("processes", "lines"), [(1, ["b:", "step 1", "c:", "step 2"]), (2, ["b  step 1", "c  step 2"])]
)
def test_a_run_is_told_by_its_name(processes, lines, capfd):
    assert train_several(speak, "abc", (1, 2), processes) is None
    found = capfd.readouterr().err.splitlines()
    assert found[0] == "runs: 2 tasks"
    assert sorted(found[1:]) == lines if processes > 1 else found[1:] == lines


def save_when_told(number: int) -> dict[str, Any]:
    """Run 0 is soon done, and its process then has nothing to do."""
    return {} if number == 0 else hear(number, 2)


def test_a_process_without_a_run_holds_up_no_stop(tell):
    tell(1, after=2)  # run 0 has ended
    assert train_several(save_when_told, "ab", (0, 1), 2) == {"stopped_by": "SIGTERM", "run_dir": "here"}


def die(number: int) -> dict[str, Any]:
    if number == 1:
        time.sleep(2)  # run 0 has ended
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_a_killed_process_is_said_though_another_has_no_run():
    with pytest.raises(UserError, match="a process was killed"):
        train_several(die, "ab", (0, 1), 2)


def last_ones(number: int) -> dict[str, Any]:
    """Run 1 saves for so long that run 0's process is free meanwhile, and is handed run 2."""
    if number == 2:
        raise AssertionError("it was begun")
    if number == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note_begun(number)
        time.sleep(4)
        return {}
    return hear(number, 6)


def test_a_run_that_was_not_begun_does_not_hide_why(tell):
    tell(2)
    assert train_several(last_ones, "abc", (0, 1, 2), 2) == {"stopped_by": "SIGTERM", "run_dir": "here"}
