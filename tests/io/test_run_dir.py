"""One command a directory, one config a directory, and files that are whole."""

import math
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.run_dir import RunDir, git_commit, json_ready, write_json, write_text


@dataclass(frozen=True)
class Model:
    num_layers: int = 2


@dataclass(frozen=True)
class Config:
    seed: int = 0
    log_every: int = 10
    model: Model = field(default_factory=Model)


HOLD = "import sys; from jaxlm.io.run_dir import RunDir; RunDir(sys.argv[1]).lock(); print('held', flush=True); input()"
TRY = """
import sys
from jaxlm.core.errors import UserError
from jaxlm.io.run_dir import RunDir
try:
    RunDir(sys.argv[1]).lock()
except UserError as error:
    print(error)
"""


def test_a_second_command_is_refused_until_the_first_dies(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"run directory .*run is in use by process {holder.pid} on .*--run-dir"):
            RunDir(tmp_path / "run").lock()
        holder.kill()
    with RunDir(tmp_path / "run"):
        pass


def test_lock_in_one_process_and_its_forks(tmp_path):
    run = RunDir(tmp_path)
    with run:
        with pytest.raises(UserError, match="in use"):
            RunDir(tmp_path).lock()
        child = subprocess.run([sys.executable, "-c", TRY, str(tmp_path)], capture_output=True, text=True)
        assert f"process {os.getpid()}" in child.stdout
    assert subprocess.run([sys.executable, "-c", TRY, str(tmp_path)], capture_output=True, text=True).stdout == ""


def test_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to run directory .*--run-dir"):
        RunDir(tmp_path / "file" / "run").lock()


def test_config_is_written_once_and_then_compared(tmp_path):
    run = RunDir(tmp_path)
    config = Config()
    assert not run.write_config(config, device="cpu")
    record = run.read_config()
    assert record["config"] == {"seed": 0, "log_every": 10, "model": {"num_layers": 2}}
    assert {"jaxlm", "python", "jax", "flax", "optax", "orbax-checkpoint"} <= record["versions"].keys()
    assert record["device"] == "cpu"
    assert "resumed" not in record

    assert run.write_config(config, device="gpu")
    assert run.read_config()["device"] == "gpu"
    assert run.read_config()["started"] == record["started"]
    assert len(run.read_config()["resumed"]) == 1

    assert run.write_config(replace(config, log_every=5), may_change=("log_every",))
    assert run.read_config()["config"]["log_every"] == 5
    other = Config(seed=1, log_every=3, model=Model(4))
    before = run.config_path.read_bytes()
    with pytest.raises(UserError, match=r"holds another config \(seed: 0 -> 1, model\.num_layers: 2 -> 4\)"):
        run.write_config(other, may_change=("log_every",))
    with pytest.raises(UserError, match=r"\(seed: 0 -> 1\)"):
        run.check_config(other, may_change=("log_every", "model"))
    assert run.config_path.read_bytes() == before


def test_required_facts_must_stay(tmp_path):
    run = RunDir(tmp_path)
    run.write_config(Config())
    run.require(dataset_key="a")
    run.write_config(Config())
    run.require(dataset_key="a")
    with pytest.raises(UserError, match="dataset_key=b differs from a"):
        run.require(dataset_key="b")


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        RunDir(tmp_path).read_config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        RunDir(tmp_path).read_config()
    RunDir(tmp_path / "other").check_config(Config())
    (tmp_path / "third" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="checkpoints but no config"):
        RunDir(tmp_path / "third").write_config(Config())


def test_done_mark_holds_the_figures(tmp_path):
    run = RunDir(tmp_path)
    assert run.final_figures() is None
    run.mark_done({"eval/loss": 1.5, "perf/mfu": None})
    assert run.final_figures() == {"eval/loss": 1.5, "perf/mfu": None}
    for damaged in ('{"eval/loss": 1.', "[]", ""):
        run.done_path.write_text(damaged)
        with pytest.raises(UserError, match=r"done\.json cannot be read: .*: remove it, and the same command"):
            run.final_figures()


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "half")
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_what_json_has_no_number_for_is_null():
    value = {"a": (1.5, math.inf, [-math.inf]), "b": {"c": math.nan, "d": 1}, "e": "x"}
    assert json_ready(value) == {"a": [1.5, None, [None]], "b": {"c": None, "d": 1}, "e": "x"}


def test_git_commit_is_a_hash_or_nothing(tmp_path, monkeypatch):
    commit = git_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None


@pytest.mark.parametrize("path", ["gs://bucket/run", Path("s3://bucket/run")])
def test_an_address_is_no_folder(path):
    with pytest.raises(UserError, match="is an address: mount what lies there"):
        RunDir(path)
