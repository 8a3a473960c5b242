"""Several runs at once: which of them speaks, and what a signal that meets them between two saves comes to."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from jaxlm.run.several_runs import train_several

BEGUN = "JAXLM_TEST_BEGUN"


def sleep(number: int) -> dict[str, float]:
    """A run that hears no signal, as one that prepares its data."""
    (Path(os.environ[BEGUN]) / str(number)).touch()
    time.sleep(120)
    return {}


def test_a_signal_that_no_run_can_answer_is_said_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv(BEGUN, str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)

    def send():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send, daemon=True).start()
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
