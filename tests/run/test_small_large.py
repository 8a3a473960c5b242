"""A small model tuned against a larger one prompted, at a tiny size: one table, its report, and what is refused."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

import jaxlm
from jaxlm.run import small_large
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.cli import main
from tests.run.commands import REPO, environment
from tests.run.encoder_runs import make_encoder_run

CONFIG = '''
"""Tiny."""
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.finetune_config import FinetuneConfig, TaskConfig
from jaxlm.run.small_large_config import SmallLargeConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return SmallLargeConfig(
        large=LARGE,
        small=FinetuneConfig(
            model=EncoderConfig(max_seq_len=32, num_layers=1, model_dim=16, num_heads=2),
            tokenizer=TokenizerConfig(kind="byte"),
            task=TaskConfig(TASK seq_len=24, pooling="mean"),
            optimizer=OptimizerConfig(peak_lr=0.02, schedule="constant", warmup_steps=0),
            num_steps=30,
        ),
        num_shots=1,
        shot_tokens=8,
        cue="is:",
        max_examples=30,
        timed_answers=3,
    )
'''


def write_examples(path, count, seed):
    rng = np.random.default_rng(seed)
    with path.open("w") as file:
        for _ in range(count):
            text = " ".join("".join(rng.choice(list("ab"), 2)) for _ in range(3))
            file.write(json.dumps({"text": text, "label": "many" if text.count("a") > 2 else "few"}) + "\n")
    return path


@pytest.fixture
def files(tmp_path, make_run):
    """(config over two labelled files, config without files), the larger model beside them."""
    make_run(tmp_path / "large", seq_len=48)
    train, validation = write_examples(tmp_path / "train.jsonl", 80, 0), write_examples(tmp_path / "val.jsonl", 40, 1)
    config = CONFIG.replace("LARGE", repr(str(tmp_path / "large")))
    given, made = tmp_path / "given.py", tmp_path / "made.py"
    given.write_text(config.replace("TASK", f"train={str(train)!r}, validation={str(validation)!r}, "))
    made.write_text(config.replace("TASK", ""))
    return given, made


def test_one_table_through_the_real_command(files, tmp_path, capsys):
    config, _ = files
    run_dir = tmp_path / "large" / "small_large"
    args = [sys.executable, "-m", "experiments.small_large", str(config), "--run-dir", str(run_dir)]
    done = subprocess.run(args, cwd=REPO, env=environment(1), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert results == json.loads((run_dir / "small_large.json").read_text())
    majority, small, large = results["rows"]
    assert majority["how"] == "always 'many'"
    assert majority["accuracy"] == pytest.approx(0.5, abs=0.3)
    assert small["accuracy"] > 0.8
    assert small["num_params"] == sum(leaf.size for leaf in jax_leaves(jaxlm.load(run_dir / "small").params))
    assert small["train_flops"] > 0 == large["train_flops"]
    assert 0 < small["answer_flops"] < large["answer_flops"]
    assert 0 <= large["accuracy"] <= 1
    assert large["how"] == "prompted with 1 example"
    assert min(small["answer_milliseconds"], large["answer_milliseconds"]) > 0
    assert results["task"]["labels"] == ["few", "many"]
    assert results["task"]["num_answered"] == 30
    assert results["prompt"].endswith("\nis:")
    # What is counted: two labels, each behind the whole prompt, which the context holds.
    lm = jaxlm.load(tmp_path / "large")
    assert isinstance(lm, CausalLM)
    assert len(lm.encode(results["prompt"] + " many")) <= 48

    assert main(["report", str(tmp_path / "large")]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(tmp_path / "large" / "report.html")}
    for path in (run_dir, tmp_path / "large"):
        text = (path / "report.html").read_text()
        for words in ("commonest class", "milliseconds an answer", "2N for each token read"):
            assert words in text
    assert "Small against large" in text


def jax_leaves(tree):
    return [leaf for part in tree.values() for leaf in jax_leaves(part)] if isinstance(tree, dict) else [tree]


@pytest.mark.slow
def test_without_files_the_task_is_made_from_the_standard_library(files, tmp_path, capsys):
    _, config = files
    argv = ["small-large", str(config), "--run-dir", str(tmp_path / "run"), "--small.num-steps", "2"]
    argv += ["--max-examples", "5", "--timed-answers", "1"]
    code = main(argv)
    out, err = capsys.readouterr()
    assert code == 0, err
    results = json.loads(out)
    assert results["task"]["labels"] == ["module", "class", "method", "function"]
    assert results["task"]["num_answered"] == 5
    lines = (tmp_path / "run" / "task" / "train.jsonl").read_text().splitlines()
    assert len(lines) == results["task"]["num_train"]
    assert {"text", "label", "module"} == json.loads(lines[0]).keys()
    # Begun again with other shots, it trains nothing and makes no task.
    code = main([*argv, "--seed", "3"])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "is finished" in err
    assert "making the task" not in err
    assert json.loads(out)["prompt"] != results["prompt"]


def test_bad_input_is_one_line_before_anything_is_trained(files, tmp_path, make_run, capsys):
    config, _ = files
    make_encoder_run(tmp_path / "encoder")
    make_run(tmp_path / "closed", kind="char")
    one = tmp_path / "one.jsonl"
    one.write_text('{"text": "aa", "label": "few"}\n')
    unknown = tmp_path / "unknown.jsonl"
    unknown.write_text('{"text": "aa", "label": "none"}\n')
    for argv, words in (
        (("--large", tmp_path / "nowhere"), "no run directory"),
        (("--large", ""), "large is not given"),
        (("--large", tmp_path / "encoder"), "is a model of family 'encoder'"),
        (("--large", tmp_path / "closed"), "has a closed char tokenizer"),
        (("--small.task.train", one), "holds one class alone"),
        (("--small.task.validation", unknown), "unknown.jsonl line 1: unknown label 'none' (of few, many)"),
        (("--small.task.validation", ""), "give both files, or neither"),
        (("--small.task.kind", "tag"), "is not to classify single texts"),
        (("--label-words", "few"), "are not 2 different ones"),
        (("--num-shots", "9"), "more than the context of 48"),
        (("--num-shots", "-1"), "num_shots=-1 is negative"),
        (("--cue", " "), "is empty"),
        (("--max-examples", "0"), "max_examples=0 must be at least 1"),
    ):
        code = main(["small-large", str(config), *map(str, argv), "--run-dir", str(tmp_path / "run")])
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert words in err.splitlines()[-1]
    assert not (tmp_path / "run" / "small").exists()
    assert not (tmp_path / "run" / "config.json").exists()  # nothing is left that another start would meet


def test_a_signal_ends_it_as_it_ends_finetuning(files, tmp_path, capsys, monkeypatch):
    config, _ = files
    monkeypatch.setattr(small_large, "finetune", lambda *_, **__: {"stopped_by": "SIGTERM"})
    assert main(["small-large", str(config), "--run-dir", str(tmp_path / "run")]) == 128 + signal.SIGTERM
    assert json.loads(capsys.readouterr().out)["stopped_by"] == "SIGTERM"
