"""A ladder at a tiny size, through the real commands: trained once, grown, killed, predicted beyond."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.io.run_table import write_runs
from jaxlm.run import scaling
from jaxlm.run.cli import run_main
from jaxlm.run.config_files import load_config
from jaxlm.run.ladder import open_ladder, row_of
from jaxlm.run.ladder_ahead import _choose
from jaxlm.run.ladder_config import LadderConfig
from jaxlm.scaling.chinchilla import ChinchillaFit
from jaxlm.scaling.forms import CHINCHILLA
from tests.run.commands import environment, wait_for
from tests.run.ladder_files import write_ladder


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    return write_ladder(tmp_path_factory.mktemp("ladder"))


def _run(capsys, *argv: str) -> dict:
    assert run_main(scaling.main, list(argv)) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_a_ladder_is_trained_once_and_may_grow(config_file, tmp_path, capsys):
    argv = ["sweep", str(config_file), "--run-dir", str(tmp_path / "ladder"), "--tokens-per-param", "3", "30"]
    small = [*argv, "--widths", "8"]
    planned = _run(capsys, *small, "--dry-run")
    assert planned["num_runs"] == 2
    assert not (tmp_path / "ladder").exists()
    assert _run(capsys, *small)["num_runs"] == 2
    table = tmp_path / "ladder" / "runs.csv"
    with open(table, newline="") as file:
        first = list(csv.DictReader(file))
    ends = {path: path.stat().st_mtime_ns for path in (tmp_path / "ladder").glob("runs/*/done.json")}
    assert _run(capsys, *argv)["num_runs"] == 3
    assert all(path.stat().st_mtime_ns == end for path, end in ends.items())
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row for row in rows if row["width"] == "8"] == first
    for row in rows:
        # What was spent is what the budget says, in whole steps; N by the plan is N of the run.
        assert float(row["flops"]) == pytest.approx(float(row["budget"]), rel=0.05)
        assert int(row["d"]) == int(row["steps"]) * int(row["tokens_per_step"])
        done = RunDir(tmp_path / "ladder" / row["dir"]).final_figures()
        assert done is not None
        assert (int(row["n"]), float(row["loss"])) == (done["num_params"], done["eval/loss"])
        assert 0 < float(row["epochs"]) <= 1
    parquet = pq.read_table(table.with_suffix(".parquet")).to_pylist()
    assert [row["loss"] for row in parquet] == [float(row["loss"]) for row in rows]


def test_text_that_is_too_short_or_absent_is_said_before(config_file, tmp_path, capsys):
    argv = ["sweep", str(config_file), "--run-dir", str(tmp_path / "ladder")]
    assert run_main(scaling.main, [*argv, "--budgets", "4e8", "1e10"]) == 2
    assert "to train on: add text, lower budgets or tokens_per_param, or allow it with max_epochs" in (
        capsys.readouterr().err
    )
    for budget in ("inf", "nan"):
        assert run_main(scaling.main, [*argv, "--budgets", "4e8", budget]) == 2
        assert "must be numbers above 0, different and ascending" in capsys.readouterr().err
    assert run_main(scaling.main, [*argv, "--run.corpus.paths", str(tmp_path / "absent.txt")]) == 2
    assert "absent.txt" in capsys.readouterr().err
    assert run_main(scaling.main, [*argv, "--widths", "16", "8"]) == 2
    assert "ascending" in capsys.readouterr().err
    assert run_main(scaling.main, [*argv, "--tokens-per-param", "1e5", "1e6"]) == 2
    assert "tokens a parameter" in capsys.readouterr().err
    assert not (tmp_path / "ladder" / "config.json").exists()


@pytest.mark.slow
def test_a_killed_sweep_of_two_processes_goes_on(config_file, tmp_path, capsys):
    run_dir = tmp_path / "ladder"
    argv = ["sweep", str(config_file), "--run-dir", str(run_dir), "--processes", "2"]
    with subprocess.Popen([sys.executable, "-m", "experiments.scaling", *argv], start_new_session=True) as sweep:
        deadline = time.monotonic() + 300
        while not any(run_dir.glob("runs/*/done.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(sweep.pid, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in run_dir.glob("runs/*/done.json")}
    assert kept
    assert _run(capsys, *argv)["num_runs"] == 4
    assert all(path.stat().st_mtime_ns == end for path, end in kept.items())


@pytest.mark.slow
def test_a_signal_is_handed_on_and_moved_text_is_gone_on_with(config_file, tmp_path, capsys):
    run_dir = tmp_path / "ladder"
    argv = ["sweep", str(config_file), "--run-dir", str(run_dir), "--budgets", "4e8", "1e9", "--widths", "8", "16"]
    more = ["--processes", "2", "--run.log-every", "1"]
    command = [sys.executable, "-m", "experiments.scaling", *argv, *more]
    with subprocess.Popen(command, env=environment(1), stdout=subprocess.PIPE, text=True) as sweep:
        wait_for(
            lambda: (
                all(path.stat().st_size for path in run_dir.glob("runs/*/metrics.jsonl"))
                and len(list(run_dir.glob("runs/*/metrics.jsonl"))) > 1
            ),
            [sweep],
        )
        sweep.terminate()
        out, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 128 + signal.SIGTERM
    assert json.loads(out)["stopped_by"] == "SIGTERM"
    assert any(run_dir.glob("runs/*/checkpoints/*"))
    moved = tmp_path / "moved.txt"
    shutil.copy(config_file.parent / "text.txt", moved)
    assert _run(capsys, *argv, "--run.log-every", "1", "--run.corpus.paths", str(moved))["num_runs"] == 4


@pytest.fixture
def lawful(config_file, tmp_path) -> tuple[list[str], Path]:
    """A finished ladder whose losses follow a known law: the table and the marks of its runs, no training."""
    run_dir = tmp_path / "ladder"
    more = ["--budgets", "3e8", "1e9", "2.7e9", "--widths", "8", "16", "24", "32", "--tokens-per-param", "0.3", "40"]
    more += ["--batch-rows", "2", "16"]
    config, _ = load_config(LadderConfig, [str(config_file), *more])
    ladder = open_ladder(config)
    rng = np.random.default_rng(0)
    rows = []
    for one in ladder.rungs:
        loss = (1.0 + 20 / one.num_params**0.4 + 30 / one.num_tokens**0.4) * np.exp(0.001 * rng.standard_normal())
        figures = {"eval/loss": float(loss), "perf/step_seconds": 0.1, "perf/tokens_per_second": 1.0}
        run = RunDir(run_dir / "runs" / one.name)
        run.path.mkdir(parents=True)
        run.write_config(one.config)
        write_json(run.done_path, figures)
        rows.append(row_of(one, figures, ladder.data, run.path.name))
    write_runs(run_dir / "runs.csv", rows)
    return [str(config_file), *more, "--run-dir", str(run_dir), "--resamples", "100", "--times", "2"], run_dir


@pytest.mark.slow
def test_a_prediction_is_written_before_the_run_and_never_again(lawful, capsys):
    argv, run_dir = lawful
    place = run_dir / "ahead-2x"
    written = _run(capsys, "predict", *argv)
    record = (place / "prediction.json").read_bytes()
    truth = 1.0 + 20 / written["num_params"] ** 0.4 + 30 / written["num_tokens"] ** 0.4
    assert written["predicted"]["loss"] == pytest.approx(truth, rel=0.02)
    assert not os.access(place / "prediction.json", os.W_OK) or os.geteuid() == 0

    # Other runs, another law: what was said stands.
    with open(run_dir / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    write_runs(run_dir / "runs.csv", [{**row, "loss": float(row["loss"]) + 1} for row in rows])
    assert _run(capsys, "predict", *argv) == written
    assert (place / "prediction.json").read_bytes() == record

    outcome = _run(capsys, "predict", *argv, "--train")
    assert outcome["error"] == pytest.approx(written["predicted"]["loss"] / outcome["loss"] - 1)
    assert outcome["prediction_sha256"] == written["prediction_sha256"]
    assert _run(capsys, "predict", *argv, "--train") == outcome

    (place / "prediction.json").chmod(0o644)
    (place / "prediction.json").write_text(record.decode().replace('"loss": ', '"loss": 1'))
    assert run_main(scaling.main, ["predict", *argv, "--train"]) == 2
    assert "was changed since its run began" in capsys.readouterr().err
    (place / "prediction.json").unlink()
    assert run_main(scaling.main, ["predict", *argv]) == 2
    assert "begun without a prediction" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--law", "parametric"], "was made with law=lowest, and law=parametric is asked"),
        (["--law", "lowest", "--params", "non-embedding"], "with params=total, and params=non-embedding is asked"),
        (["--law", "lowest", "--least-squares"], "with least_squares=False, and least_squares=True is asked"),
    ],
)
def test_a_prediction_stands_for_the_law_that_made_it(lawful, more, said, capsys):
    argv, run_dir = lawful
    record = run_dir / "ahead-2x" / "prediction.json"
    record.parent.mkdir()
    made = {"predicted": {"law": "lowest", "loss": 1.5}, "params": "total", "least_squares": False}
    record.write_text(json.dumps(made))
    assert run_main(scaling.main, ["predict", *argv, *more]) == 2
    assert said in capsys.readouterr().err
    assert _run(capsys, "predict", *argv, "--law", "lowest")["predicted"] == made["predicted"]


def test_a_table_of_other_runs_predicts_nothing(lawful, capsys):
    argv, run_dir = lawful
    # Without its top rung the ladder is finished too, and the run that is asked for would be in the fit.
    fewer = [word for word in argv if word != "2.7e9"]
    assert run_main(scaling.main, ["predict", *fewer]) == 2
    assert "does not hold this ladder's runs" in capsys.readouterr().err
    (run_dir / "runs.csv").unlink()
    assert run_main(scaling.main, ["predict", *argv]) == 2
    assert "does not hold this ladder's runs" in capsys.readouterr().err
    assert not (run_dir / "ahead-2x").exists()


@pytest.mark.parametrize("command", ["sweep", "predict"])
def test_a_budget_moved_by_less_than_its_name_says_is_another_run(lawful, capsys, command):
    argv, run_dir = lawful
    moved = [word.replace("1e9", "1.004e9") for word in argv]
    if command == "sweep":
        moved = moved[: moved.index("--resamples")]
    assert run_main(scaling.main, [command, *moved]) == 2
    err = capsys.readouterr().err
    assert "1.00e09-w" in err
    assert "holds another config (num_steps" in err
    assert not list(run_dir.glob("ahead-*"))


def test_widths_that_the_heads_do_not_divide_are_passed_over(config_file):
    heads = ["--run.model.model-dim", "24", "--run.model.num-heads", "6", "--run.model.head-dim", "None"]
    more = [*heads, "--widths", "12", "24", "36", "--tokens-per-param", "0.1", "90", "--batch-rows", "2", "16"]
    config, _ = load_config(LadderConfig, [str(config_file), *more])
    ladder = open_ladder(config)
    law = ChinchillaFit(CHINCHILLA, np.array([0.0, 0.0, 0.0, 0.4, 0.4]), np.zeros((0, 5)), np.zeros(0), True)
    assert law.predict(1e3, 1e5) == pytest.approx(1 + 1e3**-0.4 + 1e5**-0.4)
    one = _choose(config, ladder, law, 2e9, "total")
    assert one.config.model.model_dim % 12 == 0


def test_runs_of_one_name_are_refused(config_file):
    with pytest.raises(UserError, match=r"4.00e08-w8 would be the name of two runs"):
        load_config(LadderConfig, [str(config_file), "--budgets", "4e8", "4.001e8"])


def test_a_ladder_that_is_not_finished_predicts_nothing(lawful, capsys):
    argv, run_dir = lawful
    next(run_dir.glob("runs/*/done.json")).unlink()
    assert run_main(scaling.main, ["predict", *argv]) == 2
    assert "1 runs of the ladder are not finished" in capsys.readouterr().err
    assert not (run_dir / "ahead-2x").exists()
