"""The supervisor with real processes: what is started again, what is not, and when it gives up."""

import importlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.run_dir import RunDir
from jaxlm.run import cli
from jaxlm.run.supervise import COMMANDS, Patience, Supervisor, _run_dir, kind_of_end, main
from tests.run.commands import (
    REPO,
    assert_same_run,
    environment,
    finish,
    free_port,
    launch,
    saved,
    start,
    succeed,
    write_config,
)

FIELDS = """
        data=DataConfig(seq_len=32),
        model=DecoderConfig(max_seq_len=32, num_layers=1, model_dim=32, num_heads=2, scan_layers=False),
        optimizer=OptimizerConfig(peak_lr=0.003, warmup_steps=2),
        checkpoint=CheckpointConfig(save_every=10, keep_last=20),
        num_steps=NUM_STEPS, global_batch_size=8, log_every=1,
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"), FIELDS.replace("NUM_STEPS", "400"))


@pytest.fixture(scope="module")
def whole_run(config_file, tmp_path_factory):
    """The same run, undisturbed."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    succeed([start(config_file, run_dir)])
    return run_dir


def supervise(config, run_dir, *options, argv=(), **variables):
    command = ("pretrain", str(config), *argv, "--run-dir", str(run_dir))
    return launch("supervise", "--pause", "0.2", *options, *command, **variables)


def child_of(process):
    """The process that a supervisor has running now, or None."""
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(path) as file:
        children = file.read().split()
    return int(children[0]) if children else None


def send(process, run_dir, signum, *, after, to_child=True):
    """A signal, once the run has a checkpoint of step ``after`` or a later one, before its last."""
    while True:
        wait_for_checkpoint(process, run_dir, after=after)
        if pid := child_of(process) if to_child else process.pid:
            os.kill(pid, signum)
            return


def wait_for_checkpoint(process, run_dir, *, after):
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        steps = [int(p.name) for p in (run_dir / "checkpoints").glob("*") if p.name.isdigit()]
        if steps and max(steps) >= after:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


def events(run_dir):
    return [json.loads(line) for line in (run_dir / "supervisor.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_killed_and_preempted_it_goes_on_to_the_same_parameters(config_file, whole_run, tmp_path):
    run_dir = tmp_path / "run"
    process = supervise(config_file, run_dir)
    send(process, run_dir, signal.SIGKILL, after=20)
    while not (run_dir / "supervisor.jsonl").exists():
        time.sleep(0.01)
    send(process, run_dir, signal.SIGTERM, after=60)
    ((code, out, err),) = finish([process])
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["step"] == 400
    assert [event["end"] for event in events(run_dir)] == ["crashed", "preempted", "done"]
    assert events(run_dir)[0]["exit_code"] == -signal.SIGKILL
    assert "killed by SIGKILL" in err
    assert_same_run(run_dir, whole_run)


def test_a_sigterm_to_the_supervisor_saves_and_ends_it(config_file, tmp_path):
    run_dir = tmp_path / "run"
    process = supervise(config_file, run_dir)
    send(process, run_dir, signal.SIGTERM, after=10, to_child=False)
    ((code, _, err),) = finish([process])
    assert code == 143, err
    assert [event["end"] for event in events(run_dir)] == ["stopped"]
    assert saved(run_dir)[0]


def on_a_terminal(*argv, **variables):
    """The command as a shell's child on a terminal of its own; (process, the terminal's other end)."""
    master, slave = pty.openpty()
    # The first terminal that a new session's leader opens is that session's.
    script = f'exec < {os.ttyname(slave)}; exec "$@"'
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", sys.executable, "-m", "jaxlm", *argv],
        cwd=REPO,
        env=environment(1, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return process, (master, slave)


@pytest.mark.parametrize("how", ["ctrl-c", pytest.param("hang-up", marks=pytest.mark.slow)])
def test_what_a_terminal_says_is_heard_once_and_the_run_saves(config_file, tmp_path, how):
    run_dir = tmp_path / "run"
    argv = ("supervise", "pretrain", str(config_file), "--run-dir", str(run_dir))
    process, (master, slave) = on_a_terminal(*argv)
    wait_for_checkpoint(process, run_dir, after=10)
    child = child_of(process)
    assert child is not None
    assert os.getpgid(child) == child  # which Ctrl-C does not reach but through the supervisor
    if how == "ctrl-c":
        os.write(master, b"\x03")
    else:
        os.close(slave)
        os.close(master)
    ((code, _, err),) = finish([process])
    assert code == (130 if how == "ctrl-c" else 143), err
    assert [event["end"] for event in events(run_dir)] == ["stopped"]
    assert "stopped by" in err
    assert saved(run_dir)[0]


def test_it_gives_up_where_nothing_gets_on(config_file, tmp_path):
    # XLA aborts on a flag that it does not know: a process that dies at each start.
    process = supervise(config_file, tmp_path / "run", "--max-failures", "2", XLA_FLAGS="--xla_no_such_flag=1")
    ((code, _, err),) = finish([process])
    assert code == 1
    assert err.count("starting again") == 1
    assert "gave up after 2 failures without a new checkpoint" in err


def test_a_refusal_is_not_repeated(config_file, tmp_path):
    ((code, _, err),) = finish([supervise(config_file, tmp_path / "run", argv=("--no-such-field", "1"))])
    assert code == 2
    assert err.count("error:") == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_of_two_processes_one_is_killed_and_both_meet_again(config_file, whole_run, tmp_path, victim):
    run_dir = tmp_path / "run"
    address = f"localhost:{free_port()}"
    pair = [
        supervise(
            config_file,
            run_dir,
            "--max-failures",
            "12",
            "--pause",
            "1",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
            JAXLM_HEARTBEAT_SECONDS="10",
            JAXLM_CONNECT_SECONDS="60",
        )
        for index in range(2)
    ]
    send(pair[victim], run_dir, signal.SIGKILL, after=20)
    for code, _, err in finish(pair, timeout=480):
        assert code == 0, err
    assert "done" in [event["end"] for event in events(run_dir)]


@pytest.mark.slow
def test_a_host_that_comes_late_is_waited_for(tmp_path):
    """A supervisor that has no patience at all starts its process until the other one is there."""
    config = write_config(tmp_path, FIELDS.replace("NUM_STEPS", "5"))
    run_dir = tmp_path / "run"
    run_dir.mkdir()  # else there is nowhere to write down what happened
    address = f"localhost:{free_port()}"

    def begin(index, seconds):
        together = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index)}
        return supervise(config, run_dir, "--max-failures", "1", JAXLM_CONNECT_SECONDS=seconds, **together)

    first = begin(0, "4")
    end = time.monotonic() + 120
    while not (run_dir / "supervisor.jsonl").exists() or len(events(run_dir)) < 2:
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)
    for code, _, err in finish([first, begin(1, "60")], timeout=240):
        assert code == 0, err
    ends = [event["end"] for event in events(run_dir)]
    assert ends == ["alone"] * (len(ends) - 1) + ["done"]


@pytest.mark.slow
def test_a_run_that_stands_still_is_ended(config_file, tmp_path):
    run_dir = tmp_path / "run"
    process = supervise(config_file, run_dir, "--stall-minutes", "0.25")
    send(process, run_dir, signal.SIGSTOP, after=20)
    stopped = child_of(process)
    assert stopped is not None
    time.sleep(20)  # SIGTERM has been sent by now, and waits
    os.kill(stopped, signal.SIGCONT)
    ((code, _, err),) = finish([process])
    assert code == 0, err
    assert [(event["end"], event["stalled"]) for event in events(run_dir)] == [("crashed", True), ("done", False)]


@pytest.mark.parametrize(
    ("script", "code", "end"),
    [
        ("sleep 4", 0, {"end": "done", "stalled": False}),  # a corpus that takes its time
        ("touch metrics.jsonl; exec sleep 60", 1, {"end": "crashed", "stalled": True}),
    ],
)
def test_the_clock_of_a_run_that_stands_still_starts_with_its_log(tmp_path, monkeypatch, script, code, end):
    monkeypatch.chdir(tmp_path)
    supervisor = Supervisor([], RunDir(tmp_path), Patience(max_failures=1, pause=0.1), stall_minutes=0.02)
    monkeypatch.setattr(supervisor, "_argv", ["sh", "-c", script])
    assert supervisor.run() == code
    (event,) = events(tmp_path)
    assert {name: event[name] for name in end} == end


@pytest.mark.parametrize(
    ("code", "asked", "accepted", "kind"),
    [
        (0, True, True, "done"),
        (143, True, True, "stopped"),
        (143, False, True, "preempted"),
        (-15, False, False, "preempted"),
        (130, False, True, "stopped"),
        (2, False, False, "refused"),
        (3, False, True, "stopped"),
        (2, False, True, "crashed"),
        (4, False, False, "alone"),
        (4, False, True, "alone"),
        (4, True, True, "stopped"),
        (134, False, True, "crashed"),
        (-9, False, False, "crashed"),
        (1, False, False, "crashed"),
    ],
)
def test_what_an_exit_code_means(code, asked, accepted, kind):
    assert kind_of_end(code, asked=asked, accepted=accepted) == kind


def test_patience_grows_back_with_each_checkpoint_and_waiting_costs_none():
    patience = Patience(max_failures=3, pause=1.0)
    assert [patience.after("alone", None) for _ in range(5)] == [1.0] * 5
    assert [patience.after("crashed", None), patience.after("crashed", None)] == [1.0, 2.0]
    assert patience.after("preempted", None) == 1.0
    assert patience.after("crashed", 10) == 1.0
    assert patience.after("crashed", 10) == 2.0
    assert patience.after("crashed", 10) is None


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "none is given"),
        (["chat", "run"], "'chat' is not one"),
        (["pretrain", "quickstart"], "--run-dir"),
        (["--max-failures", "0", "pretrain", "quickstart", "--run-dir", "x"], "--max-failures 0"),
    ],
)
def test_bad_input_is_one_line(argv, words):
    with pytest.raises(UserError, match=words):
        main(argv)


@pytest.mark.parametrize("words", [["--run_dir", "x"], ["--run-dir=x"], ["--run_dir=x"]])
def test_the_run_directory_is_found_however_it_is_written(words):
    assert _run_dir(["pretrain", "quickstart", *words, "--seed", "1"]).path == Path("x")


def test_every_command_that_resumes_a_run_can_be_supervised():
    """All that end in one training loop: `run.tuning`'s, and pretraining."""
    modules = {name: importlib.import_module(where.partition(":")[0]) for name, (where, _) in cli.COMMANDS.items()}
    tuning = {name for name, module in modules.items() if hasattr(module, "tuning_command")}
    assert set(COMMANDS) == tuning | {"pretrain"}
