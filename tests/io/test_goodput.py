"""The account of a run's time: every second under one cause, over kills and rollbacks."""

import pytest

from jaxlm.io.goodput import Account, Goodput, read_events


def event(kind, at, now, **seconds):
    return {"event": kind, "step": at, "time": now, "seconds": seconds}


def test_steps_that_are_taken_again_count_once():
    account = Account(
        [
            event("start", 0, 10.0, start_up=10.0),
            event("spent", 10, 25.0, step=10.0, compile=5.0),
            event("spent", 20, 36.0, step=10.0, data_wait=1.0),
            event("rollback", 15, 38.0, rollback=2.0),
            event("spent", 30, 53.0, step=15.0),
            event("start", 25, 100.0, start_up=7.0),  # killed at 30, saved at 25
            event("spent", 40, 115.0, step=15.0),
        ]
    )
    expected = {"start_up": 10.0, "compile": 5.0, "data_wait": 1.0, "rollback": 2.0 + 5.0, "restart": 7.0 + 5.0}
    assert account.seconds["step"] == pytest.approx(40.0)
    assert {cause: account.seconds[cause] for cause in expected} == pytest.approx(expected)
    assert account.total == pytest.approx(10 + 15 + 11 + 2 + 15 + 7 + 15)
    assert account.goodput == pytest.approx(40 / 75)
    assert (account.starts, account.between) == (2, pytest.approx(100 - 7 - 53))


def test_a_file_that_was_cut_short_goes_on(tmp_path):
    path = tmp_path / "goodput.jsonl"
    with Goodput(path) as first:
        first.spend("start_up", 2.0)
        first.write("start", 0)
        first.spend("step", 3.0)
        first.spend("step", 1.0)
        first.write("spent", 8)
    with open(path, "a") as file:
        file.write('{"step": 9, "sec')
    with Goodput(path) as second:
        second.spend("start_up", 1.0)
        second.write("start", 4)
        figures = second.figures()
    assert figures["perf/seconds/step"] == pytest.approx(2.0)
    assert figures["perf/seconds/restart"] == pytest.approx(1.0 + 2.0)
    assert figures["perf/goodput"] == pytest.approx(2 / 7)
    assert [one["event"] for one in read_events(path)] == ["start", "spent", "start"]


def test_no_time_no_share():
    assert Account().goodput is None
