"""Reward models end to end at tiny size: rankings and steps are learnt, runs resume bit for bit and judge answers."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.evals.pairwise import Pair
from jaxlm.models.families import make_model
from jaxlm.models.heads import HeadConfig, make_task_model
from jaxlm.run.align.best_of import best_of
from jaxlm.run.align.reward_lm import RewardLM
from jaxlm.run.judge_pairs import judge_pairs
from jaxlm.text.chat.messages import Conversation, as_messages
from jaxlm.text.chat.templates import CHATML
from tests.run.align.tuning_commands import command_of, write
from tests.run.commands import assert_same_run

command = command_of("reward")

CONFIG = """
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.config import RecordsConfig
from jaxlm.run.align.reward_config import RewardModelConfig


def config():
    return RewardModelConfig(
        base=BASE,
        data=RecordsConfig(train=(TRAIN,), seq_len=48, validation_fraction=0.2),
        optimizer=OptimizerConfig(peak_lr=0.01, schedule="constant", warmup_steps=1, weight_decay=0.0),
        checkpoint=CheckpointConfig(save_every=8, keep_last=2),
        num_steps=16, global_batch_size=8, log_every=4, eval_batch_size=8,
    )
"""


def rankings(count):
    """Best repeats what was said, then a short word; of two or three answers."""
    for i in range(count):
        said = chr(97 + i % 10) + chr(107 + i % 7)
        answers = [said * 2, "no", "zzzzzz"][: 2 + i % 2]
        yield {"prompt": said, "answers": answers, "source": "ab"[i % 2]}


def steps(count):
    """A step that holds a z is wrong."""
    for i in range(count):
        said = chr(97 + i % 10)
        yield {
            "prompt": said + chr(107 + i % 7),
            "steps": [said * 3, "zz" if i % 3 else said],
            "labels": [True, i % 3 == 0],
        }


def write_config(directory, base, records):
    train = write(directory / "train.jsonl", records)
    path = directory / "tiny.py"
    path.write_text(CONFIG.replace("BASE", repr(str(base))).replace("TRAIN", repr(str(train))))
    return path


def test_rankings_are_learnt_and_answers_judged(base, tmp_path, capsys):
    config, whole = write_config(tmp_path, base, rankings(70)), tmp_path / "whole"
    code, figures, err = command(capsys, config, "--run-dir", whole)
    assert code == 0, err
    assert "rankings of up to 3" in err
    assert figures["eval/accuracy"] > 0.9
    assert figures["eval/accuracy_lower"] < figures["eval/accuracy"]
    found = json.loads((whole / "reward" / "reward.json").read_text())
    assert found["sources"].keys() == {"all", "a", "b"}
    assert found["sources"]["all"]["accuracy"] == figures["eval/accuracy"]
    assert "Calibration" in (whole / "report.html").read_text()

    shutil.copytree(whole, tmp_path / "killed")
    (tmp_path / "killed" / "done.json").unlink()
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "16")
    code, again, err = command(capsys, config, "--run-dir", tmp_path / "killed")
    assert code == 0, err
    assert_same_run(tmp_path / "killed", whole)
    assert again["eval/loss"] == figures["eval/loss"]

    judge = jaxlm.load(whole)
    turns = [[("user", "al"), ("assistant", answer)] for answer in ("alal", "no")]
    good, bad = judge.reward(turns)
    assert good > bad
    pairs = [Pair("p", "al", "alal", "no"), Pair("q", "al", "no", "alal")]
    assert [one.preference for one in judge_pairs(whole, pairs)] == [1.0, 0.0]
    np.testing.assert_allclose(judge.reward(turns[1:], batch_size=2), [bad], rtol=1e-5)
    for asked, words in (
        ([turns[0][:1]], "ends with the user"),
        ([[("user", "x"), ("assistant", "y" * 60)]], "more than the 49"),
    ):
        with pytest.raises(UserError, match=words):
            judge.reward(asked)
    with pytest.raises(UserError, match="reward on decoder"):
        judge.generate(["a"])
    with pytest.raises(UserError, match="an answer to 'al' is longer, with it, than the 49 tokens"):
        judge_pairs(whole, [Pair("p", "al", "alal", "y" * 60)])
    # Answers longer than the judge reads are left aside, the others kept; a prompt without room is refused beforehand.
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "a" * 12}])
    answering = tmp_path / "answering"
    shutil.copytree(base, answering)
    (answering / "chat_template.jinja").write_text(CHATML)
    drawn = best_of(answering, prompts, str(whole), tmp_path / "best.jsonl", max_new_tokens=24, keep_cut=True)
    assert 0 < drawn["num_too_long"] < 8
    assert drawn["num_kept"] == 1
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "a" * 60}])
    with pytest.raises(UserError, match="line 1 is longer than the 49 tokens that judge="):
        best_of(answering, prompts, str(whole), tmp_path / "best.jsonl")
    code, _, err = command(capsys, config, "--base", whole, "--run-dir", tmp_path / "refused")
    assert code == 2
    assert "a task's or a reward model" in err


# With likelihoods the judge reads with the head of the vocabulary too, which this base does not tie to its table.
@pytest.mark.parametrize(
    "likelihood",
    [
        pytest.param((), marks=pytest.mark.slow),
        ("--reward.likelihood-coef", "0.1", "--reward.likelihood-scale", "1"),
    ],
)
def test_adapters_with_a_head_of_their_own(base, tmp_path, capsys, likelihood):
    config = write_config(tmp_path, base, rankings(70))
    argv = ("--tune", "lora", "--optimizer.peak-lr", "0.05", *likelihood, "--run-dir", tmp_path / "run")
    code, figures, err = command(capsys, config, *argv)
    assert code == 0, err
    assert figures["eval/accuracy"] > 0.8
    good, bad = jaxlm.load(tmp_path / "run").reward([[("user", "al"), ("assistant", said)] for said in ("alal", "no")])
    assert good > bad


def test_a_conversation_as_long_as_learned_positions_is_judged(tmp_path, capsys, make_run):
    """The end of an answer has a column of its own, which is not beyond the last position."""
    make_run(tmp_path / "base", max_seq_len=64, seq_len=64, position="learned", tie_embeddings=False)
    config = write_config(tmp_path, tmp_path / "base", rankings(20))
    argv = ("--data.seq-len", "63", "--num-steps", "2", "--checkpoint.save-every", "2", "--run-dir", tmp_path / "run")
    code, _, err = command(capsys, config, *argv)
    assert code == 0, err
    judge = jaxlm.load(tmp_path / "run")
    assert isinstance(judge, RewardLM)
    assert judge.form is not None
    assert judge.context == 64
    said = "y"
    while judge.reads([("user", "al"), ("assistant", said + "y")]):
        said += "y"
    long = [("user", "al"), ("assistant", said)]
    assert len(judge.form.encode_answer(as_messages(long[:1], "turns"), said, "turns")[0]) == 64
    both = judge.reward([[("user", "al"), ("assistant", "y")], long])
    np.testing.assert_allclose(judge.reward([long]), both[1:], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [None, 3.0])
def test_the_likelihood_of_an_answer_is_part_of_its_reward(base, tmp_path, capsys, scale):
    config, run = write_config(tmp_path, base, rankings(70)), tmp_path / "run"
    argv = ("--reward.likelihood-coef", "0.5", "--reward.likelihood-scale", str(scale))
    code, figures, err = command(capsys, config, *argv, "--run-dir", run)
    assert code == 0, err
    assert figures["eval/accuracy"] > 0.9
    judge = jaxlm.load(run)
    assert isinstance(judge, RewardLM)
    form = judge.form
    assert form is not None
    turns = [[("user", "al"), ("assistant", answer)] for answer in ("alal", "no", "zzzzzz")]
    good, bad, _ = found = judge.reward(turns)
    assert good > bad
    # The answer's tokens alone: earlier turns of the assistant are part of what was said.
    ids = [form.encode(Conversation(as_messages(one, "turns"), "turns")).tokens for one in turns]
    start = len(form.prompt(as_messages(turns[0][:1], "turns"), "turns"))
    model = make_model(judge.config)
    task = make_task_model(model, HeadConfig("regress", pooling="last"))
    for row, want in zip(ids, found, strict=True):
        end = row.tolist().index(form.stop_ids[0], start) + 1
        hidden = model.hidden(judge.params, jnp.asarray(row[None, : end - 1]))
        logits = jnp.asarray(model.logits(judge.params, hidden.hidden_btd)[0], jnp.float32)
        nats = np.asarray(jax.nn.log_softmax(logits))
        summed = sum(nats[i - 1, row[i]] for i in range(start, end))
        number = task.outputs(judge.params, {"tokens": row[None, :end], "segment_ids": np.ones((1, end), np.int32)})[0]
        likelihood = summed if scale is None else scale * (np.exp(summed / scale) - 1)
        np.testing.assert_allclose(want, number + 0.5 * likelihood, rtol=1e-4)


def test_likelihoods_are_of_whole_answers(base, tmp_path, capsys):
    config = write_config(tmp_path, base, rankings(4))
    argv = ("--reward.likelihood-coef", "0.5", "--reward.of", "steps", "--run-dir", tmp_path / "run")
    code, _, err = command(capsys, config, *argv)
    assert code == 2
    assert "reward.likelihood_coef=0.5" in err
    code, _, err = command(capsys, config, "--reward.likelihood-scale", "4", "--run-dir", tmp_path / "run")
    assert code == 2
    assert "reward.likelihood_scale=4.0 must be above 0, with a likelihood_coef" in err


def test_steps_are_judged_one_by_one(base, tmp_path, capsys):
    config = write_config(tmp_path, base, steps(70))
    code, figures, err = command(capsys, config, "--reward.of", "steps", "--run-dir", tmp_path / "run")
    assert code == 0, err
    assert figures["eval/accuracy"] > 0.9
    (right,) = jaxlm.load(tmp_path / "run").reward([[("user", "al"), ("assistant", "aaa\nzz")]])
    assert right[0] > 0.5 > right[1]
    for change, words in (
        ({"labels": [True]}, "2 steps and 1 labels"),
        ({"steps": ["a", ""]}, "step 2 is empty"),
        ({"steps": ["a\nb", "c"]}, "step 1 has a line break"),
    ):
        path = write(tmp_path / "bad.jsonl", [next(steps(1)) | change])
        argv = ("--data.train", path, "--reward.of", "steps", "--run-dir", tmp_path / "bad")
        code, _, err = command(capsys, config, *argv)
        assert code == 2
        assert "bad.jsonl line 1" in err
        assert words in err
