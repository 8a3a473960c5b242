"""Fine-tuning end to end at tiny size: it learns, resumes bit for bit, loads and predicts; bad input is one line."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.run_dir import RunDir
from jaxlm.run import gain
from jaxlm.run.cli import main
from jaxlm.run.tuned_model import TunedModel
from tests.run.commands import assert_same_run
from tests.run.encoder_runs import make_encoder_run

ARMS = ("base", "scratch")
CONFIG = """
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.finetune_config import FinetuneConfig, TaskConfig


def config():
    return FinetuneConfig(
        base=BASE,
        task=TaskConfig(train=TRAIN, validation=VALIDATION, seq_len=24, FIELDS),
        optimizer=OptimizerConfig(peak_lr=0.02, schedule="constant", weight_decay=0.0),
        checkpoint=CheckpointConfig(save_every=10, keep_last=5),
        num_steps=30, global_batch_size=16, log_every=5, dropout=0.1, eval_batch_size=16,
    )
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "run"
    make_encoder_run(path)
    return path


def records(kind, count, seed):
    """Texts of a or b, of which the class, the number and the tags are plain to see."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        words = ["".join(rng.choice(list("ab"), 2)) for _ in range(3)]
        share = sum(word.count("a") for word in words) / 6
        if kind == "tag":
            yield {"words": words, "tags": ["A" if word[0] == "a" else "B" for word in words]}
        elif kind == "pair":
            other = words[0] if rng.random() < 0.5 else "zz"
            yield {"one": words[0], "two": other, "label": "other" if other == "zz" else "same"}
        else:
            yield {"text": " ".join(words), "label": share if kind == "regress" else "many" if share > 0.5 else "few"}


def write(path, kind, count=64, seed=0):
    path.write_text("".join(json.dumps(record) + "\n" for record in records(kind, count, seed)))
    return path


def write_task(directory, base, kind, fields=""):
    train, validation = write(directory / "train.jsonl", kind), write(directory / "validation.jsonl", kind, 40, seed=1)
    names = {"BASE": repr(str(base)), "TRAIN": repr(str(train)), "VALIDATION": repr(str(validation)), "FIELDS": fields}
    text = CONFIG
    for name, value in names.items():
        text = text.replace(name, value)
    path = directory / "task.py"
    path.write_text(text)
    return path


def command(capsys, *argv):
    """(exit code, the figures if it printed any, stderr)"""
    code = main(["finetune", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out else {}, err


def test_a_classifier_learns_resumes_bit_for_bit_and_predicts(base, tmp_path, capsys):
    config = write_task(tmp_path, base, "classify", 'kind="classify", pooling="mean"')
    code, figures, err = command(capsys, config, "--run-dir", tmp_path / "whole")
    assert code == 0, err
    assert figures["step"] == 30
    assert figures["eval/accuracy"] > 0.8
    assert {"eval/loss", "eval/f1", "eval/macro_f1", "eval/matthews", "num_params"} <= figures.keys()
    assert (tmp_path / "whole" / "report.html").exists()

    # What a run killed after step 10 leaves.
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    (tmp_path / "killed" / "done.json").unlink()
    for step in (20, 30):
        shutil.rmtree(tmp_path / "killed" / "checkpoints" / str(step))
    code, again, err = command(capsys, config, "--run-dir", tmp_path / "killed")
    assert code == 0, err
    assert "resuming from step 10" in err
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert again["eval/loss"] == figures["eval/loss"]

    assert command(capsys, config, "--run-dir", tmp_path / "whole")[1] == figures  # finished: nothing to do
    code, _, err = command(capsys, config, "--run-dir", tmp_path / "whole", "--seed", "1")
    assert code == 2
    assert "holds another config (seed: 0 -> 1)" in err
    code, _, err = command(capsys, config, "--run-dir", tmp_path / "whole", "--num-steps", "60")
    assert code == 2
    assert "holds another config (num_steps: 30 -> 60)" in err

    lm = jaxlm.load(tmp_path / "whole")
    validation = list(records("classify", 40, 1))
    predicted = lm.predict([record["text"] for record in validation])
    right = np.mean([p.label == r["label"] for p, r in zip(predicted, validation, strict=True)])
    assert right == pytest.approx(figures["eval/accuracy"])
    assert sum(predicted[0].probabilities.values()) == pytest.approx(1)
    with pytest.raises(UserError, match="fine-tuned encoder"):
        lm.score(["a"])
    for texts, words in (([["a", "b"]], "not one text"), ([5], "not one text"), ("a text", "is one string")):
        with pytest.raises(UserError, match=words):
            lm.predict(texts)
    assert isinstance(lm, TunedModel)
    with pytest.raises(UserError, match="batch_size=0"):
        lm.predict(["a"], batch_size=0)


@pytest.mark.slow
def test_it_starts_from_the_base_and_goes_on_when_the_base_has_moved_on(base, tmp_path, capsys):
    moving = tmp_path / "base"
    shutil.copytree(base, moving)
    config = write_task(tmp_path, moving, "classify", 'kind="classify"')
    still = (
        "--optimizer.peak-lr",
        "0",
        "--num-steps",
        "2",
        "--optimizer.warmup-steps",
        "0",
        "--checkpoint.save-every",
        "1",
    )
    for name, more in (("tuned", ()), ("scratch", ("--from-scratch",))):
        code, _, err = command(capsys, config, *still, *more, "--run-dir", tmp_path / name)
        assert code == 0, err
    trained = jaxlm.load(moving).params
    tuned, scratch = (jaxlm.load(tmp_path / name).params for name in ("tuned", "scratch"))
    for name in ("embed", "layers"):  # at a rate of 0 they stay what they began as
        jax.tree.map(np.testing.assert_array_equal, tuned[name], trained[name])
    assert np.any(np.asarray(scratch["embed"]["table"]) != np.asarray(trained["embed"]["table"]))

    # The base trains on and drops the checkpoint that the run began from; the run was killed after its first step.
    with Checkpointer(moving / "checkpoints") as checkpointer:
        other = jax.tree.map(lambda leaf: leaf + 1, trained)
        checkpointer.save(6, {"params": other, "ema_params": None, "opt_state": {}, "step": jnp.asarray(6)}, {})
        checkpointer.wait()
    shutil.rmtree(moving / "checkpoints" / "5")
    shutil.copytree(tmp_path / "tuned", tmp_path / "killed")
    (tmp_path / "killed" / "done.json").unlink()
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "2")
    code, _, err = command(capsys, config, *still, "--run-dir", tmp_path / "killed")
    assert code == 0, err
    assert "resuming from step 1" in err
    assert_same_run(tmp_path / "killed", tmp_path / "tuned")


@pytest.mark.parametrize(
    ("kind", "fields", "score"),
    [
        ("tag", 'kind="tag", text="words", label="tags"', "eval/macro_f1"),
        pytest.param("regress", 'kind="regress", pooling="mean"', "eval/spearman", marks=pytest.mark.slow),
    ],
)
def test_tags_and_numbers_are_learnt(kind, fields, score, base, tmp_path, capsys):
    config = write_task(tmp_path, base, kind, fields)
    code, figures, err = command(capsys, config, "--run-dir", tmp_path / "run")
    assert code == 0, err
    assert figures[score] > 0.7
    (example,) = records(kind, 1, 5)
    (found,) = jaxlm.load(tmp_path / "run").predict([example["words" if kind == "tag" else "text"]])
    assert len(found) == 3 if kind == "tag" else isinstance(found.label, float)


@pytest.mark.slow
def test_pairs_on_a_decoder_and_from_scratch(make_run, tmp_path, capsys):
    make_run(tmp_path / "decoder")
    fields = 'kind="classify", text="one", text_b="two"'
    config = write_task(tmp_path, tmp_path / "decoder", "pair", fields)
    argv = ("--num-steps", "2", "--optimizer.warmup-steps", "0")
    for name, more in (("tuned", ()), ("scratch", ("--from-scratch",))):
        code, figures, err = command(capsys, config, *argv, *more, "--run-dir", tmp_path / name)
        assert code == 0, err
        assert figures["step"] == 2
        assert ("fresh parameters" in err) == (name == "scratch")
    record = json.loads((tmp_path / "tuned" / "config.json").read_text())["config"]
    assert record["base_step"] == 7
    assert record["task"]["labels"] == ["other", "same"]


def test_bad_input_is_one_line_and_leaves_nothing(base, tmp_path, capsys):
    config = write_task(tmp_path, base, "classify", 'kind="classify"')
    empty, unknown, column = (tmp_path / f"{name}.jsonl" for name in ("empty", "unknown", "column"))
    empty.write_text("\n")
    unknown.write_text('{"text": "aa", "label": "few"}\n{"text": "ab", "label": "man"}\n')
    column.write_text('{"text": "aa"}\n')
    copy = write(tmp_path / "copy.jsonl", "classify")
    for argv, words in [
        (("--task.validation", empty), ["empty.jsonl holds no examples"]),
        (("--task.validation", unknown), ["unknown.jsonl line 2", "unknown label 'man'", "did you mean 'many'"]),
        (("--task.validation", tmp_path / "train.jsonl"), ["train.jsonl is in task.train and in task.validation: "]),
        (("--task.validation", copy), ["copy.jsonl in task.validation is a copy of", "train.jsonl in task.train: "]),
        (("--task.train", column), ["column.jsonl line 1 has no 'label'"]),
        (("--task.train", tmp_path / "none.jsonl"), ["none.jsonl cannot be read"]),
        (("--task.kind", "regress"), ["line 1", "is no number"]),
        (("--task.seq-len", "64"), ["task.seq_len=64", "max_seq_len=48"]),
        (("--base", tmp_path / "nowhere"), ["nowhere is not a run directory"]),
        (("--optimizer.warmup-steps", "50"), ["warmup_steps=50"]),
        (("--task.kind", "sort"), ["sort"]),
    ]:
        code, _, err = command(capsys, config, *argv, "--run-dir", tmp_path / "run")
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert code == 2
        for word in words:
            assert word in line, line
    part = write(tmp_path / "part.jsonl", "classify", 7)
    code, _, err = command(capsys, config, "--task.validation", part, "--run-dir", tmp_path / "run", "--dry-run")
    assert code == 0
    assert "7 of 7 in task.validation stand in task.train word for word" in err
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_what_pretraining_is_worth_comes_with_its_interval(base, tmp_path, capsys):
    config = write_task(tmp_path, base, "classify", 'kind="classify", pooling="mean"')
    argv = [str(config), "--num-seeds", "2", "--num-steps", "4", "--run-dir", str(tmp_path / "gain")]
    assert gain.main(argv) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    arms = {arm: [RunDir(tmp_path / "gain" / f"{arm}-{seed}").final_figures() for seed in (0, 1)] for arm in ARMS}
    for name in ("eval/loss", "eval/accuracy"):
        base_mean, scratch_mean = (np.mean([one[name] for one in runs if one]) for runs in arms.values())
        assert results[name]["difference"] == pytest.approx(base_mean - scratch_mean)
        assert results[name]["lower"] <= results[name]["difference"] <= results[name]["upper"]
    assert json.loads((tmp_path / "gain" / "gain.json").read_text()) == results
    assert results["base_step"] == 5
    data = tmp_path / "train.jsonl"
    kept = data.read_text()
    data.write_text(kept.replace("a", "b", 1))
    with pytest.raises(UserError, match=r"examples_sha256=.* mend the input or pass another --run-dir"):
        gain.main(argv)
    data.write_text(kept)
    assert gain.main(argv) == 0
    with pytest.raises(UserError, match="no spread"):
        gain.main([*argv, "--num-seeds", "1"])
    with pytest.raises(UserError, match="give --base RUN"):
        gain.main([*argv, "--from-scratch", "True"])


def test_an_undefined_score_leaves_out_its_pair_alone():
    found = gain._compare([0.5, None, 0.7], [0.1, 0.2, 0.1])
    assert found["num_undefined"] == 1
    assert found["difference"] == pytest.approx(0.5)
    assert gain._compare([None, 1.0], [0.0, None]) == {
        **dict.fromkeys(("base", "scratch", "difference", "lower", "upper")),
        "num_undefined": 2,
    }
