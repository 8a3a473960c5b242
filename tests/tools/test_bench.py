"""The bench: its rows, its plan for a GPU, and that train, decode and rollout need nothing but JAX, Flax and Optax."""

import json
import os
import subprocess
import sys

import pytest

from tools.bench.__main__ import main
from tools.bench.session import Step, _run, make_plan, run_session

BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"grain", "array_record", "tensorflow_datasets", "tyro", "sentencepiece",
                                      "pyarrow", "tensorboardX", "matplotlib", "qwix"}:
            raise ImportError(f"{name} is not on this machine")

sys.meta_path.insert(0, Absent())
import tools.bench.session, tools.bench.__main__
from tools.bench.decode import Case as Decode, time_decode
from tools.bench.models import SMALL
from tools.bench.train import Case as Train, time_step
from tools.bench.rollout import Case as Rollout, time_rollout
import dataclasses, json
tiny = dataclasses.replace(SMALL, num_layers=1, model_dim=32)
print(json.dumps([time_step(Train("tiny", tiny, 2, 16), 2), time_decode(Decode("tiny", tiny, 2, 8, 5), 2),
                  time_rollout(Rollout("tiny", tiny, 2, 2, 4, 5, parts=2), 2)]))
"""


@pytest.mark.slow
def test_train_decode_and_rollout_need_jax_flax_and_optax_alone(repo):
    done = subprocess.run([sys.executable, "-c", BARE], cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    train, decode, rollout = json.loads(done.stdout.splitlines()[-1])
    assert train["name"] == "train tiny adamw 2x16"
    assert train["mfu"] is None  # a CPU's peak is not known
    assert 0 < train["ms_min"] <= train["ms"] <= train["ms_max"]
    assert decode["name"] == "decode tiny batch 2, 8 + 5 tokens"
    assert rollout["name"] == "rollout tiny grpo 2 x 2 answers, 4 + 5 tokens"
    assert 0 < rollout["rollout_share"] < 1
    assert decode["bandwidth_fraction"] == pytest.approx(
        decode["bytes_per_step"] / decode["measured_bandwidth"] / (decode["ms"] / 1e3)
    )


def test_the_plan_names_the_wanted_figures_first():
    names = [step.name for step in make_plan("nanoGPT")]
    assert names[:2] == ["versus nanogpt", "decode_kernel"]
    assert names[2].startswith("train llama-1.3B")
    assert [name.partition(",")[0] for name in names[3:5]] == [
        "decode llama-1.3B bf16 batch 1",
        "decode llama-1.3B bf16 batch 64",
    ]
    assert names[5:9] == ["train gpt2-124M adamw 16x1024", "kernels", "recurrent", "likelihood"]
    assert len(set(names)) == len(names)
    assert make_plan(None)[0].name == names[1]


def test_a_session_out_of_time_says_what_it_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert run_session(0.0, None) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert len(rows) == len(make_plan(None))
    assert all(row["left_out"] for row in rows)
    assert json.loads(capsys.readouterr().out)["rows"] == rows
    assert os.listdir(tmp_path) == ["bench.json"]


def test_a_step_that_is_ended_gives_what_it_had_said():
    slow = "import sys, time; print('a row', file=sys.stderr, flush=True); time.sleep(60)"
    row = _run(Step("slow", [sys.executable, "-c", slow], 2.0), 3.0)
    assert row == {"failed": "not done after 3 s", "so_far": ["a row"]}


def test_what_a_session_does_not_take_is_refused_before_it_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path / "none"))
    for argv, said in (
        (["--plan", "gpu", "--seconds", "0"], "none is no directory"),
        (["--plan", "gpu", "data"], "leave out data"),
        (["data", "--nanogpt", "x"], "--nanogpt is for --plan gpu"),
    ):
        assert main(argv) == 2
        assert said in capsys.readouterr().err


def test_no_repeats_are_refused_in_a_line(capsys):
    assert main(["data", "--repeats", "0"]) == 2
    assert capsys.readouterr() == ("", "error: --repeats 0 must be at least 1\n")
    assert main(["data", "--repeats", "x"]) == 2
    said = "argument --repeats: invalid int value: 'x' (python -m tools.bench --help shows the options)"
    assert capsys.readouterr() == ("", f"error: {said}\n")
