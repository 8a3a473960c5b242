"""Directories that appear whole or not at all: what stood there is kept until the new one stands."""

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from jaxlm.core.errors import UserError, full_disk_line, is_full_disk
from jaxlm.io.writing import new_directory


def names(path):
    return sorted(child.name for child in path.iterdir())


def test_it_takes_its_name_at_the_end_and_vanishes_on_an_error(tmp_path):
    with new_directory(tmp_path / "a" / "b") as partial:
        (partial / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert names(tmp_path / "a") == ["b"]
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "c") as partial:
        (partial / "file").write_text(str(1 / 0))
    assert names(tmp_path) == ["a"]


def test_what_is_there_is_replaced_only_when_asked(tmp_path):
    (tmp_path / "empty").mkdir()
    with new_directory(tmp_path / "empty") as partial:
        (partial / "file").write_text("old")
    with pytest.raises(UserError, match="is there already"), new_directory(tmp_path / "empty"):
        pass
    with new_directory(tmp_path / "empty", replace=True) as partial:
        (partial / "file").write_text("new")
    assert (tmp_path / "empty" / "file").read_text() == "new"
    assert names(tmp_path) == ["empty"]


def test_a_failed_replacement_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("old")

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", fail)
    with (
        pytest.raises(UserError, match=r"run: Input/output error"),
        new_directory(tmp_path / "run", replace=True),
    ):
        pass
    assert (tmp_path / "run" / "file").read_text() == "old"
    assert names(tmp_path) == ["run"]


def test_a_kill_in_between_loses_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("old")
    code = (
        "import os, signal; from jaxlm.io import writing;"
        "writing.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"with writing.new_directory({str(tmp_path / 'run')!r}, replace=True) as partial:"
        " (partial / 'file').write_text('new')"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert sorted(path.read_text() for path in tmp_path.rglob("file")) == ["new", "old"]
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "run") as partial:
        (partial / "file").write_text(str(1 / 0))
    assert sorted(path.read_text() for path in tmp_path.rglob("file")) == ["new", "old"]
    with new_directory(tmp_path / "run") as partial:
        (partial / "file").write_text("newest")
    assert names(tmp_path) == ["run"]


def test_what_killed_processes_left_is_no_obstacle_and_goes(tmp_path):
    host = socket.gethostname()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = [f".run.{host}.{process}.0123.partial" for process in (int(gone.stdout), os.getpid())]  # one number again
    kept = [f".run.{host}.{os.getppid()}.0123.partial", f".run.elsewhere{host}.1.0123.partial", ".runs.partial"]
    for name in dead + kept:
        (tmp_path / name).mkdir()
    with new_directory(tmp_path / "run") as partial:
        inside = names(tmp_path)
        with new_directory(tmp_path / "run", replace=True) as second:  # what this process writes stays
            assert partial != second
            assert partial.is_dir()
        (partial / "file").write_text("x")
        (tmp_path / "run").rmdir()
    assert inside == sorted([*kept, partial.name])
    assert names(tmp_path) == sorted([*kept, "run"])


def test_places_that_cannot_be_taken_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, message in ((".", "working directory"), ("x" * 300, "File name too long"), ("/", "is there already")):
        with pytest.raises(UserError, match=message), new_directory(path):
            pass
    with new_directory("sub/../b"):
        pass
    assert names(tmp_path) == ["b"]


def caught(fn):
    try:
        fn()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_full_disk_is_known_and_nothing_else_is_taken_for_one():
    full = OSError(errno.ENOSPC, "No space left on device", "x")

    def closing_fails_on_top():
        try:
            raise full
        finally:
            raise OSError(errno.EIO, "x")

    def a_bug_in_its_handler():
        try:
            raise full
        except OSError:
            raise NameError("x") from None

    def a_bug_on_top():
        try:
            raise full
        except OSError:
            print(1 // 0)

    assert all(map(is_full_disk, (full, ValueError("... No space left on device"), caught(closing_fails_on_top))))
    nccl = RuntimeError("shared memory segment /dev/shm/nccl: No space left on device")
    others = OSError(errno.EACCES, "x"), OSError(errno.EFBIG, "x"), nccl
    assert not any(map(is_full_disk, (*others, caught(a_bug_in_its_handler), caught(a_bug_on_top))))
    assert "x" in full_disk_line(full)


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no space left for .*run: free space"), new_directory(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not names(tmp_path)


def test_an_input_that_cannot_be_read_is_not_the_outputs_fault(tmp_path):
    with (
        pytest.raises(UserError, match="cannot read /models/weights: Permission denied"),
        new_directory(tmp_path / "a"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "/models/weights")
    with pytest.raises(BrokenPipeError), new_directory(tmp_path / "a"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert not names(tmp_path)
