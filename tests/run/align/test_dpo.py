"""Preference tuning end to end at tiny size: it learns, resumes bit for bit, computes its reference once."""

import json
import shutil

import numpy as np
import pytest

import jaxlm
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.conversations import read_rankings
from jaxlm.run.align.dpo_data import best_and_worst, good_and_bad
from tests.run.align.tuning_commands import command_of, write
from tests.run.commands import assert_same_run

command = command_of("dpo")

CONFIG = """
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.config import AnswersConfig, RecordsConfig
from jaxlm.run.align.dpo_config import DpoConfig


def config():
    return DpoConfig(
        base=BASE,
        data=RecordsConfig(train=(TRAIN,), seq_len=48, validation_fraction=0.2),
        optimizer=OptimizerConfig(peak_lr=0.003, schedule="constant", warmup_steps=1, weight_decay=0.0),
        checkpoint=CheckpointConfig(save_every=6, keep_last=2),
        sample=AnswersConfig(num_prompts=1, max_new_tokens=4),
        num_steps=12, global_batch_size=8, log_every=3, eval_batch_size=8,
    )
"""


def pairs(count):
    """The better answer repeats what was said."""
    for i in range(count):
        said = chr(97 + i % 10) + chr(107 + i % 7)
        yield {"prompt": said, "chosen": said * 2, "rejected": "no", "source": "ab"[i % 2]}


@pytest.fixture
def config(base, tmp_path):
    train = write(tmp_path / "train.jsonl", pairs(70))
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG.replace("BASE", repr(str(base))).replace("TRAIN", repr(str(train))))
    return path


@pytest.mark.slow
def test_plain_text_beside_the_pairs(config, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("the same few words again and again\n" * 40)
    beside = ["--text.coef", "1.0", "--text.seq-len", "24", "--text.corpus.source", "text", "--text.corpus.paths", text]
    told = []
    for name, options in (("without", []), ("with", beside)):
        code, figures, err = command(capsys, config, "--run-dir", tmp_path / name, *map(str, options))
        assert code == 0, err
        assert figures["eval/accuracy"] == 1
        told.append(jaxlm.load(tmp_path / name).score(["the same few words again and again"])[0].nats)
    assert "plain text: " in err
    assert told[1] < told[0] - 10

    config.write_text(config.read_text().replace("num_steps=12", "num_steps=12, text=PlainTextConfig(coef=-1.0)"))
    config.write_text(config.read_text().replace("import DpoConfig", "import DpoConfig, PlainTextConfig"))
    code, _, err = command(capsys, config, "--run-dir", tmp_path / "bad")
    assert code == 2
    assert "text.coef=-1.0 must be 0 or more" in err


def test_pairs_are_learnt_and_the_reference_is_computed_once(config, base, tmp_path, capsys):
    whole = tmp_path / "whole"
    code, figures, err = command(capsys, config, "--run-dir", whole)
    assert code == 0, err
    assert err.count("log-probabilities of the reference") == 1
    assert figures["eval/accuracy"] == 1
    assert figures["eval/loss"] < 0.5 < np.log(2)
    assert figures["eval/reward_margin"] > 0.5
    assert "share of pairs" in (whole / "report.html").read_text()
    assert jaxlm.load(whole).answer(["al"], max_new_tokens=4)

    shutil.copytree(whole, tmp_path / "killed")
    (tmp_path / "killed" / "done.json").unlink()
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "12")
    for hurt in (False, True):  # with the reference's file, and with one that was cut short
        again = tmp_path / f"again-{hurt}"
        shutil.copytree(tmp_path / "killed", again)
        if hurt:
            (again / "ref_logprobs.npz").write_bytes((again / "ref_logprobs.npz").read_bytes()[:-100])
        code, found, err = command(capsys, config, "--run-dir", again)
        assert code == 0, err
        assert ("log-probabilities of the reference" in err) == hurt
        assert "resuming from step 6" in err
        assert_same_run(again, whole)
        assert found["eval/loss"] == figures["eval/loss"]
        assert (again / "ref_logprobs.npz").read_bytes() == (whole / "ref_logprobs.npz").read_bytes()


@pytest.mark.parametrize(("loss", "tune"), [("kto", "lora"), pytest.param("orpo", "all", marks=pytest.mark.slow)])
def test_other_losses_and_adapters(loss, tune, config, tmp_path, capsys):
    run = tmp_path / "run"
    argv = ("--pairs.loss", loss, "--tune", tune, "--optimizer.peak-lr", "0.01", "--run-dir", run)
    code, figures, err = command(capsys, config, *argv)
    assert code == 0, err
    # Of one answer at a time KTO asks less: half is where it began.
    assert figures["eval/kto"] < 0.5 if loss == "kto" else figures["eval/accuracy"] > 0.9
    assert (run / "ref_logprobs.npz").exists() == (loss == "kto")
    with Checkpointer(run / "checkpoints", read_only=True) as checkpointer:
        assert ("embed" in checkpointer.shapes()["params"]) == (tune == "all")


def test_an_int8_base_is_its_own_reference(config, tmp_path, capsys):
    """So the first loss is that of a coin; against the base as it was, the rounding would stand in every pair."""
    run = tmp_path / "run"
    argv = ("--tune", "lora_int8", "--num-steps", "1", "--log-every", "1")
    argv += ("--optimizer.warmup-steps", "0", "--run-dir", run)
    code, _, err = command(capsys, config, *argv)
    assert code == 0, err
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (first,) = [line["train/loss"] for line in lines if line["step"] == 1 and "train/loss" in line]
    assert first == pytest.approx(np.log(2), abs=2e-6)


def test_bad_input_is_one_line_and_leaves_nothing(config, base, tmp_path, capsys, make_run):
    other = tmp_path / "other"
    make_run(other, kind="char", max_seq_len=64, seq_len=64)
    short = tmp_path / "short"
    make_run(short, max_seq_len=16, seq_len=16)
    judge = tmp_path / "judge"
    make_run(judge, max_seq_len=64, seq_len=64)
    record = json.loads((judge / "config.json").read_text())
    record["config"]["reward"] = {}
    (judge / "config.json").write_text(json.dumps(record))
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    files = {
        "same": [good, good | {"rejected": "b"}],
        "empty": [good, good | {"chosen": ""}],
        "long": [good, good | {"prompt": "x" * 60}],
        "chats": [good, {"messages": []}],
        "judged": [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "b", "label": 1}],
    }
    paths = {name: write(tmp_path / f"{name}.jsonl", lines) for name, lines in files.items()}
    for argv, words in [
        (("--data.train", paths["same"]), ["same.jsonl line 2: answers 1 and 2 are identical"]),
        (("--data.train", paths["empty"]), ["empty.jsonl line 2: answer 1 is empty"]),
        (
            ("--data.train", paths["long"], "--data.validation", tmp_path / "train.jsonl"),
            ["long.jsonl line 2", "no room"],
        ),
        (("--data.train", paths["chats"]), ["chats.jsonl line 2 is no ranking"]),
        (("--data.train", paths["judged"], "--pairs.loss", "kto"), ["judged.jsonl line 2: 'label' is 1"]),
        (("--reference", other), ["reference=", "has another vocabulary"]),
        (("--reference", short), ["reference=", "more than", "model.max_seq_len=16"]),
        (("--reference", base, "--pairs.loss", "simpo"), ["has no reference"]),
        (("--reference", judge), ["reference=", "a task's or a reward model"]),
        (("--seed", "-1"), ["seed=-1 must lie in 0..4294967295"]),
        (("--pairs.beta", "0"), ["beta=0.0 must be above 0"]),
        (("--base", "None"), ["base is not given, nor a model"]),
    ]:
        code, _, err = command(capsys, config, *argv, "--run-dir", tmp_path / "run")
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert code == 2
        for word in words:
            assert word in line, line
    assert not (tmp_path / "run" / "config.json").exists()


def test_of_a_ranking_with_margins_the_ends_keep_theirs(tmp_path):
    record = {"prompt": "hi", "answers": ["bad", "good", "middling"], "ranks": [2, 0, 1], "margins": [0.0, 3.0, 1.0]}
    (ranking,) = read_rankings(str(write(tmp_path / "ranked.jsonl", [record])))
    pair = best_and_worst(ranking)
    assert (pair.answers, pair.ranks, pair.margins) == (("good", "bad"), (0, 1), (3.0, 0.0))


def test_labels_of_comparisons_are_not_taken_for_judgements(tmp_path):
    compared = {"input": "2+2?", "output_1": "5", "output_2": "4", "label": 2}
    judged = {"prompt": "2+2?", "completion": "4", "label": True}
    found = good_and_bad(str(write(tmp_path / "compared.jsonl", [compared])))
    assert [(one.answer, one.desirable) for one in found] == [("4", True), ("5", False)]
    assert [one.answer for one in good_and_bad(str(write(tmp_path / "judged.jsonl", [judged])))] == ["4"]
