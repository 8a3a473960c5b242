"""A bar on a terminal, plain lines elsewhere."""

import io
import time
from typing import Any

import pytest

from jaxlm.io.progress import NamedLines, Progress, format_count, format_seconds, notice


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


FIGURES = {"train/loss": 2.34567, "perf/tokens_per_second": 12345.0, "perf/mfu": 0.4123, "train/other": 1.0}


def test_plain_lines_where_there_is_no_terminal():
    out = io.StringIO()
    with Progress(100, 40, stream=out) as progress:
        for step in range(41, 51):
            progress.advance(step)
        progress.update(50, FIGURES)
        progress.note("step 50: evaluated")
        time.sleep(0.01)
        progress.update(60, FIGURES | {"perf/mfu": None})
    first, note, second = out.getvalue().splitlines()
    assert first == "step 50/100  loss 2.3457  12.3k tok/s  MFU 41.2%"
    assert note == "step 50: evaluated"
    assert second.startswith("step 60/100  loss 2.3457  12.3k tok/s  0.0")
    assert second.endswith(" s left")


def test_a_bar_on_a_terminal():
    out = Terminal()
    with Progress(100, 40, stream=out) as progress:
        progress.advance(41)
        progress.update(50, FIGURES)
        progress.note("a line")
    text = out.getvalue()
    assert "50/100" in text
    assert "loss 2.3457" in text
    assert "a line\n" in text


def test_advance_is_cheap():
    with Progress(10**6, stream=Terminal()) as progress:
        start = time.perf_counter()
        for step in range(1, 10001):
            progress.advance(step)
        assert (time.perf_counter() - start) / 10000 < 50e-6


def test_notice_says_what_and_how_long():
    out = io.StringIO()
    with notice("compiling", out):
        assert out.getvalue() == "compiling ...\n"
    assert out.getvalue().splitlines()[1].startswith("compiling: ")
    terminal = Terminal()
    with pytest.raises(RuntimeError), notice("compiling", terminal):
        raise RuntimeError
    assert terminal.getvalue() == "compiling ...\n"


def test_formats():
    assert [format_seconds(s) for s in (0.0123, 5.04, 59.4, 185, 7620)] == [
        "0.012 s",
        "5 s",
        "59 s",
        "3 min 05 s",
        "2 h 07 min",
    ]
    assert [format_count(n) for n in (12, 950, 12345, 4.56e6, 7.89e9)] == ["12", "950", "12.3k", "4.56M", "7.89B"]


def test_counts_are_rounded_before_their_letter_is_chosen():
    assert [format_count(n) for n in (999, 999.6, 999_400, 999_700, 999_999_000)] == ["999", "1k", "999k", "1M", "1B"]


def test_lines_of_several_runs_begin_with_their_names():
    out = io.StringIO()
    one: Any = NamedLines("w16", out)
    other = NamedLines("w32", out)
    print("compiling ...", file=one)
    print("step", 1, file=other)
    other.write("half a ")
    with Progress(10, stream=one) as progress:
        progress.update(5, {"train/loss": 1.0})
    other.write("line\n\n")
    assert out.getvalue() == "w16  compiling ...\nw32  step 1\nw16  step 5/10  loss 1.0000\nw32  half a line\nw32  \n"


def test_a_named_line_takes_the_place_of_the_bar_on_a_terminal():
    out = Terminal()
    named = NamedLines("w16", out)
    print("step 1", file=named)
    assert not named.isatty()
    assert out.getvalue() == "\r\x1b[Kw16  step 1\n"
